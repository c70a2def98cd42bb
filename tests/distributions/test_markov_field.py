"""A field's density and draws against a dense multivariate normal."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from pyroqmri.distributions.markov_field import MarkovField
from pyroqmri.markov.graph import graph_of
from tests.markov.test_field import LOC, P, dense, law_of, plane

N_LATENTS = 4  # two of the field, two of a direction


@pytest.fixture
def field() -> MarkovField:
    return MarkovField(graph_of(plane(4, 3, 2)), law_of(), N_LATENTS, torch.zeros(1, dtype=torch.float64))


def normal(field: MarkovField) -> MultivariateNormal:
    precision = torch.from_numpy(dense(plane(4, 3, 2)))
    return MultivariateNormal(torch.from_numpy(np.tile(LOC, field.graph.n)), precision_matrix=precision)


def test_the_shares_of_the_voxels_make_the_joint_density(field):
    torch.manual_seed(0)
    z = torch.randn(5, *field.batch_shape, N_LATENTS, dtype=torch.float64, requires_grad=True)
    share = field.log_prob(z)
    assert share.shape == (5, *field.batch_shape)
    axis = torch.distributions.Normal(0, 1).log_prob(z[..., P:]).sum((-1, -2))
    torch.testing.assert_close(share.sum(-1), normal(field).log_prob(z[..., :P].reshape(5, -1)) + axis)
    (slope,) = torch.autograd.grad(share.sum(), z)
    assert bool(torch.isfinite(slope).all())
    assert float(slope.abs().min()) > 0


def test_draws_have_its_covariance(field):
    # 4,000 draws: a covariance has a standard error of 1.6 % of the product of the sds
    torch.manual_seed(1)
    z = field.sample(torch.Size([4000]))[..., :P].reshape(4000, -1)
    exact = normal(field)
    scale = exact.covariance_matrix.diagonal().sqrt()
    error = (torch.cov(z.T) - exact.covariance_matrix) / scale / scale[:, None]
    assert float(error.abs().max()) < 0.1
    assert float(((z.mean(0) - exact.mean) / scale).abs().max()) < 0.07
