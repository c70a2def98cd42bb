"""A population raised to the evidence: where the signal is linear, the truth is known."""

import torch
from torch.distributions import MultivariateNormal

from pyroqmri.guides import Encoder, Structured
from pyroqmri.guides.population_refinement import can_refine, refine_population
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import FullHierarchical, Hierarchical, StandardNormal
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_model

LOC, SD = torch.tensor([1.0, 0.5, -0.5]), 0.5


def evidence(y: torch.Tensor, loc: torch.Tensor, tril: torch.Tensor) -> float:
    """Log density of all measurements under a population, its coefficients integrated out in closed form."""
    part = DESIGN @ tril[0].detach()
    marginal = MultivariateNormal(DESIGN @ loc[0].detach(), part @ part.mT + SIGMA**2 * torch.eye(8))
    return float(marginal.log_prob(y).sum())


def test_a_population_that_is_too_narrow_widens_to_that_of_the_data():
    y = quadratic_data(2000, 0, LOC, SD * torch.eye(3))
    prior = Hierarchical(3)
    prior.update(torch.ones(1), LOC[None] + 0.1, 0.3**2 * torch.eye(3)[None])
    model = quadratic_model(prior)
    guide = Structured(model, 8)
    assert can_refine(model, guide)
    torch.manual_seed(0)
    refine_population(model, guide, guide.prepare(Voxels(y, torch.full((2000, 1), SIGMA))))
    # of 1,000 voxels the sd of a mean is 0.5 / sqrt(1000), that of a log sd 1 / sqrt(2000)
    assert (prior.loc - LOC).abs().max() < 0.1
    assert (prior.log_sd.exp() - SD).abs().max() < 0.06
    true = evidence(y, LOC[None], SD * torch.eye(3)[None])
    # half of the voxels leave it a few nats below, and it began 1,440 below
    assert evidence(y, LOC[None] + 0.1, 0.3 * torch.eye(3)[None]) < true - 200
    assert evidence(y, *prior.classes()[1:]) > true - 50


def test_only_a_population_that_is_a_point_and_learned_is_refined():
    for prior, expected in ((Hierarchical(3), True), (StandardNormal(3), False), (FullHierarchical(3), False)):
        model = quadratic_model(prior)
        assert can_refine(model, Structured(model, 8)) is expected
    model = quadratic_model(Hierarchical(3))
    assert not can_refine(model, Encoder(model, 8))
