"""Workers of this machine: nothing but the task in hand is lost with one."""

import os
import sys

import pytest

from pyroqmri.commands.processes import default_workers, run_here
from tests.cohort import jobs


def results(function, tasks, **options):
    return {outcome.index: outcome for outcome in run_here(function, tasks, **options)}


@pytest.mark.parametrize("n_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_task_has_its_own_outcome(n_workers):
    found = results(jobs.square, [3, 1, 2], n_workers=n_workers)
    assert [found[i].result for i in range(3)] == [9, 1, 4]
    found = results(jobs.fail, [5], n_workers=n_workers)
    assert found[0].result is None
    assert found[0].lost == "ValueError: no 5"


def test_a_killed_worker_loses_the_task_in_hand_which_is_tried_once_more(tmp_path):
    marks = [str(tmp_path / name) for name in "abc"]
    found = results(jobs.killed_once, marks, n_workers=2)
    assert [found[i].result for i in range(3)] == marks


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_lost_alone():
    found = results(jobs.killed, [0, 1, 2, 4], n_workers=2)
    assert [found[i].result for i in (0, 2, 3)] == [0, 2, 4]
    assert "killed by signal 9, 2 times" in found[1].lost


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds the memory of a process on Linux")
def test_memory_of_a_worker_is_bounded():
    found = results(jobs.take_memory, [0.01, 2.0], n_workers=2, memory_gb=0.5)
    assert found[0].result == 10_000_000
    assert "MemoryError" in found[1].lost


@pytest.mark.slow
def test_two_workers_are_two_other_processes():
    found = results(jobs.process, [0, 1, 2, 3], n_workers=2)
    pids = {outcome.result for outcome in found.values()}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_workers_fit_into_memory():
    assert default_workers(1e6) == 1
    assert default_workers(1e-3) >= 1
