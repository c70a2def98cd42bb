"""What a kill loses: the image in hand and nothing else."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cohort import bids

REPOSITORY = Path(__file__).resolve().parents[2]


def start(root, out, *more):
    words = [sys.executable, "-m", "pyroqmri", "cohort", str(root), str(out), "participant", "--signal", "msdki"]
    words += ["--recipe", "hierarchical", "--set", "training.steps=20", "--no-pages", "--quiet", *more]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def maps(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.nii.gz"))}


def wait_for(condition, process, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def any_done(out):
    with contextlib.suppress(FileNotFoundError):
        return any('"done"' in path.read_text() for path in out.glob(".cohort/records/*.json"))
    return False


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    bids.data_set(folder / "bids", 4)
    process = start(folder / "bids", folder / "out", "--n-workers", "1")
    assert process.wait(400) == 0
    return folder / "bids", maps(folder / "out")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds workers in /proc")
def test_a_killed_worker_costs_one_attempt(undisturbed, tmp_path):
    root, expected = undisturbed
    process = start(root, tmp_path, "--n-workers", "2")
    wait_for(lambda: any_done(tmp_path), process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(400) == 0
    assert maps(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_goes_on_where_it_was(undisturbed, tmp_path, number):
    root, expected = undisturbed
    process = start(root, tmp_path, "--n-workers", "1")
    wait_for(lambda: any_done(tmp_path), process)
    process.send_signal(number)
    assert process.wait(100) == (-number if number == signal.SIGKILL else 143)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sub-01").rglob("*.nii.gz")}
    assert before
    again = start(root, tmp_path, "--n-workers", "1")
    assert again.wait(400) == 0
    assert maps(tmp_path) == expected
    assert {path: path.stat().st_mtime_ns for path in before} == before
