"""A second fibre is named by what it leaves over directions; noise, and a wrong noise level, are not."""

import numpy as np
import pytest

import pyroqmri as pq
from pyroqmri.measurements.status import DIRECTIONAL, FINE, MISFIT

SNR = 10


def axes(n, seed):
    """Directions that cover the sphere evenly, turned at random."""
    i = np.arange(n) + 0.5
    z, azimuth = i / n, np.pi * (1 + 5**0.5) * i
    g = np.stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z], 1)
    return g @ np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def protocol(n_b0, n, *shells):
    b = np.concatenate([np.zeros(n_b0), np.repeat(shells, n)])
    return b, np.concatenate([np.zeros((n_b0, 3)), *[axes(n, k) for k in range(len(shells))]])


def magnitudes(clean, sigma, rng):
    return np.hypot(clean + sigma * rng.normal(size=clean.shape), sigma * rng.normal(size=clean.shape))


def sticks(n, b, g, rng, crossing):
    """Voxels of one stick, or of two that cross at 45 to 90 degrees, in a ball."""
    first, across = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, n, 3)))
    across -= (across * first).sum(1, keepdims=True) * first
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    angle = np.radians(rng.uniform(45, 90, (n, 1)))
    second = np.cos(angle) * first + np.sin(angle) * across
    f, d_stick, d_ball = (rng.normal(m, s, (n, 1)) for m, s in ((0.6, 0.06), (1.9, 0.15), (0.9, 0.1)))
    share = rng.uniform(0.35, 0.5, (n, 1)) if crossing else 0.0
    one, two = (np.exp(-b * d_stick * (axis @ g.T) ** 2) for axis in (first, second))
    return f * ((1 - share) * one + share * two) + (1 - f) * np.exp(-b * d_ball)


def fitted(clean, b, g, rng, signal="ball_stick", sigma=1 / SNR):
    y = magnitudes(clean, 1 / SNR, rng)
    acq = pq.Acquisition(bval=b, bvec=g)
    fit = pq.fit(y, acq, signal=signal, recipe="least_squares", sigma=sigma, likelihood="rician")
    return fit.posterior(y)


@pytest.mark.parametrize(("n", "shells", "least"), [(60, (1.0, 2.5), 0.7), (90, (1.0, 2.0, 3.0), 0.95)])
def test_crossing_fibres_carry_the_code_and_single_ones_do_not(n, shells, least):
    rng = np.random.default_rng(1)
    b, g = protocol(6, n, *shells)
    clean = np.concatenate([sticks(300, b, g, rng, True), sticks(300, b, g, rng, False)])
    status = fitted(clean, b, g, rng).status.numpy()
    assert (status[:300] == DIRECTIONAL).mean() > least
    assert (status[300:] == DIRECTIONAL).sum() <= 3  # 0.3 are expected


def test_p_values_of_a_right_signal_are_uniform():
    rng = np.random.default_rng(2)
    b, g = protocol(6, 40, 1.0, 2.0)
    p = fitted(sticks(1500, b, g, rng, False), b, g, rng).goodness_of_fit.direction.numpy()
    # the larger of two p-values: never more often small than it claims, and seldom much less often
    for level in (0.05, 0.2):
        assert 0.5 * level < (p < level).mean() < level + 3 * np.sqrt(level / len(p))


def test_a_wrong_noise_level_is_not_taken_for_fibres():
    rng = np.random.default_rng(3)
    b, g = protocol(6, 60, 1.0, 2.5)
    status = fitted(sticks(400, b, g, rng, False), b, g, rng, sigma=1 / SNR / 1.3).status.numpy()
    assert (status == MISFIT).mean() > 0.5
    assert (status == DIRECTIONAL).mean() < 0.04


def test_a_tensor_of_two_fibres_is_seen_in_dti_and_one_tensor_is_not():
    rng = np.random.default_rng(4)
    b, g = protocol(4, 45, 1.0)
    tensors = []
    for crossing in (True, False):
        axis = np.linalg.qr(rng.normal(size=(300, 3, 3)))[0]
        along = [0.3 + 1.6 * (axis[:, :, k] @ g.T) ** 2 for k in (0, 1)]
        one, two = (np.exp(-b * d) for d in along)
        tensors.append((one + two) / 2 if crossing else one)
    y = np.concatenate(tensors)
    y = np.hypot(y + rng.normal(size=y.shape) / 40, rng.normal(size=y.shape) / 40)
    acq = pq.Acquisition(bval=b, bvec=g)
    fit = pq.fit(y, acq, signal="dti", recipe="least_squares", sigma=1 / 40, likelihood="rician")
    status = fit.posterior(y).status.numpy()
    assert (status[:300] == DIRECTIONAL).mean() > 0.3
    assert (status[300:] == DIRECTIONAL).sum() <= 3
    assert (status[300:] == FINE).mean() > 0.98


def test_signals_without_directions_are_not_tested_by_direction():
    rng = np.random.default_rng(5)
    b, g = protocol(4, 20, 1.0, 2.0)
    y = magnitudes(np.exp(-b * rng.uniform(0.6, 1.2, (60, 1))), 0.05, rng)
    fit = pq.fit(y, pq.Acquisition(bval=b, bvec=g), signal="msdki", recipe="least_squares", sigma=0.05)
    assert fit.posterior(y).goodness_of_fit.direction is None
