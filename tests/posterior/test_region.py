"""A region's mean and spread, against voxels whose posterior is known."""

import pytest
import torch

from pyroqmri.distributions import normal_points
from pyroqmri.errors import InputError
from pyroqmri.posterior import region
from pyroqmri.posterior.recalibration import Recalibration
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_posterior
from tests.posterior.test_posterior import N, toy


def test_the_mean_of_a_region_carries_the_voxels_uncertainty():
    posterior = toy(64)
    n_asked = len(posterior.batch.status)
    mask = torch.zeros(n_asked, dtype=torch.bool)
    mask[posterior.batch.index[:20]] = True
    found = region(posterior, mask, n_draws=4000)
    draws = posterior.draws(4000, seed=1)["a"][:, mask]
    assert found.n_voxels == 20
    # Monte Carlo of 4,000 draws: sd of a mean within 4.5 %, and its mean within .08 sd, once in 10,000
    assert found.sd["a"] == pytest.approx(float(draws.mean(1).std()), rel=0.1)
    assert abs(found.mean["a"] - float(draws.mean())) < 0.15 * found.sd["a"]
    assert found.spread["a"] == pytest.approx(float(draws.std(1).mean()), rel=0.02)
    low, high = found.interval(0.8)["a"]
    assert [low, high] == pytest.approx(
        torch.quantile(found.mean_draws["a"], torch.tensor([0.1, 0.9]).double()).tolist()
    )
    assert "20 voxels" in str(found)


def test_spread_is_the_tissues_and_not_that_of_the_means():
    """Truth N(0, 1): means are drawn together, draws are not."""
    y = quadratic_data(N)
    loc, covariance = quadratic_posterior(y)
    posterior = toy(64)
    mask = torch.zeros(len(posterior.batch.status), dtype=torch.bool)
    mask[posterior.batch.index] = True
    found = region(posterior, mask)
    means = float(loc[:, 1].std())
    within = float(covariance[1, 1])
    assert found.spread["b"] == pytest.approx((means**2 + within) ** 0.5, rel=0.1)
    assert found.spread["b"] > means


def test_a_region_is_of_the_recalibrated_posterior():
    posterior = toy(64)
    ends = tuple(normal_points(64, 1, seed=0).sort(0).values[:, 0].tolist()[4:60:5])
    mask = torch.zeros(len(posterior.batch.status), dtype=torch.bool)
    mask[posterior.batch.index[:20]] = True
    before = region(posterior, mask)
    posterior.recalibration = Recalibration({"a": (ends, tuple(2 * x for x in ends))})
    after = region(posterior, mask)
    assert after.sd["a"] == pytest.approx(2 * before.sd["a"], rel=0.02)  # the same draws, moved
    assert after.sd["b"] == before.sd["b"]
    draws = posterior.draws(4000, seed=1)["a"][:, mask]
    assert after.spread["a"] == pytest.approx(float(draws.std(1).mean()), rel=0.02)


def test_a_region_of_its_own_population_is_not_drawn_to_the_others():
    """With a flat mean its expectation is that of least squares and its sd that of their mean, whatever the spread."""
    n = 60
    loc, tril = torch.tensor([0.8, -0.6, 0.5]), 0.4 * torch.eye(3)
    y = quadratic_data(n, seed=3, loc=loc, tril=tril)
    posterior = toy(64, y=y)
    free = torch.linalg.lstsq(DESIGN, y.T).solution.mean(1)
    sd = SIGMA * (torch.linalg.inv(DESIGN.T @ DESIGN).diagonal() / n).sqrt()
    own, shared = (region(posterior, torch.ones(n), 800, own_population=own) for own in (True, False))
    for i, name in enumerate("abc"):
        # 400 draws a voxel and 800 of the region: .06 sd; four of those once in 5,000 three times
        assert abs(own.mean[name] - float(free[i])) < 0.25 * sd[i]
        assert own.sd[name] == pytest.approx(float(sd[i]), rel=0.12)
        assert own.spread[name] == pytest.approx(0.4, rel=0.35)  # sd of the 60 and of what is learned of it
    assert max(abs(shared.mean[k] - float(free[i])) / float(sd[i]) for i, k in enumerate("abc")) > 1


def test_a_region_that_does_not_fit_is_refused():
    posterior = toy(64)
    n = len(posterior.batch.status)
    with pytest.raises(InputError, match="one entry per posterior voxel"):
        region(posterior, torch.ones(n + 1))
    with pytest.raises(InputError, match="none of the"):
        region(posterior, torch.zeros(n))
