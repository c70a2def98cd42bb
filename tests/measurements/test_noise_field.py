"""A noise level that varies over space, against noise that numpy made."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import pyroqmri as pq
from pyroqmri.cli import cli
from pyroqmri.errors import InputError
from pyroqmri.measurements.noise_field import fit_field
from pyroqmri.measurements.scatter import Scatter

pytestmark = pytest.mark.usefixtures("no_pages")

B = np.r_[np.zeros(4), np.repeat([0.5, 1.0, 2.0], 8)]
SHAPE = (14, 14, 4)
PLACE = np.argwhere(np.ones(SHAPE))
ACQ = pq.Acquisition(bval=np.zeros(12), te=np.repeat([20.0, 60.0, 100.0], 4))  # repeats that are trusted


def growing(place):
    """From 1 in one corner to 3 in the opposite."""
    return 1 + 2 * place[:, 0] * place[:, 1] / 13**2


def decays(sigma, seed=0):
    """True T2 in ms and magnitudes ``(N, 12)`` of mono-exponential decays, S0 100."""
    rng = np.random.default_rng(seed)
    t2 = rng.uniform(50, 120, len(sigma))
    clean = 100 * np.exp(-np.repeat([20.0, 60.0, 100.0], 4) / t2[:, None])
    noise = np.reshape(sigma, (-1, 1)) * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    return t2, np.abs(clean + noise)


def echoes():
    return pq.Acquisition(te=np.repeat([20.0, 60.0, 100.0], 4))


HOW = {"signal": "t2_decay", "recipe": "maximum_likelihood"}


@pytest.mark.parametrize("shape", [(14, 14, 4), (28, 28, 1), (40, 30, 3)])
@pytest.mark.parametrize("kind", ["ramp", "bump", "flat"])
def test_a_smooth_field_is_found_and_its_error_is_known(shape, kind):
    rng = np.random.default_rng(1)
    place = np.argwhere(np.ones(shape))
    u = place / np.maximum(1, np.array(shape) - 1)
    bump = np.exp(-((u[:, 0] - 0.5) ** 2 + (u[:, 1] - 0.5) ** 2) / 0.1)
    g = {"ramp": 1 + 2 * u[:, 0] * u[:, 1], "bump": 1 + 2 * bump, "flat": np.ones(len(u))}[kind]
    left = (7 * g) ** 2 * rng.chisquare(30, len(g))
    left[rng.random(len(g)) < 0.05] *= 9  # voxels that the signal does not follow
    found = fit_field(place, Scatter(left, np.full(len(g), 30.0)))
    error = np.log(found.field(torch.from_numpy(place)).numpy() / (7 * g))
    assert found.worth_it == (kind != "flat")
    assert error.std() < 0.035
    assert abs(error.mean()) < 0.03
    spread = found.field.relative_sd(torch.from_numpy(place)).numpy()
    assert 0.5 < np.sqrt(np.mean((error / spread) ** 2)) < 2.5


def test_estimate_takes_the_field_where_there_is_one():
    sigma = 3 * growing(PLACE)
    t2, y = decays(sigma)
    fit = pq.fit(y, echoes(), voxels=PLACE, **HOW)
    assert fit.noise.method == "field"
    assert "nats likelier than one number" in fit.noise.note
    assert np.std(np.log(fit.noise.level.numpy() / sigma)) < 0.05
    _, same = decays(np.full(len(PLACE), 5.0), 1)
    flat = pq.fit(same, echoes(), voxels=PLACE, **HOW)
    assert flat.noise.method == "shells"
    assert isinstance(flat.noise.level, float)

    def coverage(found, pick):
        post = found.posterior(y)
        inside = np.abs(post.mean["T2"].numpy() - t2) < 1.645 * post.sd["T2"].numpy()
        return inside[pick].mean()

    low, high = growing(PLACE) < 1.3, growing(PLACE) > 2
    one = pq.fit(y, echoes(), **HOW)
    assert coverage(one, high) < 0.8 < 0.96 < coverage(one, low)
    for pick in (low, high):
        assert coverage(fit, pick) == pytest.approx(0.9, abs=0.055)


def test_a_field_is_kept_and_serves_other_voxels(tmp_path):
    sigma = 3 * growing(PLACE)
    _, y = decays(sigma)
    inside = np.ones(SHAPE)
    fit = pq.fit(y, echoes(), sigma="field", mask=inside, **HOW)
    fit.save(tmp_path / "fit")
    again = pq.load_fit(tmp_path / "fit")
    some = np.array([0, 300, 700])
    expected = fit.posterior(y).sd["T2"][some]
    torch.testing.assert_close(again.posterior(y[some], voxels=PLACE[some]).sd["T2"], expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(again.noise.level, fit.noise.level)


def test_without_repeats_the_residuals_of_the_signal_give_it():
    sigma = 3 * growing(PLACE)
    rng = np.random.default_rng(2)
    te = np.linspace(10, 150, 24)
    clean = 100 * np.exp(-te / rng.uniform(50, 120, (len(PLACE), 1)))
    y = np.abs(clean + sigma[:, None] * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)))
    fit = pq.fit(y, pq.Acquisition(te=te), sigma="field", voxels=PLACE, **HOW)
    assert "a fit of least squares" in fit.noise.note
    assert np.std(np.log(fit.noise.level.numpy() / sigma)) < 0.05
    assert np.mean(np.log(fit.noise.level.numpy() / sigma)) == pytest.approx(0, abs=0.03)


def test_what_a_field_needs_is_named():
    _, y = decays(np.full(len(PLACE), 5.0))
    with pytest.raises(InputError, match="places: give voxels="):
        pq.fit(y, echoes(), sigma="field", **HOW)
    with pytest.raises(InputError, match="needs 200 voxels with a signal, and there are 50"):
        pq.fit(y[:50], echoes(), sigma="field", voxels=PLACE[:50], **HOW)


def test_commands_find_and_use_the_field(tmp_path):
    sigma = 3 * growing(PLACE)
    _, y = decays(sigma)
    image = tmp_path / "sub-01_MESE.nii.gz"
    nib.save(nib.Nifti1Image(y.reshape(*SHAPE, 12).astype(np.float32), np.diag([-2.0, 2, 2, 1])), image)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([-2.0, 2, 2, 1])), tmp_path / "mask.nii.gz")
    (tmp_path / "te_ms.txt").write_text(" ".join(map(str, np.repeat([20, 60, 100], 4))))
    common = ("--te", tmp_path / "te_ms.txt", "--mask", tmp_path / "mask.nii.gz")

    def run(*words):
        found = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
        assert found.exit_code == 0, found.stderr
        return found.stderr

    for name in ("sub-01_sigma.nii.gz", "sub-02_noise.nii.gz"):
        nib.save(nib.Nifti1Image(sigma.reshape(SHAPE).astype(np.float32), np.eye(4)), tmp_path / name)
    said = run("fit", image, "--signal", "t2_decay", "--recipe", "maximum_likelihood", *common, "--out", tmp_path / "a")
    assert "sigma is a field" in said
    assert "sub-01_sigma.nii.gz beside the image is named as a noise map" in said
    assert "sub-02" not in said
    run("apply", tmp_path / "a", image, *common, "--out", tmp_path / "c")
    maps = [
        nib.load(next((tmp_path / name).glob("*param-T2_stat-sd*.nii.gz"))).get_fdata() for name in "ac"
    ]  # fmt: skip
    expected = pq.fit(y, echoes(), sigma=sigma, **HOW).posterior(y).sd["T2"].numpy().reshape(SHAPE) / 1000
    for found in maps:
        assert np.median(np.abs(np.log(found.reshape(SHAPE) / expected))) < 0.05
    for name in "ac":
        record = json.loads((tmp_path / name / "fit" / "fit.json").read_text())["sigma"]
        assert record["method"] == "field"
        assert record["value"] == pytest.approx(np.median(sigma), rel=0.05)
