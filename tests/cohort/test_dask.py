"""Work on a Dask cluster of two local worker processes; skipped where the extra `dask` is not installed."""

import sys

import pytest

from pyroqmri.cohort.dask_engine import dask_client, run_dask
from pyroqmri.errors import InputError
from tests.cohort import jobs


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'pyroqmri\[dask\]'"), dask_client("tcp://nowhere:1", None, 1.0):
        pass


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as found:
        yield found


def results(function, tasks, cluster):
    with dask_client(cluster.scheduler_address, None, 1.0) as client:
        return {outcome.index: outcome for outcome in run_dask(function, tasks, client)}


def test_every_task_has_its_own_outcome(cluster):
    found = results(jobs.square, [3, 1, 2], cluster)
    assert [found[i].result for i in range(3)] == [9, 1, 4]
    assert results(jobs.fail, [5], cluster)[0].lost == "ValueError: no 5"


def test_a_killed_worker_loses_the_task_in_hand_which_is_tried_once_more(cluster, tmp_path):
    marks = [str(tmp_path / name) for name in "abc"]
    found = results(jobs.killed_once, marks, cluster)
    assert [found[i].result for i in range(3)] == marks


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr("pyroqmri.cohort.dask_engine._PATIENCE", 1)
    with pytest.raises(InputError, match="cannot be reached"), dask_client("tcp://127.0.0.1:9", None, 1.0):
        pass
