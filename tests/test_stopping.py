"""Signals that end a command: what was done is kept, a line says how to go on, and a second one does not wait."""

import json
import os
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from pyroqmri.cli.stop import Stopped, stoppable
from pyroqmri.commands import denoise as denoise_module
from pyroqmri.commands import fit as fit_module
from pyroqmri.commands.manifest import CALL, CHECKPOINT, MANIFEST
from pyroqmri.denoising import training
from pyroqmri.denoising.saved import save_denoiser
from pyroqmri.fitting.save import save_fit
from pyroqmri.svi import SVILoop
from pyroqmri.svi import checkpoint as checkpoints
from tests.small_scan import write_scan

pytestmark = pytest.mark.usefixtures("no_pages")

# three trainings each; Ctrl-C has a test of its own below
STOPS = [
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143),
    pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.fixture
def call(tmp_path):
    scan = write_scan(tmp_path / "in")
    return [
        "fit", *scan.arguments, "--signal", "msdki", "--recipe", "hierarchical", "--quiet", "--set",
        "training.steps=30", "--set", "training.batch_size=64",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def no_maps(monkeypatch):
    """Only what a training leaves: maps and pages take their time."""
    monkeypatch.setattr(fit_module, "write_results", write_fit)


def write_fit(found, scan, folder, **_):
    save_fit(found, folder / "fit", {"notes": [], "warnings": []})


def stopped_at(monkeypatch, number, step, steps):
    """Send a signal in the middle of a step, the first time that it comes to it; what steps are done goes to a list."""
    honest = SVILoop.one_step

    def one_step(loop):
        if loop.step == step and number is not None and step not in steps:
            os.kill(os.getpid(), number)
        steps.append(loop.step)
        honest(loop)

    monkeypatch.setattr(SVILoop, "one_step", one_step)


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_training_stopped_long_before_its_first_checkpoint_goes_on_to_the_same_weights(
    number, code, call, run, tmp_path, monkeypatch
):
    steps: list[int] = []
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stopped_at(patch, number, 7, steps)
        found, out, err = run(*call, "--out", "out")
        assert (found, out) == (code, "")
        assert steps[-1] == 7
        assert len(err.strip().splitlines()) == 1
        assert "kept; the same command with --resume goes on" in err
        assert sorted(p.name for p in (tmp_path / ".out.partial").iterdir()) == [CALL, CHECKPOINT]
        assert not (tmp_path / "out").exists()
        assert run(*call, "--out", "out", "--resume")[0] == 0
    assert steps == list(range(30))  # a run that began afresh would have done eight of them twice
    assert run(*call, "--out", "whole")[0] == 0
    one, other = (load_file(tmp_path / name / "fit" / "weights.safetensors") for name in ("out", "whole"))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert signal.getsignal(number) is before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "whole"]


def test_a_denoiser_interrupted_in_an_epoch_goes_on_from_the_one_before(run, tmp_path, monkeypatch):
    scan, begun, batches = write_scan(tmp_path / "in"), [], [0]
    honest = training._Loop.one_epoch

    def one_epoch(loop, check):
        def check_batch():
            batches[0] += 1
            if batches[0] == 8:  # an epoch has four: the last of the second
                os.kill(os.getpid(), signal.SIGINT)
            return check()

        begun.append(loop.done)
        honest(loop, check_batch)

    monkeypatch.setattr(training._Loop, "one_epoch", one_epoch)
    monkeypatch.setattr(denoise_module, "_write", lambda fit, *rest: save_denoiser(fit, rest[4] / "fit", {}))
    monkeypatch.setattr("pyroqmri.cli.denoise.finish", lambda *_: None)
    call = ["denoise", *scan.arguments, "--quiet", "--set", "schedule.epochs=4", "--set", "targets.voxels=640"]
    code, out, err = run(*call, "--out", "out")
    assert (code, out) == (130, "")
    assert len(err.strip().splitlines()) == 1
    assert "kept; the same command with --resume goes on" in err
    assert sorted(p.name for p in (tmp_path / ".out.partial").iterdir()) == [CALL, CHECKPOINT]
    code, _, err = run(*call, "--out", "out", "--resume", "--seed", "1")
    assert code == 2
    assert "seed differs: 0 then, 1 now" in err
    assert run(*call, "--out", "out", "--resume")[0] == 0
    assert begun == [0, 1, 1, 2, 3]
    assert run(*call, "--out", "whole")[0] == 0
    one, other = (load_file(tmp_path / name / "fit" / "weights.safetensors") for name in ("out", "whole"))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_stopped_while_maps_are_written_the_training_is_kept_whole(call, run, tmp_path, monkeypatch):
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "write_results", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        code, _, err = run(*call, "--out", "out")
    assert code == 143
    assert "--resume" in err
    stopped_at(monkeypatch, None, 0, steps)
    assert run(*call, "--out", "out", "--resume")[0] == 0
    assert steps == []
    assert (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["--seed", "1"], "seed differs: 0 then, 1 now"),
        (["--set", "training.lr=0.1"], "recipe.training.lr differs"),
        (["--fix", "K=0.5"], "fixed.K differs"),
        (["--bval", "other.bval"], "protocol.bval differs"),
    ],
)
def test_a_changed_call_does_not_go_on_and_the_change_is_named(changed, words, call, run, tmp_path, monkeypatch):
    b = (tmp_path / "in" / "sub-01_dwi.bval").read_text().split()
    (tmp_path / "other.bval").write_text(" ".join(str(1.1 * float(x)) for x in b))
    with monkeypatch.context() as patch:
        stopped_at(patch, signal.SIGTERM, 3, [])
        assert run(*call, "--out", "out")[0] == 143
    state = (tmp_path / ".out.partial" / CHECKPOINT).read_bytes()
    code, _, err = run(*call, "--out", "out", "--resume", *changed)
    assert code == 2
    assert words in err
    assert (tmp_path / ".out.partial" / CHECKPOINT).read_bytes() == state


def test_a_call_that_is_wrong_does_not_cost_the_checkpoint(call, run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_at(patch, signal.SIGTERM, 3, [])
        assert run(*call, "--out", "out")[0] == 143
    assert run(*call, "--out", "out", "--mask", "nowhere.nii.gz")[0] == 2
    assert (tmp_path / ".out.partial" / CHECKPOINT).exists()


def test_a_full_disk_at_a_checkpoint_is_said_in_a_line_and_the_one_before_it_is_kept(call, run, tmp_path, monkeypatch):
    honest, written = checkpoints.write_bytes, []

    def full(path, content):
        written.append(path)
        if len(written) > 1:
            raise OSError(28, "No space left on device", str(path))
        return honest(path, content)

    monkeypatch.setattr(checkpoints, "write_bytes", full)
    code, _, err = run(*call, "--out", "out", "--set", "training.checkpoint_every=10")
    assert code == 2
    assert err.startswith("error: No space left on device")
    assert "free some space" in err
    assert "--resume" in err
    assert len(err.splitlines()) == 1
    assert (tmp_path / ".out.partial" / CHECKPOINT).exists()


def ends(work):
    """Exit code of a child process, or minus its signal; and the child's number while it runs."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(9)
    return pid


def test_a_second_signal_does_not_wait_for_what_the_first_keeps(tmp_path):
    def work():
        try:
            with stoppable():
                (tmp_path / "ready").touch()
                time.sleep(60)
        except Stopped:
            os._exit(8)

    def slow():
        with stoppable():
            try:
                (tmp_path / "ready").touch()
                time.sleep(60)
            except Stopped:
                (tmp_path / "keeping").touch()
                time.sleep(60)

    for wanted, job, marks in ((8, work, ["ready"]), (-signal.SIGTERM, slow, ["ready", "keeping"])):
        pid = ends(job)
        for mark in marks:
            while not (tmp_path / mark).exists():
                time.sleep(0.01)
            (tmp_path / mark).unlink()
            os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == wanted


def test_what_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stopped_before_there_is_anything_to_keep_nothing_is_left(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr("pyroqmri.commands.fit.given_noise", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    code, _, err = run(*call, "--out", "a/out")
    assert code == 143
    assert err.strip() == "terminated"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_demo_replaces_its_folder_only_when_asked(run, tmp_path):
    from pyroqmri.commands.output_folder import output_folder

    with output_folder(tmp_path / "d") as folder:
        (folder / "demo.json").write_text(json.dumps({"GeneratedBy": "pyroqmri"}))
    code, _, err = run("demo", "--out", "d", "--dataset", "nothing")
    assert code == 2
    assert "--overwrite" in err
    code, _, err = run("demo", "--out", "d", "--dataset", "nothing", "--overwrite")
    assert code == 2
    assert "dataset 'nothing'" in err
    assert (tmp_path / "d" / "demo.json").exists()
