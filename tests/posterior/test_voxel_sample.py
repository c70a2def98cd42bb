"""Voxels that are kept in full agree with posteriors worked out on paper and with physics written in numpy."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.posterior.voxel_sample import MOST_VALUES, N_DRAWS, VoxelSampler, joined, spread_over
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_posterior
from tests.posterior.test_posterior import toy


def test_the_sample_is_everything_of_a_small_scan_and_evenly_spaced_in_a_large_one():
    assert spread_over(50, 30, 2).all()
    chosen = np.flatnonzero(spread_over(100_000, 90, 5))
    assert len(chosen) * (4 * 90 + N_DRAWS * 5) <= MOST_VALUES
    assert set(np.diff(chosen)) <= {len(range(100_000)) // len(chosen) + d for d in (0, 1)}
    assert chosen[0] == 0
    assert chosen[-1] == 99_999


def test_a_posterior_that_is_known_gives_the_predictive_intervals_that_are_known():
    y = quadratic_data(40)
    posterior = toy(n_draws=2048, y=y)
    chosen = np.arange(40) % 4 == 0
    sampler = VoxelSampler(posterior, chosen)
    before = torch.get_rng_state()
    posterior.mean  # noqa: B018  maps are asked for, and draws come by
    assert torch.equal(before, torch.get_rng_state())
    part = sampler.sample()
    assert part is not None
    sample = joined({100: part})  # of a scan in which these voxels begin at the hundredth
    assert sample is not None
    np.testing.assert_array_equal(sample.index, 100 + np.flatnonzero(chosen))
    twice = joined({140: part, 100: part})  # blocks may end in any order
    assert twice is not None
    np.testing.assert_array_equal(twice.index, [*sample.index, *(sample.index + 40)])
    assert twice.draws["b"].shape == (N_DRAWS, 20)
    mean, covariance = quadratic_posterior(y[::4])
    expected = (mean @ DESIGN.mT).numpy()
    sd = (DESIGN @ covariance @ DESIGN.mT).diagonal().add(SIGMA**2).sqrt().numpy()
    np.testing.assert_allclose(sample.y, y[::4], rtol=1e-5)
    np.testing.assert_allclose(sample.fitted, expected, atol=0.01)
    # a quantile of 2,048 draws is off by 0.05 sd (one sigma); the mean over voxels by a seventh of that
    np.testing.assert_allclose((sample.high - expected).mean(0) / sd, 1.645, atol=0.06)
    np.testing.assert_allclose((expected - sample.low).mean(0) / sd, 1.645, atol=0.06)
    assert sample.draws["a"].shape == (N_DRAWS, 10)
    np.testing.assert_allclose(sample.draws["a"].mean(0), mean[:, 0], atol=5 * covariance[0, 0].sqrt().item() / 8)


@pytest.mark.parametrize("s0", ["measured", "inferred"])
def test_point_estimates_have_their_curve_and_the_noise_around_it_in_the_images_units(s0):
    b, rng = np.repeat([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 4), np.random.default_rng(3)
    d, k, level = 0.9, 0.8, 700.0
    signal = level * np.exp(-b * d + (b * d) ** 2 * k / 6)
    y = np.abs(signal + 5 * (rng.standard_normal((60, 24)) + 1j * rng.standard_normal((60, 24))))
    fit = pq.fit(y, pq.Acquisition(bval=b), signal="msdki", recipe="least_squares", sigma=5.0, s0=s0)
    post = fit.posterior(y)
    sample = VoxelSampler(post, np.ones(60, bool)).sample()
    assert sample is not None
    assert sample.draws == {}
    seen = fit.preparation.seen(fit.acquisition).acquisition.bval.numpy()
    D, K = (post.mean[name].numpy()[:, None] for name in "DK")
    s0_map = sample.reference[:, None] if s0 == "measured" else post.mean["S0"].numpy()[:, None]
    curve = s0_map * np.exp(-seen * D + (seen * D) ** 2 * K / 6)
    assert np.median(sample.reference) == pytest.approx(level, rel=0.02) or s0 == "inferred"
    np.testing.assert_allclose(sample.fitted, curve, rtol=0.02)
    inside = (sample.low < sample.y) & (sample.y < sample.high)
    assert 0.84 < inside.mean() < 0.98
