"""The noise level is found on simulations of known noise, and on real slices where it was found before."""

import time

import numpy as np
import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io import read_scan
from pyroqmri.measurements.noise import MAX_VOXELS, estimate_sigma
from pyroqmri.measurements.scatter import variance_ratio
from pyroqmri.signals import MSDKI, BallStick, BoundSignal

A288 = np.r_[np.zeros(18), np.repeat([1.0, 2.0, 3.0], 90)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noisy(rng, signal: np.ndarray, sigma: float) -> np.ndarray:
    return np.hypot(signal + rng.normal(0, sigma, signal.shape), rng.normal(0, sigma, signal.shape))


def spread(n: int) -> np.ndarray:
    """Directions ``(n, 3)`` evenly over the half sphere."""
    i = np.arange(n) + 0.5
    z, azimuth = i / n, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(azimuth), r * np.sin(azimuth), z], 1)


def simulate(signal, acquisition: Acquisition, **theta: np.ndarray) -> np.ndarray:
    bound = BoundSignal(signal, acquisition)
    return bound({name: torch.as_tensor(value, dtype=torch.float32) for name, value in theta.items()}).numpy()


def powder(rng, n: int) -> np.ndarray:
    D = rng.uniform(0.6, 2, n)
    return simulate(MSDKI, Acquisition(bval=A288), D=D, K=np.minimum(rng.uniform(0.5, 1.5, n), 2 / D))


def sticks(rng, n: int, acquisition: Acquisition) -> np.ndarray:
    axis = rng.normal(size=(n, 3))
    return simulate(
        BallStick,
        acquisition,
        f=rng.uniform(0.1, 0.9, n),
        D_par=rng.uniform(1, 2.5, n),
        D_iso=rng.uniform(0.5, 2.5, n),
        n=axis / np.linalg.norm(axis, axis=1, keepdims=True),
    )


def with_directions(g: np.ndarray) -> Acquisition:
    bval = np.r_[np.zeros(18), np.repeat([1.0, 2.0, 3.0], len(g))]
    return Acquisition(bval=bval, bvec=np.r_[np.zeros((18, 3)), np.tile(g, (3, 1))])


@pytest.mark.parametrize("method", ["shells", "b0"])
@pytest.mark.parametrize("snr", [5, 10, 20, 50])
def test_sigma_from_repeats(rng, snr, method):
    """Standard error .2 % (b0: .6 %) with 2,000 voxels: at 5 % it fails when the estimator does."""
    y = 700 * noisy(rng, powder(rng, 2000), 1 / snr)
    found = estimate_sigma(y, Acquisition(bval=A288), method=method)
    assert found.sigma == pytest.approx(700 / snr, rel=0.05)
    assert found.method == method


@pytest.mark.parametrize("snr", [5, 10, 20, 50])
def test_sigma_from_spherical_harmonics(rng, snr):
    acquisition = with_directions(spread(90))
    y = noisy(rng, sticks(rng, 2000, acquisition), 1 / snr)
    found = estimate_sigma(y, acquisition)
    assert found.method == "shells"
    assert "order 8" in found.note
    assert found.n == 200_000 // 135  # degrees of freedom over those that each voxel has
    assert found.sigma == pytest.approx(1 / snr, rel=0.05)


def test_bright_voxels_that_pulsate_do_not_count_among_the_b0_repeats(rng):
    level = np.repeat([50.0, 100.0], 1000)[:, None] * np.ones(20)
    level[1000:] *= 1 + 0.1 * rng.normal(size=20)
    found = estimate_sigma(noisy(rng, level, 4.0), Acquisition(bval=np.zeros(20)), method="b0")
    # 19 degrees of freedom of 1,000 voxels: standard error 1 %
    assert found.sigma == pytest.approx(4, rel=0.05)


def test_few_directions_that_miss_signal_give_way_to_b0(rng):
    """Twelve directions cannot follow a stick at SNR 50: their residuals say twice the noise."""
    acquisition = with_directions(spread(12))
    y = noisy(rng, sticks(rng, 2000, acquisition), 0.02)
    assert estimate_sigma(y, acquisition, method="shells").sigma > 0.03
    found = estimate_sigma(y, acquisition)
    assert found.method == "b0"
    assert found.sigma == pytest.approx(0.02, rel=0.05)


def test_repeated_directions_need_no_smoothness(rng):
    """Six axes, each ten times and half of them turned round, which is the same axis."""
    g = np.tile(spread(6), (10, 1)) * np.where(np.arange(60) % 2, 1, -1)[:, None]
    acquisition = with_directions(g)
    found = estimate_sigma(noisy(rng, sticks(rng, 1000, acquisition), 0.05), acquisition)
    assert "60 volumes along 6 axes" in found.note
    assert found.sigma == pytest.approx(0.05, rel=0.05)


def test_background_with_tissue_in_it(rng):
    echoes = Acquisition(te=np.arange(10.0, 90.0, 10.0))
    y = noisy(rng, rng.uniform(50, 500, (100, 8)), 12)
    background = np.r_[rng.rayleigh(12, 4000), rng.uniform(0, 800, 1000)]
    found = estimate_sigma(y, echoes, background=background)
    assert found.method == "background"
    assert found.sigma == pytest.approx(12, rel=0.07)
    with pytest.raises(InputError, match="mostly zero"):
        estimate_sigma(y, echoes, background=np.r_[np.zeros(4000), background[:100]])


def test_repeats_of_other_settings_and_signed_data(rng):
    ti = Acquisition(ti=np.repeat([50.0, 500.0, 3000.0], 8))
    y = rng.uniform(200, 900, (2000, 1)) * np.repeat([-0.9, 0.2, 1], 8) + 300 + rng.normal(0, 20, (2000, 24))
    assert (y < 0).mean() > 0.05
    found = estimate_sigma(y, ti)
    assert found.method == "shells"
    assert found.sigma == pytest.approx(20, rel=0.03)


def test_variance_ratio_is_that_of_rice(rng):
    for snr in (0.0, 1.0, 2.5, 6.0):
        y = noisy(rng, np.full(400_000, snr), 1.0)
        assert variance_ratio(y.mean()) == pytest.approx(y.var(), rel=0.015)
    assert variance_ratio(np.array([0.2, 1e6])) == pytest.approx([0.4292, 1], abs=1e-3)


def test_bad_voxels_do_not_count(rng):
    acquisition = Acquisition(bval=A288)
    y = noisy(rng, powder(rng, 900), 0.05)
    bad = np.concatenate([y, np.full((300, 288), np.nan), np.zeros((300, 288))])
    assert estimate_sigma(bad, acquisition).sigma == estimate_sigma(y, acquisition).sigma
    assert estimate_sigma(torch.tensor(y), acquisition).sigma == estimate_sigma(y, acquisition).sigma


def test_many_voxels_are_sampled_alike_and_fast(rng):
    acquisition = Acquisition(
        bval=np.r_[np.zeros(10), np.repeat([1.0, 2.0], 45)], bvec=np.r_[np.zeros((10, 3)), np.tile(spread(45), (2, 1))]
    )
    y = noisy(rng, np.full((5 * MAX_VOXELS, 100), 1.0), 0.1).astype(np.float32)
    start = time.process_time()
    found = estimate_sigma(y, acquisition)
    assert time.process_time() - start < 15
    assert found == estimate_sigma(y, acquisition)
    assert found.n == 200_000 // 34  # degrees of freedom over those that each voxel has
    assert found.sigma == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(
    ("acquisition", "kwargs", "words"),
    [
        (Acquisition(bval=[0, 1, 2, 3]), {}, "cannot be measured"),
        (Acquisition(bval=[0, 1, 2, 3]), {"method": "shells"}, "no shell has enough"),
        (Acquisition(bval=[0, 1, 2, 3]), {"method": "b0"}, "fewer than two"),
        (Acquisition(bval=[0, 1, 2, 3]), {"method": "median"}, "unknown"),
        (Acquisition(bval=[0, 1, 1, 1, 1]), {}, "must be \\(voxels, 5\\)"),
        (Acquisition(bval=[0, 1, 1, 1]), {"method": "background"}, "cannot be measured"),
    ],
)
def test_what_a_scan_does_not_allow_is_said(acquisition, kwargs, words):
    with pytest.raises(InputError, match=words):
        estimate_sigma(np.ones((10, 4)), acquisition, **kwargs)


def test_no_noise_at_all_is_no_estimate():
    with pytest.raises(InputError, match="no noise at all"):
        estimate_sigma(np.ones((10, 8)), Acquisition(bval=np.r_[0, 0, np.ones(6)]))
    with pytest.raises(InputError, match="no voxel"):
        estimate_sigma(np.full((10, 8), np.nan), Acquisition(bval=np.r_[0, 0, np.ones(6)]))


def test_real_slices(shared_data):
    """Measured before the code was written: 11 within shells, and b0 repeats say more, as bright voxels pulsate."""
    folder = shared_data / "mdt_b1k_b2k"
    scan = read_scan(folder / "dwi.nii.gz", mask=folder / "mask.nii.gz")
    found = estimate_sigma(scan.y, scan.acquisition, background=scan.background)
    assert found.method == "shells"
    assert found.sigma == pytest.approx(11, rel=0.05)
    dark = estimate_sigma(scan.y, scan.acquisition, method="b0").sigma
    assert found.sigma < dark < 15
    air = estimate_sigma(scan.y, scan.acquisition, method="background", background=scan.background).sigma
    assert found.sigma == pytest.approx(air, rel=0.2)
