"""Denoisers end to end: in Python, from files to files, and what other commands say of them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.cli import main
from pyroqmri.commands import ScanFiles, apply_image, denoise_image, fit_image, rebuild_report
from pyroqmri.denoising import Denoised, check_residual, tensor_quantities
from pyroqmri.errors import InputError
from pyroqmri.fitting.load_denoiser import is_denoiser
from pyroqmri.measurements.status import NO_SIGNAL, NOT_FINITE
from pyroqmri.signals import DTI
from pyroqmri.simulate import simulate, uniform
from tests.helpers import shells
from tests.small_scan import write_scan

SHORT = {"schedule.epochs": 3, "targets.voxels": 2000, "schedule.lr": 3e-3}
LONG = {"schedule.epochs": 12, "targets.voxels": 6000, "schedule.lr": 3e-3}


@pytest.fixture(scope="module")
def tissue():
    """Grey matter at SNR 10: acquisition, truth, noise-free and noisy measurements."""
    acq, rng = shells(4, 30, 1.0), np.random.default_rng(0)
    truth = {e: torch.from_numpy(rng.normal(0.8, 0.08, 600)).float() for e in ("Dxx", "Dyy", "Dzz")}
    truth |= {e: torch.from_numpy(rng.normal(0, 0.05, 600)).float() for e in ("Dxy", "Dxz", "Dyz")}
    clean = simulate(DTI, acq, truth, noise="none")
    return acq, truth, clean, 300 * simulate(DTI, acq, truth, snr=10, seed=1)


@pytest.mark.parametrize("recipe", ["denoise_vae", "denoise_dae"])
def test_a_denoiser_of_fitted_tissue_halves_the_error(tissue, recipe):
    # seeded; the errors of other seeds are .25 to .4 of the noise's
    acq, _, clean, y = tissue
    fit = pq.fit_denoiser(y, acq, recipe=recipe, sigma=30.0, settings=LONG | {"targets.source": "fitted"})
    found = fit.denoise(y)
    error, before = ((x / 300 - clean)[:, 4:].square().mean() for x in (found.signal, y))
    assert error < 0.5 * before
    assert torch.allclose(found.signal + found.residual, y, atol=1e-3)
    assert found.z_loc.shape == (600, 7)
    assert (found.z_scale is None) == (recipe == "denoise_dae")


def test_a_denoiser_that_saw_the_scan_alone_lowers_the_error(tissue):
    acq, _, clean, y = tissue
    settings = {"targets.source": "scan", "schedule.epochs": 60, "schedule.lr": 3e-3}
    fit = pq.fit_denoiser(y, acq, sigma=30.0, settings=settings)
    error, before = ((x / 300 - clean)[:, 4:].square().mean() for x in (fit.denoise(y).signal, y))
    assert error < 0.7 * before


def test_a_measurement_is_hidden_from_its_own_prediction(tissue):
    acq, _, _, y = tissue
    fit = pq.fit_denoiser(y, acq, sigma=30.0, settings=SHORT | {"targets.source": "scan"})
    seen = fit.prepare(y)[1][:5]
    changed = seen.clone()
    changed[:, 7] += 0.3
    with torch.no_grad():
        a, b = fit._reconstruct(seen), fit._reconstruct(changed)
    assert torch.equal(a[:, 7], b[:, 7])
    assert not torch.equal(a[:, 8], b[:, 8])


def test_any_signal_can_be_the_training(tissue):
    acq, _, _, y = tissue
    for signal in ("ball_stick", "msdki"):
        found = pq.fit_denoiser(y, acq, signal=signal, sigma=30.0, settings=SHORT).denoise(y[:20])
        assert torch.isfinite(found.signal).all()
    tissue_settings = SHORT | {"targets.source": "tissue"}
    assert pq.fit_denoiser(y, acq, signal="ball_stick", sigma=30.0, settings=tissue_settings).n_voxels == 600


def test_voxels_without_numbers_come_back_as_they_are(tissue):
    acq, _, _, y = tissue
    fit = pq.fit_denoiser(y, acq, sigma=30.0, settings=SHORT)
    bad = y[:4].clone()
    bad[0, 3], bad[1] = float("nan"), 0
    found = fit.denoise(bad)
    assert found.status.tolist()[:2] == [NOT_FINITE, NO_SIGNAL]
    assert torch.equal(found.signal[:2].nan_to_num(), bad[:2].nan_to_num())
    assert not found.residual[:2].any()


def test_a_saved_denoiser_answers_the_same(tissue, tmp_path):
    acq, _, _, y = tissue
    fit = pq.fit_denoiser(y, acq, sigma=30.0, settings=SHORT)
    again = pq.fit_denoiser(y, acq, sigma=30.0, settings=SHORT)
    fit.save(tmp_path / "fit")
    read = pq.load_denoiser(tmp_path / "fit")
    for other in (again, read):
        assert torch.equal(other.denoise(y).signal, fit.denoise(y).signal)
    with pytest.raises(InputError, match="load_denoiser"):
        pq.load_fit(tmp_path / "fit")
    (tmp_path / "fit" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="damaged"):
        pq.load_denoiser(tmp_path / "fit")


def test_given_truth_replaces_the_simulation(tissue):
    acq, truth, _, y = tissue
    fit = pq.fit_denoiser(y, acq, sigma=30.0, truth=truth, settings=SHORT)
    assert fit.network.n_measurements == 34
    with pytest.raises(InputError, match="truth lacks Dyz"):
        pq.fit_denoiser(y, acq, sigma=30.0, truth={k: v for k, v in truth.items() if k != "Dyz"}, settings=SHORT)


def test_uniform_tensors_are_positive_definite():
    acq = shells(2, 12, 1.0)
    theta = uniform(DTI, 500, 0)
    assert (simulate(DTI, acq, theta, noise="none") < 1 + 1e-6).all()


def test_tensors_of_noise_free_measurements_are_the_truth(tissue):
    acq, truth, clean, _ = tissue
    found = tensor_quantities(acq, 70 * clean)
    for name in truth:
        assert torch.allclose(found[name], truth[name], atol=1e-3)
    assert tensor_quantities(shells(2, 4, 1.0), torch.rand(3, 6)) == {}


def residual_of(kind, extra=0.0, n=4000):
    """The residual of a perfect denoiser, with ``extra`` of a smooth pattern in it."""
    acq = shells(4, 30, 1.0)
    clean = torch.full((n, 34), 0.7)
    noise = torch.randn(2, n, 34) * 0.1
    y = torch.hypot(clean + noise[0], noise[1]) if kind == "rician" else clean + noise[0]
    pattern = extra * 0.1 * torch.sin(torch.arange(n) / 40)[:, None]
    status = torch.ones(n, dtype=torch.uint8)
    removed = y - clean + pattern
    return Denoised(clean, removed, torch.full((n,), 0.1), status, torch.empty(0), None), acq


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_noise_looks_like_noise(kind):
    # correlations of 4,000 voxels are .016 sd; the limits are 3 and more of their means' sd
    denoised, acq = residual_of(kind)
    check = check_residual(denoised, acq, kind, np.ones((20, 20, 10), bool))
    assert check.looks_like_noise, check.findings
    assert check.spread == pytest.approx(check.expected_spread, rel=0.02)


def test_structure_in_the_residual_is_seen():
    denoised, acq = residual_of("gaussian", extra=1.0)
    check = check_residual(denoised, acq, "gaussian", np.ones((20, 20, 10), bool))
    said = " ".join(check.findings)
    assert "neighbours along z" in said
    assert "neighbouring directions" in said
    assert "share a pattern" in said


def test_the_wrong_noise_level_is_seen():
    denoised, acq = residual_of("gaussian")
    check = check_residual(
        Denoised(denoised.signal, denoised.residual / 2, denoised.sigma, denoised.status, denoised.z_loc, None),
        acq,
        "gaussian",
    )
    assert any("less than the noise" in finding for finding in check.findings)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small scan, and the folder of its denoising."""
    folder = tmp_path_factory.mktemp("denoise")
    scan = write_scan(folder / "in")
    out = denoise_image(scan.files, out=folder / "out", settings=SHORT)
    return scan, out


def test_the_files_of_denoise(written):
    scan, out = written
    image = nib.load(scan.image)
    values = {name: nib.load(out / f"sub-01_desc-{name}_dwi.nii.gz") for name in ("denoised", "residual")}
    for one in values.values():
        assert one.shape == image.shape
        assert np.array_equal(one.affine, image.affine)
    total = values["denoised"].get_fdata() + values["residual"].get_fdata()
    assert np.allclose(total[scan.inside], image.get_fdata()[scan.inside], atol=1e-2)
    assert not total[~scan.inside].any()
    assert np.allclose(np.loadtxt(out / "sub-01_desc-denoised_dwi.bval"), scan.b)
    assert np.allclose(np.loadtxt(out / "sub-01_desc-denoised_dwi.bvec"), scan.g.T, atol=1e-5)
    for when in ("noisy", "denoised"):
        for name in ("FA", "MD"):
            assert (out / f"sub-01_model-dti_desc-{when}_param-{name}_dwimap.nii.gz").is_file()
    record = json.loads((out / "denoise.json").read_text())
    assert set(record["latents"]) >= {"kl", "contribution", "dead", "traversal"}
    assert len(record["residual"]["histogram"]["found"]) == 80
    assert is_denoiser(out)
    assert not list(out.parent.glob(".*"))


def test_the_report_is_one_file_and_can_be_rebuilt(written):
    _, out = written
    page = (out / "report.html").read_text()
    assert "http" not in page.replace("https://doi.org", "").replace("http-equiv", "")
    assert page.count("data:image/png;base64") == 6
    assert "Latents" in page
    assert rebuild_report(out).read_text() == page


def test_a_saved_denoiser_is_applied_again(written, tmp_path):
    scan, out = written
    for command in (
        lambda to: denoise_image(scan.files, fit_dir=out, out=to),
        lambda to: apply_image(out, scan.files, out=to),
    ):
        folder = command(tmp_path / f"again{len(list(tmp_path.iterdir()))}")
        name = "sub-01_desc-denoised_dwi.nii.gz"
        assert np.array_equal(nib.load(folder / name).get_fdata(), nib.load(out / name).get_fdata())


def test_the_denoised_image_can_be_fitted(written, tmp_path):
    scan, out = written
    image = out / "sub-01_desc-denoised_dwi.nii.gz"
    files = ScanFiles(image, mask=scan.mask)
    fit_image(files, signal="msdki", recipe="least_squares", sigma=10.0, out=tmp_path / "fit")
    assert list(Path(tmp_path / "fit").glob("*param-D_stat-mean*"))


def test_another_protocol_is_refused(written, tmp_path):
    scan, out = written
    other = write_scan(tmp_path / "in")
    other.write_gradients(other.b, np.concatenate([other.g[:3], other.g[:2:-1]]))
    with pytest.raises(InputError, match="bvec of the image differs"):
        denoise_image(other.files, fit_dir=out, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert scan.image.is_file()


def test_calls_that_mean_nothing_are_refused_in_a_sentence(tissue, written, tmp_path):
    acq, _, _, y = tissue
    scan, _ = written
    for call, words in (
        (lambda: pq.fit(y, acq, signal="dti", recipe="denoise_vae"), "use pyroqmri denoise"),
        (lambda: fit_image(scan.image, signal="dti", recipe="denoise_dae", out=tmp_path / "a"), "use pyroqmri denoise"),
        (lambda: pq.fit_denoiser(y, acq, recipe="hierarchical"), "denoises nothing"),
        (lambda: pq.fit_denoiser(y, acq, signal="none"), "there is no signal"),
        (lambda: pq.fit_denoiser(y, acq, s0="inferred"), "no S0 to infer"),
        (lambda: pq.fit_denoiser(y, acq, settings={"targets.source": "x"}), "targets.source"),
        (lambda: pq.fit_denoiser(y, acq, settings={"schedule.epoch": 3}), "did you mean 'epochs'"),
        (lambda: pq.fit_denoiser(y[:3], acq, sigma=1.0), "only 3 voxels"),
        (lambda: denoise_image(scan.image, sigma="learn", out=tmp_path / "b"), "does not learn sigma"),
        (lambda: rebuild_report(tmp_path), "no"),
    ):
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_command_denoises_and_ends_as_it_should(tmp_path, capsys):
    scan = write_scan(tmp_path / "in")
    short = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    call = ["denoise", *scan.arguments, "--out", str(tmp_path / "out"), "--quiet", *short]
    codes = []
    for words in (call, call, [*call, "--recipe", "hierarchical", "--overwrite"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        codes.append(stopped.value.code)
    assert codes == [0, 2, 2]
    said = capsys.readouterr()
    assert "report.html" in said.out
    assert "is not empty" in said.err
    assert "denoises nothing" in said.err
    assert "Traceback" not in said.err
    assert (tmp_path / "out" / "denoise.json").is_file()
