"""The noise level a fit uses."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.noise_level import noise_level
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.signals import MSDKI, BoundSignal
from tests.helpers import msdki_data, rician, shells, tissue


def found(sigma, y=None, acq=None, s0="measured"):
    if y is None:
        y, acq = msdki_data(200, sigma=0.05, s0=300.0)
    preparation = prepare_for(MSDKI, acq, y, s0=s0, average="auto", magnitude=True)
    return noise_level(y, acq, sigma, preparation, BoundSignal(MSDKI, preparation.seen(acq).acquisition))


@pytest.mark.parametrize("sigma", [15, 15.0, torch.tensor(15.0)])
def test_a_number_is_taken(sigma):
    noise = found(sigma)
    assert (noise.sigma, noise.method) == (15.0, "given")


def test_a_map_is_taken_and_its_median_said():
    noise = found(torch.arange(1.0, 201.0))
    assert noise.level.shape == (200,)
    assert noise.sigma == 100.0
    assert "median" in noise.note


@pytest.mark.parametrize("word", [None, "estimate", "learn"])
def test_repeats_tell_it(word):
    # 200 voxels with some 13 repeats' worth of freedom each: standard error near 1.5 %
    noise = found(word)
    assert noise.sigma == pytest.approx(15, rel=0.12)
    assert noise.method in ("shells", "b0")


def lone_measurements(n: int = 800, sigma: float = 0.02):
    """One volume a b-value: nothing repeats."""
    acq = Acquisition(bval=torch.tensor([0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4]))
    return 300 * rician(BoundSignal(MSDKI, acq)(tissue(n)), sigma), acq


@pytest.mark.parametrize("s0", [300.0, "measured"])
def test_without_repeats_residuals_tell_it(s0):
    y, acq = lone_measurements()
    noise = found(None, y, acq, s0)
    assert noise.method == "residual"
    # a measured S0 of one noisy b0 adds its own error to every residual
    assert noise.sigma == pytest.approx(6, rel=0.15 if s0 == 300.0 else 0.6)


def test_residuals_leave_the_random_state_alone():
    y, acq = lone_measurements()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found(None, y, acq)
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_data_have_the_same_noise():
    y, acq = lone_measurements()
    levels = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        levels.append(found(None, y, acq).sigma)
    assert levels[0] == levels[1]


def test_too_few_measurements_to_tell_are_said():
    acq = Acquisition(bval=[0.0, 1.0, 2.0])
    y = 300 * rician(BoundSignal(MSDKI, acq)(tissue(50)), 0.02)
    with pytest.raises(InputError, match=r"3 measurements for 3 parameters and no repeats; give it with --sigma VALUE"):
        found(None, y, acq)


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        ("loud", "sigma must be a number above zero, one per voxel, or one of estimate, field, learn, got 'loud'"),
        (0.0, "above zero everywhere, got 0"),
        (-2.0, "above zero everywhere, got -2"),
        (float("nan"), "finite and above zero everywhere, got nan"),
        (float("inf"), "finite and above zero everywhere, got inf"),
        (torch.ones(3), "3 entries for 200 voxels; give one number or one per voxel"),
        (torch.ones(200, 16), r"got shape \(200, 16\)"),
        (-torch.arange(200.0), "is not in any of the 200 voxels"),
    ],
)
def test_what_cannot_be_is_said(sigma, said):
    with pytest.raises(InputError, match=said):
        found(sigma)


def test_a_voxel_without_a_noise_level_does_not_count():
    noise = found(torch.tensor([0.0, torch.nan, *[4.0] * 198]))
    assert noise.sigma == 4.0
    assert noise.level[:2].isnan().all()


def test_a_noise_level_is_passed_on():
    noise = NoiseLevel(3.0, "b0", "")
    assert found(noise, *msdki_data(20)) is noise


def test_directions_that_are_no_repeats_are_not_taken_for_noise():
    # sticks: the scatter over directions is signal, five times the noise
    from pyroqmri.signals import BallStick

    acq = shells(3, 30, 1.0)
    n = 300
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    full = torch.ones(n)
    theta = {"f": 0.7 * full, "D_par": 2.0 * full, "D_iso": 0.8 * full, "n": axes}
    y = 200 * rician(BoundSignal(BallStick, acq)(theta), 0.02)
    assert found(None, y, acq).sigma == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("scale", "noise", "said"), [(0.05, 0.05, True), (0.05, 1.0, False), (1.0, 1.0, False)])
def test_voxels_of_other_scale_are_named_where_the_residuals_give_sigma(scale, noise, said):
    rng = np.random.default_rng(0)
    te, level = np.arange(10.0, 90, 10), np.where(np.arange(300) % 3 == 0, scale, 1.0)[:, None]
    sigma = 10 * np.where(level < 1, noise, 1.0)
    clean = 1000 * level * np.exp(-te / rng.uniform(60, 100, (300, 1)))
    y = np.hypot(clean + sigma * rng.normal(size=clean.shape), sigma * rng.normal(size=clean.shape))
    found = pq.fit(y, pq.Acquisition(te=te), signal="t2_decay", recipe="least_squares", s0="inferred")
    assert found.noise.method == "residual"
    assert any("one number does not suit both" in text for text in found.warnings) == said


@pytest.mark.parametrize(("sigma", "said"), [(0.05, True), (15.0, False), (300.0, True)])
def test_a_given_number_is_compared_with_the_scan_where_means_over_directions_are_fitted(sigma, said):
    y, acq = msdki_data(200, sigma=0.05, s0=300.0)  # 15
    preparation = prepare_for(MSDKI, acq, y, s0="measured", average="shells", magnitude=True)
    bound = BoundSignal(MSDKI, preparation.seen(acq).acquisition)
    warnings = noise_level(y, acq, sigma, preparation, bound).warnings
    assert any(f"sigma {sigma:.4g} was given" in text for text in warnings) == said
