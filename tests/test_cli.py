"""The command line: what it says, what it leaves behind, and how it ends."""

import html
import json
import os
import resource
import signal as signals
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file

from pyroqmri.cli import cli
from pyroqmri.cli.common import number_or_word, toml_value
from pyroqmri.cli.files import SETTINGS
from pyroqmri.commands.protocol_files import ProtocolFiles
from tests.small_scan import gradients, sticks, write_scan

QUICK = ("--set", "training.steps=20", "--set", "training.batch_size=64", "--quiet")


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "in")


def fit_arguments(scan, signal="msdki", recipe="least_squares", out="out"):
    return ["fit", *scan.arguments, "--signal", signal, "--recipe", recipe, "--out", out]


def volume(folder, pattern):
    (path,) = folder.glob(pattern)
    return np.asarray(nib.load(path).dataobj)


# what is wrong with the input, and the words that must name it


def wrong_number_of_bvals(scan):
    scan.bval.write_text("0 0 0 1000")
    return ["sub-01_dwi.bval", "4", "27"]


def truncated_gzip(scan):
    scan.image.write_bytes(scan.image.read_bytes()[:-2000])
    return ["sub-01_dwi.nii.gz", "truncated"]


def a_folder(scan):
    scan.image.unlink()
    scan.image.mkdir()
    return ["is a folder", "pyroqmri cohort"]


def wrong_checksum(scan):
    content = bytearray(scan.image.read_bytes())
    content[-8] ^= 0xFF
    scan.image.write_bytes(bytes(content))
    return ["sub-01_dwi.nii.gz", "damaged"]


def three_dimensional(scan):
    nib.save(nib.Nifti1Image(scan.values[..., 0].astype(np.float32), np.eye(4)), scan.image)
    return ["sub-01_dwi.nii.gz", "3-D", "pyroqmri join"]


def mask_of_another_shape(scan):
    nib.save(nib.Nifti1Image(np.ones((8, 8, 5), np.uint8), np.eye(4)), scan.mask)
    return ["brain.nii.gz", "(8, 8, 5)"]


def zero_bvecs(scan):
    g = scan.g.copy()
    g[5] = 0
    scan.write_gradients(scan.b, g)
    return ["no direction (0 0 0) in bvec for volume 5", "--drop-volumes 5"]


def text_in_bval(scan):
    scan.bval.write_text("0 0 0 a lot")
    return ["sub-01_dwi.bval", "'a'"]


def folder_below_a_file(scan):
    (scan.folder / "file").write_text("")
    return ["file/out", "cannot be written"], ("--out", scan.folder / "file" / "out")


def recipe_with_an_unknown_key(scan):
    path = scan.folder / "mine.toml"
    path.write_text(
        'name = "mine"\ndoc = ""\nestimator = "point"\n[likelihood]\nkind = "gaussian"\n[search]\nstepps = 3\n'
    )
    return ["stepps", "steps"], ("--recipe", path)


@pytest.mark.parametrize(
    "spoil",
    [
        wrong_number_of_bvals,
        truncated_gzip,
        a_folder,
        wrong_checksum,
        three_dimensional,
        mask_of_another_shape,
        zero_bvecs,
        text_in_bval,
        folder_below_a_file,
        recipe_with_an_unknown_key,
    ],
)
def test_a_wrong_input_is_named_in_one_line_and_leaves_nothing(spoil, scan, run, tmp_path):
    spoiled = spoil(scan)
    expected, more = spoiled if isinstance(spoiled, tuple) else (spoiled, ())
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*fit_arguments(scan, "ball_stick"), *more)
    assert code == 2
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 2
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for word in expected:
        assert word in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit"], "Missing argument 'IMAGE'"),
        (["fit", "x.nii.gz", "--signal", "msdki", "--out", "out"], "--recipe"),
        (["fit", "x", "--signal", "msdki", "--recipe", "least_squares", "--out", "o", "--fix", "D"], "NAME=VALUE"),
        (["fit", "x", "--signal", "msdki", "--recipe", "least_squares", "--out", "o", "--fix", "D=fast"], "fast"),
        (["fit", "x.nii.gz", "--signal", "msdki", "--recipe", "nothing", "--out", "out"], "no recipe 'nothing'"),
        (["fit", "x.nii.gz", "--signal", "nothing", "--recipe", "least_squares", "--out", "out"], "msdki"),
        (["fit", "x.nii.gz", "--signal", "msdki", "--recipe", "least_squares", "--out", "out"], "x.nii.gz"),
        (["fit", "x", "--signal", "msdki", "--recipe", "hierarchical", "--out", "o", "--device", "tpu"], "tpu"),
        (["fit", "x", "--signal", "msdki", "--recipe", "vae_unig", "--out", "o", "--set", "training.step=3"], "steps"),
        (["fit", "x", "--signal", "msdki", "--recipe", "least_squares", "--out", "o", "--sigma", "learn"], "learn"),
        (["fit", "x", "--signal", "msdki", "--recipe", "vae_unig", "--out", "o", "--likelihood", "normal"], "gaussian"),
        (["apply", "nowhere", "x.nii.gz", "--out", "out"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["demo", "--dataset", "nothing"], "nothing"),
        (["nothing"], "nothing"),
    ],
)
def test_a_wrong_call_is_answered_in_one_line(arguments, expected, run, tmp_path):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert list(tmp_path.iterdir()) == []


def test_what_is_odd_is_no_error_but_said_and_coded(scan, run, tmp_path):
    values = scan.values.copy()
    values[2, 2, 0, 5] = np.nan
    values[3, 3, :2] = np.nan
    values[4, 4, :3] = 0
    scan.write_image(values)
    scan.write_gradients(scan.b / 1000, scan.g)
    code, out, err = run(*fit_arguments(scan))
    assert code == 0
    assert out.strip() == "out/report.html"
    assert "b-values read as ms/um2" in err
    status = volume(tmp_path / "out", "*desc-status_mask.nii.gz")
    assert status[2, 2, 0] == 2
    assert (status[3, 3, :2] == 2).all()
    assert (status[4, 4, :3] == 3).all()
    assert (status[~scan.inside] == 0).all()
    mean = volume(tmp_path / "out", "*param-D_stat-mean_dwimap.nii.gz")
    assert np.isnan(mean[status == 2]).all()
    assert np.isnan(mean[status == 3]).all()
    assert np.isfinite(mean[status == 1]).all()
    record = json.loads((tmp_path / "out/fit/fit.json").read_text())
    assert record["status_counts"]["2"] == 3
    assert record["status_counts"]["3"] == 3
    assert any("ms/um2" in note for note in record["notes"])


def test_options_reach_the_fit(scan, run, tmp_path):
    code, *_ = run(
        *fit_arguments(scan, "ball_stick", "hierarchical"), *QUICK, "--fix", "D_par=1.7", "--sigma", "10", "--seed", 3,
        "--likelihood", "gaussian", "--set", "prior.kind=hierarchical", "--s0", "500", "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    record = json.loads((tmp_path / "out/fit/fit.json").read_text())
    assert record["fixed"] == {"D_par": 1.7}
    assert record["sigma"]["value"] == pytest.approx(10)
    assert record["sigma"]["method"] == "given"
    assert (record["seed"], record["likelihood"], record["s0"]) == (3, "gaussian", 500)
    assert record["trace"]["step"] == [20]
    assert list((tmp_path / "out").glob("*D_par*")) == []


def test_a_parameter_can_be_tied(scan, run, tmp_path):
    assert run(*fit_arguments(scan, "ball_stick"), "--tie", "D_iso=D_par", "--quiet")[0] == 0
    assert json.loads((tmp_path / "out/fit/fit.json").read_text())["tied"] == {"D_iso": "D_par"}


def test_misfit_is_said_by_itself(scan, run, tmp_path):
    code, _, err = run(*fit_arguments(scan, "ball_stick"), "--sigma", "3", "--quiet")
    assert code == 0
    assert "warning: " in err
    record = json.loads((tmp_path / "out/fit/fit.json").read_text())
    assert any("ball-stick signal" in warning for warning in record["warnings"])


def test_apply_gives_the_maps_of_the_fit(scan, run, tmp_path):
    assert run(*fit_arguments(scan, recipe="hierarchical"), *QUICK)[0] == 0
    code, out, err = run("apply", "out", *scan.arguments, "--out", "applied")
    assert code == 0
    assert out.strip() == "applied/report.html"
    assert "nothing was trained" in err
    for stat in ("mean", "sd", "q05", "q95"):
        name = f"sub-01_model-msdki_param-K_stat-{stat}_dwimap.nii.gz"
        one, other = (np.asarray(nib.load(tmp_path / d / name).dataobj) for d in ("out", "applied"))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_apply_takes_another_protocol_and_names_both(scan, run, tmp_path):
    assert run(*fit_arguments(scan, recipe="hierarchical"), *QUICK)[0] == 0
    b, g = gradients(n=10)
    b = np.where(b == 2000, 1500, b)
    scan.write_gradients(b, g)
    scan.write_image(sticks(b, g))
    code, _, err = run("apply", "out/fit", *scan.arguments, "--out", "applied")
    assert code == 0
    stated = "learned on another protocol (27 volumes: bval 0, 1000 and 2000 s/mm2), applied to this one (23 volumes: "
    assert stated in err
    assert "learned on b up to 2000 s/mm2 and this scan reaches 1500" in err
    record = json.loads((tmp_path / "applied/fit/fit.json").read_text())
    assert len(record["learned_on"]["bval"]) == 27
    assert len(record["protocol"]["bval"]) == 23
    assert stated[1:] in html.unescape((tmp_path / "applied/report.html").read_text())
    methods = " ".join((tmp_path / "applied/methods.txt").read_text().split())
    assert "trained on a scan with another protocol (27 volumes; 3 at b = 0 s/mm2; 12 at b = 1000" in methods
    scan.write_gradients(np.where(b == 0, 700, b), g)
    code, _, err = run("apply", "out", *scan.arguments, "--out", "refused")
    assert code == 2
    assert "S0 is measured, and no measurement is" in err
    assert not (tmp_path / "refused").exists()


@pytest.mark.usefixtures("no_pages")
def test_apply_trains_a_network_again_where_it_is_asked_to(scan, run, tmp_path):
    settings = ["--set", "training.epochs=1", "--set", "training.starts=1"]
    assert run(*fit_arguments(scan, recipe="self_supervised"), *settings)[0] == 0
    scan.write_gradients(np.where(scan.b == 2000, 1500, scan.b), scan.g)
    code, _, err = run("apply", "out", *scan.arguments, "--out", "applied")
    assert code == 2
    assert "1500 instead of 2000 s/mm2, and recipe self_supervised is trained for one protocol" in err
    code, _, err = run("apply", "out", *scan.arguments, "--retrain", "--out", "applied")
    assert code == 0
    assert "trained again on its protocol" in err


def test_design_writes_a_protocol_that_can_be_read(scan, run, tmp_path):
    assert run(*fit_arguments(scan, recipe="hierarchical"), *QUICK)[0] == 0
    np.savetxt(tmp_path / "all.bval", np.repeat([0.0, 500, 1000, 1500, 2000], 6)[None], fmt="%g")
    call = ["design", "out", "--candidates-bval", "all.bval", "--voxels", "100"]
    code, out, err = run(*call, "--n", "12", "--parameter", "K", "--out", "plan")
    assert code == 0, err
    assert "12 measurements, expected gain" in out
    assert "simulated voxels the posterior variance over that of the even choice is D " in out
    assert len(np.loadtxt(tmp_path / "plan/chosen.bval")) == 12
    assert {p.name for p in (tmp_path / "plan").iterdir()} >= {"design.md", "design.json", "gain.png", "chosen.bval"}
    assert len(json.loads((tmp_path / "plan/design.json").read_text())["index"]) == 12
    for wrong, expected in (
        (["design", "out", "--n", "3", "--out", "no"], "no candidates; give --candidates-bval"),
        ([*call, "--out", "no"], "give either --n"),
        ([*call, "--n", "99", "--out", "no"], "from 1 to the 30 candidates, got 99"),
        ([*call, "--minutes", "1", "--out", "no"], "minutes need seconds"),
    ):
        code, _, err = run(*wrong)
        assert code == 2
        assert expected in err
    assert not (tmp_path / "no").exists()


def test_an_output_folder_is_not_replaced_unasked(scan, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    for more in ([], ["--overwrite"]):
        code, _, err = run(*fit_arguments(scan), *more)
        assert code == 2
        assert "out" in err
        assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    assert run(*fit_arguments(scan, out="other"), "--quiet")[0] == 0
    code, _, err = run(*fit_arguments(scan, out="other"))
    assert code == 2
    assert "--overwrite" in err
    assert run(*fit_arguments(scan, "ball_stick", out="other"), "--overwrite", "--quiet")[0] == 0
    assert list((tmp_path / "other").glob("*msdki*")) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "other", "out"]


def test_the_report_is_rebuilt(scan, run, tmp_path):
    assert run(*fit_arguments(scan), "--quiet")[0] == 0
    page = tmp_path / "out" / "report.html"
    first = page.read_bytes()
    page.unlink()
    code, out, _ = run("report", "out")
    assert (code, out.strip()) == (0, "out/report.html")
    assert page.read_bytes() == first


def test_recipes_and_signals_are_listed_in_columns(run):
    code, out, _ = run("list", "signals")
    assert code == 0
    lines = out.splitlines()
    column = lines[0].index("UNIT")
    assert any(line.startswith("msdki") for line in lines)
    assert next(line for line in lines if "D_par" in line)[column:].startswith("um2/ms  0.01 to 3.5")
    code, out, _ = run("list", "recipes")
    assert code == 0
    column = out.splitlines()[0].index("ESTIMATOR")
    kinds = {line[column:].split()[0] for line in out.splitlines()[1:]}
    assert kinds == {"point", "network", "denoiser", "voxel_model"}
    assert any(line.startswith("hierarchical ") for line in out.splitlines())


def test_a_defect_is_one_line_unless_asked(scan, run, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("pyroqmri.commands.fit_image", broken)
    code, _, err = run(*fit_arguments(scan))
    assert code == 70
    assert "--debug" in err
    assert len(err.splitlines()) == 1
    assert "Traceback" in run(*fit_arguments(scan), "--debug")[2]


def test_values_are_read_as_toml():
    assert toml_value("3") == 3
    assert isinstance(toml_value("3"), int)
    assert toml_value("1e-3") == 1e-3
    assert toml_value("true") is True
    assert toml_value('"a b"') == "a b"
    assert toml_value("gaussian") == "gaussian"
    assert toml_value("[1, 2]") == [1, 2]
    assert number_or_word("2.5") == 2.5
    assert number_or_word("estimate") == "estimate"


def test_every_file_of_a_protocol_has_an_option_in_every_command_that_reads_a_scan():
    assert list(SETTINGS) == [field.name for field in fields(ProtocolFiles)]
    scan = {f"--{name}" for name in (*SETTINGS, "json", "mask")}
    for name in ("fit", "apply", "compare", "denoise", "check", "simulate"):
        options = {word for option in cli.commands[name].params for word in option.opts}
        wanted = {f"--{setting}" for setting in SETTINGS} if name in ("check", "simulate") else scan
        assert wanted <= options, name


@pytest.mark.parametrize("command", ["compare", "denoise"])
def test_an_offset_file_is_read_by_every_command(command, scan, run, tmp_path):
    recipe = "hierarchical" if command == "compare" else "denoise_dae"
    call = ("--signal", "cest_lorentz", "--recipe", recipe, "--offset", "none.txt", "--out", "out")
    code, _, err = run(command, *scan.arguments, *call)
    assert code == 2
    assert "none.txt" in err


def test_help_is_quick_and_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "pyroqmri", "--help"]
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "demo" in done.stdout
    assert min(spent) < 0.3
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"torch", "pyro", "numpy", "scipy", "nibabel", "dipy", "arviz", "matplotlib", "rich"}


def start(scan, out, *more):
    """A long training in a process of its own, stopped only from outside."""
    settings = ("training.batch_size=64", "training.checkpoint_every=10", "training.held_out=16")
    command = [sys.executable, "-m", "pyroqmri", *fit_arguments(scan, "ball_stick", "hierarchical", out), "--quiet"]
    command += [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [*map(str, command), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def wait_for(path: Path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_in_mid_training_and_resumed_ends_with_the_same_weights(scan, tmp_path):
    steps = ("--set", "training.steps=300")
    killed = start(scan, tmp_path / "out", *steps)
    checkpoint = tmp_path / ".out.partial" / "checkpoint.safetensors"
    wait_for(checkpoint, killed)
    killed.send_signal(signals.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signals.SIGKILL
    assert not (tmp_path / "out").exists()
    assert checkpoint.exists()
    resumed = start(scan, tmp_path / "out", *steps, "--resume")
    assert resumed.communicate()[1].count("error") == 0
    assert resumed.returncode == 0
    whole = start(scan, tmp_path / "whole", *steps)
    whole.communicate()
    assert whole.returncode == 0
    one, other = (load_file(tmp_path / name / "fit" / "weights.safetensors") for name in ("out", "whole"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    records = [json.loads((tmp_path / name / "fit" / "fit.json").read_text()) for name in ("out", "whole")]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
    assert records[0]["elbo"] == records[1]["elbo"]
    # else a run that began afresh would pass as well
    assert [any("interrupted" in note for note in record["notes"]) for record in records] == [True, False]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "whole"]


@pytest.mark.slow
def test_an_interrupt_ends_with_130_and_keeps_the_training(scan, tmp_path):
    process = start(scan, tmp_path / "out", "--set", "training.steps=100000")
    checkpoint = tmp_path / ".out.partial" / "checkpoint.safetensors"
    wait_for(checkpoint, process)
    process.send_signal(signals.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert checkpoint.exists()
    assert not (tmp_path / "out").exists()
    other = start(scan, tmp_path / "out", "--set", "training.steps=200", "--resume")
    _, err = other.communicate()
    assert other.returncode == 2
    assert "recipe" in err
    assert checkpoint.exists()
