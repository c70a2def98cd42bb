"""The learned population."""

import pyro
import pytest
import torch

from pyroqmri.priors import Hierarchical, StandardNormal
from pyroqmri.priors.hierarchical import correlation_coordinates, correlation_tril, hyperprior

COVARIANCE = torch.tensor([[0.5, -0.2, 0.1], [-0.2, 0.4, -0.15], [0.1, -0.15, 0.6]])


def test_correlation_factors_are_those_of_correlations_and_come_back():
    free = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    tril = correlation_tril(free, 4)
    assert torch.equal(tril, tril.tril())
    correlation = tril @ tril.mT
    torch.testing.assert_close(correlation.diagonal(dim1=-2, dim2=-1), torch.ones(7, 4))
    torch.testing.assert_close(correlation_coordinates(correlation), free, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(correlation_tril(torch.zeros(6), 4), torch.eye(4))


def test_update_sets_the_population():
    prior = Hierarchical(3, n_direction=2)
    prior.update(torch.ones(1), torch.tensor([[1.0, 2.0, 3.0]]), COVARIANCE.unsqueeze(0))
    log_weights, loc, tril = prior.classes()
    assert log_weights.tolist() == [0.0]
    assert loc.tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0]]
    covariance = (tril @ tril.mT)[0]
    torch.testing.assert_close(covariance[:3, :3], COVARIANCE)
    # an axis stays uniform and has nothing to do with tissue
    torch.testing.assert_close(covariance[3:], torch.eye(5)[3:])
    torch.testing.assert_close(covariance[:3, 3:], torch.zeros(3, 2))


def test_start_takes_median_and_spread_and_no_outlier():
    torch.manual_seed(0)
    modes = torch.tensor([0.5, -1.0]) + torch.tensor([0.2, 0.4]) * torch.randn(5000, 2)
    modes[:50] = 1e3
    prior = Hierarchical(2)
    prior.start(modes)
    torch.testing.assert_close(prior.loc.detach(), torch.tensor([0.5, -1.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(prior.log_sd.detach().exp(), torch.tensor([0.2, 0.4]), rtol=0.1, atol=0)


def test_start_keeps_the_spread_within_reason():
    prior = Hierarchical(2)
    prior.start(torch.stack([torch.zeros(100), torch.linspace(-50, 50, 100)], -1))
    torch.testing.assert_close(prior.log_sd.detach().exp(), torch.tensor([0.05, 1.0]))


def test_the_hyperprior_is_the_stated_density():
    loc, sd = torch.tensor([0.3, -0.2]), torch.tensor([0.5, 2.0])
    correlation = correlation_tril(torch.tensor([0.7]), 2)
    expected = torch.distributions.Normal(0, 1).log_prob(loc).sum()
    expected = expected + torch.distributions.HalfCauchy(1.0).log_prob(sd).sum()
    # LKJ(1) is uniform over correlation matrices: of two parameters, over r in (-1, 1); its factor's density is
    # that times the Jacobian of r in the row's free coordinate, which is 1
    expected = expected + torch.tensor(0.5).log()
    torch.testing.assert_close(hyperprior(loc, sd, correlation), expected)
    torch.testing.assert_close(
        hyperprior(loc[:1], sd[:1], torch.ones(1, 1)), hyperprior(loc[:1], sd[:1], -torch.ones(1, 1))
    )


def test_the_hyperprior_counts_once_and_is_differentiable():
    prior = Hierarchical(3)
    trace = pyro.poutine.trace(prior.population).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["hyperprior"]["log_prob_sum"].dim() == 0
    gradients = torch.autograd.grad(trace.log_prob_sum(), list(prior.parameters()), allow_unused=True)
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_the_program_adds_the_hyperprior_of_its_own_population():
    prior = Hierarchical(3, n_direction=2)
    prior.update(torch.ones(1), torch.tensor([[1.0, 2.0, 3.0]]), COVARIANCE.unsqueeze(0))
    sd = COVARIANCE.diagonal().sqrt()
    tril = torch.linalg.cholesky(COVARIANCE / sd.unsqueeze(-1) / sd)
    trace = pyro.poutine.trace(prior.population).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), hyperprior(torch.tensor([1.0, 2.0, 3.0]), sd, tril))


@pytest.mark.parametrize("prior", [StandardNormal(2, 2), Hierarchical(2, 2)])
def test_one_latent_a_voxel(prior):
    population = prior.classes()
    with pyro.plate("voxels", 5):
        assert prior(population).shape == (5, 4)
    assert prior.z_dist(population).event_shape == (4,)


def test_a_fixed_prior_stays():
    prior = StandardNormal(2)
    prior.start(torch.full((10, 2), 5.0))
    prior.update(torch.ones(1), torch.ones(1, 2), torch.eye(2)[None])
    assert not list(prior.parameters())
    _, loc, tril = prior.classes()
    assert loc.tolist() == [[0.0, 0.0]]
    assert torch.equal(tril[0], torch.eye(2))


def test_a_population_that_is_known_is_not_learned_and_correlates_with_no_other():
    prior = Hierarchical(3)
    nan = torch.nan
    prior.expect(torch.tensor([[nan, 0.2, nan], [nan, 0.0, nan], [nan, -1.5, nan], [nan, 0.0, nan]]))
    prior.update(torch.ones(1), torch.tensor([[1.0, 2.0, 3.0]]), COVARIANCE.unsqueeze(0))
    _, loc, tril = prior.classes()
    covariance = (tril @ tril.mT)[0]
    torch.testing.assert_close(loc[0], torch.tensor([1.0, 0.2, 3.0]))
    torch.testing.assert_close(covariance[1], torch.tensor([0.0, torch.tensor(-3.0).exp(), 0.0]))
    torch.testing.assert_close(covariance[0, 2], COVARIANCE[0, 2], atol=0.01, rtol=0)  # the others share one row
    density = pyro.poutine.trace(prior.population).get_trace().log_prob_sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(density, list(prior.parameters())))
