"""Noise levels that disagree are named, and air that is no untouched noise is not believed."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import pyroqmri as pq
from pyroqmri.commands import ScanFiles, fit_image
from pyroqmri.commands.noise import given_noise
from pyroqmri.errors import InputError
from pyroqmri.io import ImageRef, Scan
from pyroqmri.measurements.air import air_sigma
from pyroqmri.measurements.arguments import as_tensor
from pyroqmri.measurements.noise import estimate_sigma
from pyroqmri.signals import SIGNALS, BoundSignal

pytestmark = pytest.mark.usefixtures("no_pages")

SIGMA = 12.0


def air(seed: int = 0, shape: tuple[int, ...] = (24, 24, 12)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hypot(SIGMA * rng.normal(size=shape), SIGMA * rng.normal(size=shape))


def mix_in(values: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(values.shape) < share, rng.uniform(50, 900, values.shape), values)


UNTOUCHED = {
    "plain": air(),
    "a fifth of it tissue": mix_in(air(), 0.2),
    "integers": np.round(air()),
    "coarse integers": np.round(air() / 8) * 8,
    "signed": SIGMA * np.random.default_rng(0).normal(size=5000),
}
TOUCHED = {
    "masked": np.where(np.arange(6912) % 10 < 8, 0.0, air().ravel()),
    "smoothed": ndimage.gaussian_filter(air(), 1.0),
    "median filter": ndimage.median_filter(air(), 3),
    "resampled by half a voxel": ndimage.shift(air(), 0.5, order=1, mode="wrap"),
    "mean of eight": np.mean([air(k) for k in range(8)], 0),
    "sum of squares of eight coils": np.sqrt(np.mean([air(k) ** 2 for k in range(8)], 0)),
    "tissue": mix_in(air(), 0.7),
    "suppressed": air() ** 3 / SIGMA**2,
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_untouched_air_is_believed(name):
    sigma, _, law = air_sigma(UNTOUCHED[name].ravel())
    assert sigma == pytest.approx(SIGMA, rel=0.08)
    assert law == ("Gaussian" if name == "signed" else "Rayleigh")


@pytest.mark.parametrize("name", TOUCHED)
def test_touched_air_is_not(name):
    with pytest.raises(InputError, match="background"):
        air_sigma(TOUCHED[name].ravel())


def relaxation(sigma: float, n: int = 300, seed: int = 3) -> tuple[np.ndarray, pq.Acquisition]:
    rng = np.random.default_rng(seed)
    te = np.arange(10.0, 121, 10)
    s = rng.uniform(700, 1200, (n, 1)) * np.exp(-te / rng.uniform(50, 120, (n, 1)))
    noise = sigma * rng.normal(size=(2, *s.shape))
    return np.hypot(s + noise[0], noise[1]).astype(np.float32), pq.Acquisition(te=te)


def scan_of(y: np.ndarray, acq: pq.Acquisition, background: np.ndarray | None) -> Scan:
    ref = ImageRef("x.nii.gz", (len(y), 1, 1), np.eye(4), (1.0, 1.0, 1.0), "x")
    return Scan(y, np.ones((len(y), 1, 1), bool), acq, ref, [], background)


@pytest.mark.parametrize("name", TOUCHED)
def test_the_residual_decides_where_air_was_touched(name):
    y, acq = relaxation(SIGMA)
    scan = scan_of(y, acq, TOUCHED[name].ravel())
    fit = pq.fit(scan.y, acq, signal="t2_decay", recipe="least_squares", sigma=given_noise(scan, "estimate"))
    assert fit.sigma == pytest.approx(SIGMA, rel=0.08)
    assert fit.noise.method == "residual"
    assert any(note.startswith("noise level: the background") for note in scan.notes)


@pytest.mark.parametrize(("factor", "word"), [(1 / 8.6, "masked"), (0.5, "filtered"), (2.0, "coils"), (5.0, "tissue")])
def test_air_of_another_level_is_named_and_the_residual_decides(factor, word):
    y, acq = relaxation(SIGMA)
    scan = scan_of(y, acq, factor * air().ravel())
    fit = pq.fit(scan.y, acq, signal="t2_decay", recipe="least_squares", sigma=given_noise(scan, "estimate"))
    assert fit.sigma == pytest.approx(SIGMA, rel=0.08)
    (said,) = fit.warnings
    assert said.startswith("noise level: the residuals of least squares give sigma ")
    assert float(re.search(r"air ([\d.]+)", said)[1]) == pytest.approx(factor * SIGMA, rel=0.05)
    assert word in said


def test_repeats_and_air_that_disagree_are_named():
    rng = np.random.default_rng(0)
    bval = np.repeat([0.0, 0.5, 1.0, 1.5], [1, 6, 6, 6])
    s = 1000 * np.exp(-bval * rng.uniform(0.7, 1.2, (300, 1)))
    s[:, ::2] *= 1.15  # two runs, one at another scale
    y = np.hypot(s + SIGMA * rng.normal(size=s.shape), SIGMA * rng.normal(size=s.shape))
    found = estimate_sigma(y, pq.Acquisition(bval=bval), background=air().ravel())
    (said,) = found.warnings
    assert f"shells and repeats give sigma {found.sigma:.4g}, which was used, and air 1" in said
    assert not estimate_sigma(y[:, 1::2], pq.Acquisition(bval=bval[1::2]), method="background",
                              background=air().ravel()).warnings  # fmt: skip


def test_b0_repeats_that_differ_in_scale_are_named_and_the_residual_decides():
    rng = np.random.default_rng(0)
    bval = np.r_[0.0, 0, 0, 0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4]
    s = 1000 * np.exp(-bval * rng.uniform(0.7, 1.2, (300, 1)))
    s[:, 2:4] *= 0.9
    y = np.hypot(s + SIGMA * rng.normal(size=s.shape), SIGMA * rng.normal(size=s.shape)).astype(np.float32)
    fit = pq.fit(y, pq.Acquisition(bval=bval), signal="msdki", recipe="least_squares")
    assert fit.noise.method == "residual"
    assert "b0 repeats" in fit.warnings[0]
    assert "differ in scale" in fit.warnings[0]


def test_a_signal_that_does_not_follow_is_named_and_repeats_stay():
    rng = np.random.default_rng(0)
    te = np.repeat(np.arange(10.0, 201, 20), 5)
    s = 1000 * (0.5 * np.exp(-te / 15) + 0.5 * np.exp(-te / 200)) * rng.uniform(0.8, 1.2, (300, 1))
    y = np.hypot(s + SIGMA * rng.normal(size=s.shape), SIGMA * rng.normal(size=s.shape)).astype(np.float32)
    fit = pq.fit(y, pq.Acquisition(te=te), signal="t2_decay", recipe="least_squares")
    assert fit.sigma == pytest.approx(SIGMA, rel=0.06)
    assert "a signal that does not follow all of these data" in fit.warnings[0]


# at an SNR of 40 myelin water is open, and least squares does not know what is known of a nuisance: both warn
CLEAN = [name for name in sorted(SIGNALS) if name != "mwf" and not SIGNALS[name].nuisance]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(("ball_sticks", "cest"))) for name in CLEAN]
)
def test_a_clean_scan_is_without_warning(name):
    model = SIGNALS[name]
    acq, rng = model.default_protocol, np.random.default_rng(11)
    theta = {}
    for p in model.parameters:
        if p.is_direction:
            axis = rng.normal(size=(200, 3))
            theta[p.name] = axis / np.linalg.norm(axis, axis=1, keepdims=True)
        else:
            typical = TYPICAL.get(p.name) or model.typical_tissue["white matter"][p.name][0]
            spread = rng.uniform(0.9, 1.1, 200)
            theta[p.name] = np.full(200, model.held[p.name]) if p.name in model.held else typical * spread
    inputs = {name: np.ones(200, np.float32) for name in model.inputs}
    tensors = {k: as_tensor(v) for k, v in theta.items()}
    s = 1000 * BoundSignal(model, acq)(tensors, {k: as_tensor(v) for k, v in inputs.items()})
    sigma = float(s.abs().amax()) / 40
    y = s.numpy() + sigma * rng.normal(size=s.shape)
    if not model.signed:
        y = np.hypot(y, sigma * rng.normal(size=s.shape))
    background = sigma * (rng.normal(size=5000) if model.signed else rng.rayleigh(1, 5000))
    scan = scan_of(y.astype(np.float32), acq, background)
    # two images for T1 and S0 leave no residuals to estimate noise from
    for level in (given_noise(scan, "estimate"), None)[: 1 if name == "mp2rage" else 2]:
        fit = pq.fit(scan.y, acq, signal=name, recipe="least_squares", sigma=level, inputs=inputs)
        assert fit.warnings == []
        assert fit.sigma == pytest.approx(sigma, rel=0.12)
    assert scan.warnings == []


TYPICAL = {
    "D": 1.0, "K": 0.9, "f": 0.15, "D_par": 1.9, "D_iso": 0.9, "D_fast": 15.0, "D_slow": 0.9, "Dxx": 1.2, "Dyy": 0.8,
    "Dzz": 0.7, "Dxy": 0.1, "Dxz": 0.1, "Dyz": 0.05, "T2": 80.0, "T1": 900.0, "inv_eff": 0.88, "floor": 0.03,
    "T2_short": 15.0, "T2_long": 90.0, "A_water": 0.8, "w_water": 1.5, "A_amide": 0.06, "w_amide": 1.6,
    "A_noe": 0.1, "w_noe": 3.0, "A_mt": 0.1, "w_mt": 40.0, "shift": 0.05, "NDI": 0.6, "ODI": 0.2, "FWF": 0.1,
    "Wxxxx": 1.0, "Wyyyy": 0.8, "Wzzzz": 0.7, "Wxxyy": 0.3, "Wxxzz": 0.25, "Wyyzz": 0.25, "Wxxxy": 0.05, "Wxxxz": 0.05,
    "Wxyyy": 0.05, "Wyyyz": 0.02, "Wxzzz": 0.02, "Wyzzz": 0.02, "Wxxyz": 0.01, "Wxyyz": 0.01, "Wxyzz": 0.01,
}  # fmt: skip


def test_the_command_line_carries_it_to_the_record(tmp_path):
    grid = np.indices((16, 16, 3)).astype(float)
    inside = (grid[0] - 7.5) ** 2 + (grid[1] - 7.5) ** 2 < 16
    te = np.arange(10.0, 101, 10)
    s = 1000 * inside[..., None] * np.exp(-te / 80)
    rng = np.random.default_rng(2)
    y = np.hypot(s + SIGMA * rng.normal(size=s.shape), SIGMA * rng.normal(size=s.shape))
    y[~ndimage.binary_dilation(inside, iterations=2)] *= 0.2  # the scanner darkens the background
    nib.save(nib.Nifti1Image(y.astype(np.float32), np.eye(4)), tmp_path / "x_MESE.nii.gz")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    (tmp_path / "te.txt").write_text(" ".join(f"{v:g}" for v in te))
    files = ScanFiles(tmp_path / "x_MESE.nii.gz", mask=tmp_path / "mask.nii.gz", te=tmp_path / "te.txt")
    out = fit_image(files, signal="t2_decay", recipe="least_squares", out=tmp_path / "out")
    record = json.loads((out / "fit" / "fit.json").read_text())
    assert record["sigma"]["value"] == pytest.approx(SIGMA, rel=0.1)
    assert sum("noise level: the residuals" in warning for warning in record["warnings"]) == 1


def test_b0_repeats_are_taken_where_few_directions_leave_signal_in():
    # white matter of one stick at SNR 50: 30 directions at b 2000 carry more than order 4 can describe
    rng = np.random.default_rng(0)
    i = np.arange(30) + 0.5
    polar, azimuth = np.arccos(1 - i / 30), np.pi * (1 + 5**0.5) * i
    axes = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], 1)
    b, g = np.r_[np.zeros(4), np.full(30, 2.0)], np.r_[np.zeros((4, 3)), axes]
    fibres = rng.normal(size=(500, 3))
    fibres /= np.linalg.norm(fibres, axis=1, keepdims=True)
    clean = 1000 * (0.6 * np.exp(-b * 1.9 * (fibres @ g.T) ** 2) + 0.4 * np.exp(-b * 0.9))
    y = np.hypot(clean + 20 * rng.normal(size=clean.shape), 20 * rng.normal(size=clean.shape))
    found = estimate_sigma(y, pq.Acquisition(bval=b, bvec=g))
    assert found.sigma == pytest.approx(20, rel=0.06)
    assert found.method == "b0"
    assert any("too few directions" in text for text in found.warnings)
