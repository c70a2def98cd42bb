"""The training loop against posteriors that are known."""

import pytest
import torch

from pyroqmri.guides import Encoder, MapStarted
from pyroqmri.priors import Hierarchical
from pyroqmri.priors.hierarchical import hyperprior
from pyroqmri.svi import Training, fit_svi
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_model, quadratic_posterior

LOC = torch.tensor([0.8, -0.4, 0.3])
COVARIANCE = torch.tensor([[0.5, -0.2, 0.1], [-0.2, 0.4, -0.15], [0.1, -0.15, 0.6]])


def trained(model, guide, y, **settings):
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    trace = fit_svi(model, guide, voxels, Training(held_out=0, **settings), seed=0)
    q = guide.z_dist(voxels)
    tril = q.scale_tril.squeeze(-3).detach()
    return q.loc.squeeze(-2).detach(), tril @ tril.mT, trace


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference over that of the exact values."""
    return float((found - exact).norm() / exact.expand_as(found).norm())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param(Encoder, {"steps": 1500, "batch_size": 512}, marks=pytest.mark.slow),
        (MapStarted, {"steps": 300, "batch_size": 512}),
    ],
)
def test_the_posterior_is_the_closed_form(kind, settings):
    y = quadratic_data(4000)
    model = quadratic_model()
    loc, covariance, _ = trained(model, kind(model, 8), y, **settings)
    exact_loc, exact_covariance = quadratic_posterior(y)
    # correlations up to .8: a guide without them would be 30 % off
    assert (torch.corrcoef(torch.linalg.cholesky(exact_covariance)).abs().fill_diagonal_(0) > 0.3).any()
    assert error(loc, exact_loc) < 0.02
    assert error(covariance, exact_covariance) < 0.05


def test_other_voxels_have_the_closed_form_as_well():
    model = quadratic_model()
    guide = MapStarted(model, 8)
    trained(model, guide, quadratic_data(4000), steps=300, batch_size=512)
    y = quadratic_data(500, seed=9)
    q = guide.z_dist(guide.prepare(y))
    assert error(q.mean.detach(), quadratic_posterior(y)[0]) < 0.02


def test_the_objective_is_the_evidence():
    y = quadratic_data(4000)
    model = quadratic_model()
    _, _, trace = trained(model, MapStarted(model, 8), y, steps=300, batch_size=512, check_every=300)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(8), DESIGN @ DESIGN.mT + SIGMA**2 * torch.eye(8))
    # the last look is a running mean over some 20 batches of 512: standard error near .02 nats a voxel
    assert -trace.train[-1] == pytest.approx(float(marginal.log_prob(y).mean()), abs=0.1)


def marginal_mode(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Population mean and covariance that maximise the marginal likelihood times the hyperprior, by L-BFGS."""
    prior = Hierarchical(3).double()
    design, noise = DESIGN.double(), SIGMA**2 * torch.eye(8, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        _, loc, tril = prior.classes()
        covariance = design @ tril[0] @ tril[0].mT @ design.mT + noise
        marginal = torch.distributions.MultivariateNormal(loc[0] @ design.mT, covariance)
        density = hyperprior(prior.loc, prior.log_sd.exp(), prior.correlation_tril())
        value = -(marginal.log_prob(y.double()).sum() + density)
        value.backward()
        return value

    optimizer.step(loss)
    _, loc, tril = prior.classes()
    return loc[0].detach().float(), (tril[0] @ tril[0].mT).detach().float()


@pytest.mark.slow
def test_a_hierarchical_prior_finds_the_population_that_the_marginal_likelihood_has():
    y = quadratic_data(4000, loc=LOC, tril=torch.linalg.cholesky(COVARIANCE))
    prior = Hierarchical(3)
    model = quadratic_model(prior)
    loc, covariance, _ = trained(model, MapStarted(model, 8), y, steps=600, batch_size=1024)
    best_loc, best_covariance = marginal_mode(y)
    # what was simulated is within its own sampling error, which 4,000 voxels make 3 %
    assert error(best_loc, LOC) < 0.06
    assert error(best_covariance, COVARIANCE) < 0.06
    _, prior_loc, tril = prior.classes()
    assert error(prior_loc[0].detach(), best_loc) < 0.02
    assert error((tril[0] @ tril[0].mT).detach(), best_covariance) < 0.05
    exact_loc, exact_covariance = quadratic_posterior(y, best_loc, best_covariance)
    assert error(loc, exact_loc) < 0.02
    assert error(covariance, exact_covariance) < 0.05
