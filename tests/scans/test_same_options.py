"""Options of a scan and of a signal are there, and do the same, wherever something is fitted or simulated."""

import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pyroqmri.acquisition import Acquisition
from pyroqmri.calibration.check import check
from pyroqmri.cli import cli
from pyroqmri.commands import denoise_image
from pyroqmri.commands.check import check_recipe
from pyroqmri.commands.protocol_files import ProtocolFiles
from pyroqmri.errors import InputError
from pyroqmri.fitting.denoiser import fit_denoiser
from pyroqmri.fitting.train import fit
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import draw_inputs
from tests.small_scan import write_scan

FLIP = np.radians([3.0, 6.0, 10.0, 15.0, 20.0, 26.0])
TR = 15.0


def spoiled(T1, B1, s0=1000.0):
    """Ernst's signal ``(N, 6)``."""
    e = np.exp(-TR / np.asarray(T1, float))[..., None]
    a = FLIP * np.asarray(B1, float)[..., None]
    return s0 * np.sin(a) * (1 - e) / (1 - e * np.cos(a))


def run(*words):
    found = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture(scope="module")
def angles(tmp_path_factory):
    """The files of a flip-angle protocol, as options."""
    folder = tmp_path_factory.mktemp("angles")
    np.savetxt(folder / "FA_deg.txt", np.degrees(FLIP)[None], fmt="%.6f")
    (folder / "TR_ms.txt").write_text(f"{TR:g}\n")
    return "--flip", folder / "FA_deg.txt", "--tr", folder / "TR_ms.txt"


def volume(path):
    return nib.load(path).get_fdata()


@pytest.mark.parametrize("kind", ["range", "value", "map"])
def test_simulate_takes_inputs_and_held_parameters(kind, angles, tmp_path):
    grid = np.random.default_rng(0).uniform(0.7, 1.3, (5, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(grid, np.eye(4)), tmp_path / "b1.nii.gz")
    given = {"range": "[0.7, 1.3]", "value": "0.85", "map": str(tmp_path / "b1.nii.gz")}[kind]
    code, _, error = run(
        "simulate", "--signal", "t1_vfa", "--phantom", "uniform", "--noise", "none", "--shape", 5, 4, 3, *angles,
        "--input", f"B1={given}", "--fix", "T1=1000", "--out", tmp_path / "sim",
    )  # fmt: skip
    assert code == 0, error
    b1 = volume(tmp_path / "sim" / "sub-sim_input-B1.nii.gz")
    if kind == "map":
        np.testing.assert_allclose(b1, grid, rtol=1e-6)
    elif kind == "value":
        np.testing.assert_allclose(b1, 0.85, rtol=1e-6)
    else:
        assert 0.7 < b1.min() < 0.8 < 1.2 < b1.max() < 1.3
    y = volume(tmp_path / "sim" / "sub-sim_dwi.nii.gz")
    np.testing.assert_allclose(y, spoiled(np.full(b1.shape, 1000.0), b1), rtol=1e-4)
    (path,) = (tmp_path / "sim").glob("*param-T1_truth_T1map.nii.gz")
    np.testing.assert_allclose(volume(path), 1.0, rtol=1e-6)  # s
    assert "--input B1=" in error


def test_what_simulate_refuses(angles, tmp_path):
    where = "--out", tmp_path / "no"
    call = ("simulate", "--signal", "t1_vfa", "--phantom", "uniform", "--noise", "none", *angles, *where)
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), tmp_path / "b1.nii.gz")
    for words, said in (
        (("--input", "b1=1"), "has no input 'b1'"),
        (("--input", f"B1={tmp_path / 'b1.nii.gz'}"), "has shape (3, 3, 3) and the phantom (32, 32, 8)"),
        (("--fix", "T9=1"), "T9"),
        (("--fix", "T1=1e9"), "T1 is fixed at"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            run(*call, *words)


def test_inputs_are_drawn():
    model = SIGNALS["t1_vfa"]
    assert (draw_inputs(model, None, 5, 0)["B1"] == 1).all()
    drawn = draw_inputs(model, {"B1": [0.8, 1.2]}, 4000, 0)["B1"]
    assert abs(float(drawn.mean()) - 1) < 0.02
    assert 0.8 < float(drawn.min()) < 0.81
    some = torch.tensor([0.7, 0.9, 1.4])
    assert set(draw_inputs(model, {"B1": some}, 200, 0)["B1"].tolist()) == set(some.tolist())
    for wrong in (float("nan"), []):
        with pytest.raises(InputError, match="input B1 must be finite"):
            draw_inputs(model, {"B1": wrong}, 5, 0)


@pytest.fixture(scope="module")
def vfa(tmp_path_factory):
    """A flip-angle scan with a B1 map, SNR 100 at its brightest."""
    folder, rng = tmp_path_factory.mktemp("vfa"), np.random.default_rng(1)
    b1 = np.linspace(0.7, 1.3, 8)[:, None, None] * np.ones((8, 8, 3))
    clean = spoiled(rng.uniform(800, 1200, b1.shape), b1)
    y = np.hypot(clean + rng.normal(scale=0.7, size=clean.shape), rng.normal(scale=0.7, size=clean.shape))
    for name, values in (("sub-1_VFA", y), ("b1", b1), ("mask", np.ones(b1.shape))):
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 2, 1])), folder / f"{name}.nii.gz")
    sidecar = {"FlipAngle": np.degrees(FLIP).tolist(), "RepetitionTime": TR / 1000}
    (folder / "sub-1_VFA.json").write_text(json.dumps(sidecar))
    return folder


def test_compare_takes_inputs_and_held_parameters(vfa, tmp_path):
    rms = {}
    for name, inputs in (("with", ("--input", f"B1={vfa / 'b1.nii.gz'}")), ("without", ())):
        code, _, error = run(
            "compare", vfa / "sub-1_VFA.nii.gz", "--mask", vfa / "mask.nii.gz", "--signal", "t1_vfa", "--sigma", 0.7,
            "--recipe", "least_squares", "--recipe", "held=maximum_likelihood fix.T1=1500", "--fix", "T1=1000",
            "--recipe", "free=least_squares", *inputs, "--folds", 2, "--shell", "none", "--voxels", 60, "--quiet",
            "--out", tmp_path / name,
        )  # fmt: skip
        assert code == 0, error
        record = json.loads((tmp_path / name / "compare.json").read_text())
        assert [record["candidates"][k]["fixed"] for k in ("least_squares", "held")] == [{"T1": 1000.0}, {"T1": 1500}]
        rms[name] = {row["name"]: row["rms"] for row in record["errors"]["folds_error"]}
    # T1 of 800 to 1200 held at 1000 misses by less than B1 does, and at 1500 by more
    assert rms["with"]["least_squares"] < 0.7 * rms["without"]["least_squares"]
    assert rms["with"]["held"] > rms["with"]["least_squares"]


def test_check_takes_inputs(angles, tmp_path):
    call = {"signal": "t1_vfa", "recipe": "least_squares", "snr": 300.0, "n": 400, "truth": "tissue"}
    protocol = ProtocolFiles(flip=angles[1], tr=angles[3])
    found = check_recipe(protocol=protocol, **call, inputs={"B1": [0.7, 1.3]}, out=tmp_path / "a")
    t1 = next(cell for cell in found.checks["tissue"].cells if cell.parameter == "T1" and cell.group == "all")
    assert t1.coverage[2] > 0.8
    with pytest.raises(InputError, match="no input 'b1'"):
        check_recipe(protocol=protocol, **call, inputs={"b1": 1.0}, out=tmp_path / "b")


def test_a_fit_without_a_map_is_checked_as_it_is():
    rng = np.random.default_rng(0)
    y = np.abs(spoiled(rng.uniform(800, 1200, 300), np.ones(300)) + rng.normal(scale=1.0, size=(300, 6)))
    acq = Acquisition(flip=FLIP, tr=np.full(6, TR))
    found = fit(y, acq, signal="t1_vfa", recipe="least_squares", sigma=1.0)
    right = check(found, n=400, truth="tissue", snr=1000.0)
    wrong = check(found, n=400, truth="tissue", snr=1000.0, inputs={"B1": 0.85})
    cover = [next(c for c in x.cells if c.parameter == "T1" and c.group == "all").coverage[2] for x in (right, wrong)]
    assert cover[0] > 0.8
    assert cover[1] < 0.3


@pytest.mark.slow
def test_denoise_holds_parameters_and_leaves_volumes_out(tmp_path):
    scan = write_scan(tmp_path / "in")
    values = scan.values.copy()
    values[..., 0] *= 3  # not in the steady state
    scan.write_image(values)
    short = {"schedule.epochs": 1, "targets.voxels": 200}
    out = denoise_image(scan.files, signal="msdki", settings=short, fixed={"K": 0.0}, out=tmp_path / "out")
    record = json.loads((out / "fit" / "fit.json").read_text())
    assert any(said.startswith("volume 0 is 3.00 times as bright") for said in record["warnings"])
    files = replace(scan.files, drop="0", bmax=1500.0)
    out = denoise_image(files, signal="msdki", settings=short, out=tmp_path / "less")
    record = json.loads((out / "fit" / "fit.json").read_text())
    assert len(record["protocol"]["bval"]) == 14
    assert record["left_out"] == {"of": 27, "volumes": [0, *range(15, 27)], "bmax": 1500.0}
    again = denoise_image(scan.files, fit_dir=out, out=tmp_path / "again")
    assert nib.load(next(again.glob("*desc-denoised_dwi.nii.gz"))).shape[3] == 14


class TrainingReachedError(Exception):
    """Training would begin."""


def test_a_denoiser_is_trained_on_signals_with_held_parameters(monkeypatch):
    seen = {}

    def train(network, source, *rest, **settings):
        seen["clean"] = source.clean
        raise TrainingReachedError

    monkeypatch.setattr("pyroqmri.fitting.denoiser.train", train)
    b = torch.tensor([0.0, 0, 0.5, 1, 1.5, 2])
    y = 100 * torch.exp(-b * 0.9).repeat(50, 1) + torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    settings = {"targets.voxels": 200, "autoencoder.latent": 2}
    with pytest.raises(TrainingReachedError):
        fit_denoiser(y, Acquisition(bval=b), signal="msdki", sigma=1.0, fixed={"K": 0.0}, settings=settings)
    # without kurtosis the logarithm is a straight line
    rate = -seen["clean"][:, 2:].log() / b[2:]
    slow = rate[:, 0] < 2
    torch.testing.assert_close(rate[slow], rate[slow, :1].expand(-1, 4), rtol=1e-3, atol=1e-3)


def test_compare_says_what_is_wrong_with_the_scan(tmp_path):
    scan = write_scan(tmp_path / "in")
    scan.write_image(np.concatenate([scan.values, 0.5 * scan.values], -1))
    scan.write_gradients(np.r_[scan.b, scan.b], np.r_[scan.g, scan.g])
    code, _, error = run(
        "compare", *scan.arguments, "--signal", "msdki", "--recipe", "least_squares", "--recipe", "two=least_squares",
        "--folds", 2, "--shell", "none", "--voxels", 20, "--bmax", 1500, "--quiet", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, error
    said = "volumes 27-41 are 0.50 times as bright as volumes 0-14"
    assert f"warning: {said}" in error
    assert said.capitalize() in (tmp_path / "out" / "report.html").read_text()
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert record["warnings"][0].startswith(said)


@pytest.mark.parametrize("command", ["fit", "apply", "compare", "denoise"])
def test_commands_that_read_a_scan_have_its_options(command):
    code, said, _ = run(command, "--help")
    assert code == 0
    for option in ("--bval", "--offset", "--json", "--mask", "--input", "--drop-volumes", "--drop-outliers", "--bmax"):
        assert option in said
    for section in ("Files:", "Volumes to leave out:", "Output:", "Example:"):
        assert section in said
    assert f"pyroqmri {command} " in said.partition("Example:")[2]


@pytest.mark.parametrize("command", ["fit", "compare", "denoise", "check", "simulate"])
def test_commands_that_fit_or_simulate_hold_parameters(command):
    said = run(command, "--help")[1]
    for option in ("--fix", "--tie", "--input", "--offset", *(("--set",) if command != "simulate" else ())):
        assert option in said
