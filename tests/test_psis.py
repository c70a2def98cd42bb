"""Pareto shapes against ArviZ, and against tails of known shape."""

import warnings

import numpy as np
import torch

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
