"""Work on a Dask cluster of two local worker processes; skipped where the extra `dask` is not installed."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from benchmarks.cohort_cluster import Cluster
from pyroqmri.cohort.dask_engine import dask_client, run_dask, slurm_cluster
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


def test_the_jobs_of_slurm_are_as_their_script_states(monkeypatch):
    dask_jobqueue = pytest.importorskip("dask_jobqueue", reason="needs the extra dask")
    with slurm_cluster(6.0) as cluster:
        assert isinstance(cluster, dask_jobqueue.SLURMCluster)
        script = cluster.job_script()
    lines = script.splitlines()
    assert {"#SBATCH -n 1", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=6G", "export OMP_NUM_THREADS=1"} <= set(lines)
    command = lines[-1]
    assert command.startswith(sys.executable)
    assert "--nthreads 1" in command
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""


SBATCH = """#!/bin/bash
script="${@: -1}"
cp "$script" "$QUEUE/script.$$"
setsid bash "$QUEUE/script.$$" > /dev/null 2>&1 &
echo $! >> "$QUEUE/jobs"
echo "Submitted batch job $!"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """`sbatch` and `scancel` that start and end processes of this machine; the file of the jobs' numbers."""
    for name, script in (("sbatch", SBATCH), ("scancel", '#!/bin/bash\nkill -- -"$1" 2> /dev/null\n')):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(tmp_path))
    yield tmp_path / "jobs"
    for job in (tmp_path / "jobs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(job), signal.SIGKILL)


@pytest.mark.slow
def test_a_job_of_slurm_that_ends_is_replaced(slurm, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="needs the extra dask")
    monkeypatch.setattr("pyroqmri.cohort.dask_engine.ASKED_EVERY", 1)
    with dask_client(None, 1, 1.0) as client:
        client.wait_for_workers(1, timeout=100)
        os.killpg(int(slurm.read_text().split()[0]), signal.SIGKILL)  # as at its walltime
        assert [outcome.result for outcome in run_dask(jobs.square, [3], client)] == [9]
    assert len(slurm.read_text().split()) == 2


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_the_run_in_a_sentence(tmp_path):
    pytest.importorskip("distributed", reason="needs the extra dask")
    with Cluster(tmp_path) as found, dask_client(found.address, None, 1.0) as client:
        client.wait_for_workers(1, timeout=100)
        outcomes = run_dask(jobs.slow, [0.0, 40.0], client)
        assert next(outcomes).result == 0.0
        found.scheduler.kill()
        with pytest.raises(InputError, match=r"scheduler was lost.*give the same command again"):
            list(outcomes)
