"""Pareto shapes against ArviZ, and against tails of known shape."""

import numpy as np
import pytest
import torch
from scipy import stats

from pyroqmri.posterior.psis import efficiency, pareto_khat, smoothed
from tests.arviz_calls import PSIS_TOLERANCE, psislw


# of 1,000 draws the tail is 3 sqrt(S), of 100 a fifth
@pytest.mark.parametrize("n", [100, 1000])
def test_the_same_as_arviz(n):
    generator = torch.Generator().manual_seed(0)
    log_weights = torch.randn(20, n, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 4, 20)[:, None]
    log_smooth, theirs = psislw(log_weights.numpy())
    np.testing.assert_allclose(pareto_khat(log_weights).numpy(), theirs, atol=PSIS_TOLERANCE)
    weights, shape = smoothed(log_weights)
    np.testing.assert_allclose(shape.numpy(), theirs, atol=PSIS_TOLERANCE)
    np.testing.assert_allclose(weights.numpy(), np.exp(log_smooth), atol=PSIS_TOLERANCE)


def test_smoothed_weights_of_a_narrow_proposal_estimate_a_known_variance_better():
    # a standard normal seen through one of sd .6, whose raw weights have a shape of .64: 300 rows of 1,000 draws
    z = 0.6 * torch.randn(300, 1000, generator=torch.Generator().manual_seed(2))
    log_weights = (z / 0.6).square() / 2 - z.square() / 2
    raw = log_weights.softmax(-1)
    errors = [float(((w * z.square()).sum(-1) - 1).square().mean().sqrt()) for w in (smoothed(log_weights)[0], raw)]
    assert errors[0] < errors[1]
    assert errors[0] < 0.25  # without weights it is .64


def test_equal_weights_are_fully_efficient_and_stay_equal():
    weights, _ = smoothed(torch.full((3, 400), 7.0))
    torch.testing.assert_close(weights, torch.full((3, 400), 1 / 400))
    torch.testing.assert_close(efficiency(weights), torch.ones(3))


def test_the_shape_of_a_pareto_tail_is_found():
    # w = U^-k has a tail of shape k; 40 rows of 4,000 draws: sd of the mean about 0.015, so this fails 1 time in 10^6
    generator = torch.Generator().manual_seed(1)
    for k in (0.3, 0.7):
        log_weights = -k * torch.rand(40, 4000, generator=generator, dtype=torch.float64).log()
        assert abs(float(pareto_khat(log_weights).mean()) - k) < 0.08


def test_equal_weights_are_no_worry():
    assert float(pareto_khat(torch.zeros(1, 500))[0]) == -torch.inf


def test_adding_a_constant_changes_nothing():
    log_weights = torch.randn(5, 1000)
    torch.testing.assert_close(pareto_khat(log_weights), pareto_khat(log_weights + 500), atol=1e-3, rtol=0)


def test_weights_that_differ_by_rounding_alone_are_perfect():
    noise = -100 + 1e-5 * torch.randn(20, 1000, generator=torch.Generator().manual_seed(0))
    assert (pareto_khat(noise) < 0.5).all()


def test_a_good_proposal_is_good_and_a_narrow_one_is_not():
    torch.manual_seed(0)
    # a normal of sd s under a standard normal has k = 1 - s^2, a wider one none
    z = torch.randn(200, 1000)
    target = stats.norm(0, 1)
    wide, narrow = stats.norm(0, 1.2), stats.norm(0, 0.3)
    ratios = [torch.as_tensor(target.logpdf(q.std() * z) - q.logpdf(q.std() * z)) for q in (wide, narrow)]
    assert float(pareto_khat(ratios[0]).median()) < 0.3
    assert float(pareto_khat(ratios[1]).median()) > 0.7
