"""Pareto shapes against ArviZ, and against tails of known shape."""

import warnings

import numpy as np
import torch
from scipy import stats

from pyroqmri.psis import pareto_khat


def test_the_same_as_arviz():
    generator = torch.Generator().manual_seed(0)
    log_weights = torch.randn(20, 1000, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 4, 20)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from arviz import psislw

        theirs = np.array([psislw(row)[1] for row in log_weights.numpy()])
    np.testing.assert_allclose(pareto_khat(log_weights).numpy(), theirs, atol=1e-6)


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
