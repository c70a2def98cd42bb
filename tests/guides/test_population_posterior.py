"""Maps averaged over the population's posterior: where the signal is linear, everything is known."""

import torch
from torch.distributions import MultivariateNormal

from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides import Structured
from pyroqmri.guides.over_population import over_population
from pyroqmri.guides.population_posterior import spread_population
from pyroqmri.guides.population_refinement import left_out
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Hierarchical, Population
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_model, quadratic_posterior

LOC, SD = torch.tensor([1.0, 0.5, -0.5]), 0.5


def made(n: int, sd: float = SD):
    """A pair with the population of the truth, and prepared voxels."""
    y = quadratic_data(n, 0, LOC, SD * torch.eye(3))
    prior = Hierarchical(3)
    prior.update(torch.ones(1), LOC[None], sd**2 * torch.eye(3)[None])
    model = quadratic_model(prior)
    guide = Structured(model, 8)
    for weights in guide.network[-1].parameters():
        torch.nn.init.zeros_(weights)
    return model, guide, guide.prepare(Voxels(y, torch.full((n, 1), SIGMA)))


def test_another_population_moves_a_posterior_to_where_it_would_be_under_it():
    y = quadratic_data(4, 0, LOC, SD * torch.eye(3))
    now = Population(torch.zeros(1), LOC[None], (SD * torch.eye(3))[None])
    there = Population(torch.zeros(1), LOC[None] + 0.4, (0.8 * torch.eye(3))[None])
    exact = [quadratic_posterior(y, p.loc[0], p.scale_tril[0].square()) for p in (now, there)]
    q = GaussianMixture.single(exact[0][0], torch.linalg.cholesky(exact[0][1]).expand(4, 3, 3))
    moved = over_population(q, now, [there])
    torch.testing.assert_close(moved.loc.squeeze(1), exact[1][0], atol=1e-4, rtol=1e-4)
    tril = moved.scale_tril.squeeze(1)
    torch.testing.assert_close(tril @ tril.mT, exact[1][1].expand(4, 3, 3), atol=1e-4, rtol=1e-3)
    both = over_population(q, now, [now, there])
    between = (exact[1][0] - exact[0][0]) / 2
    mean_square = (exact[0][1] + exact[1][1]) / 2 + between.unsqueeze(-1) * between.unsqueeze(-2)
    tril = both.scale_tril.squeeze(1)
    torch.testing.assert_close(tril @ tril.mT, mean_square, atol=1e-4, rtol=1e-3)
    assert over_population(q, now, []) is q


def test_few_voxels_leave_the_mean_as_open_as_their_number_says():
    n = 20
    model, guide, voxels = made(n)
    torch.manual_seed(0)
    spread_population(model, guide, voxels)
    means = torch.stack([p.loc[0] for p in model.prior.populations()])
    # by hand: of coefficients that are estimated to within their own errors, over n voxels
    exact = ((SD**2 * torch.eye(3) + SIGMA**2 * torch.linalg.inv(DESIGN.T @ DESIGN)) / n).diagonal().sqrt()
    assert (means.mean(0) - LOC).abs().max() < 1e-5
    assert ((means.std(0) / exact > 0.5) & (means.std(0) / exact < 2)).all()
    predictive = model.prior.predictive()
    assert len(predictive.loc) == len(means)
    assert GaussianMixture(*predictive).variance.min() > SD**2


def test_many_voxels_leave_nothing_to_average_over_and_an_update_forgets():
    model, guide, voxels = made(2000)
    torch.manual_seed(0)
    spread_population(model, guide, voxels)
    assert model.prior.populations() == []
    assert "drawn" not in model.prior.state_dict()
    assert model.prior.predictive().loc is not None
    model, guide, voxels = made(20)
    spread_population(model, guide, voxels)
    other = Hierarchical(3)
    other.load_state_dict(model.prior.state_dict())
    assert len(other.populations()) == len(model.prior.populations()) > 0
    other.update(torch.ones(1), LOC[None], torch.eye(3)[None])
    assert other.populations() == []


def test_normal_posteriors_leave_nothing_out_of_the_evidence_and_narrow_ones_do():
    model, guide, voxels = made(300)
    torch.manual_seed(0)
    assert abs(left_out(model, guide, voxels)) < 0.01
    q = guide.z_dist(voxels)
    narrow = GaussianMixture(q.logits, q.loc, 0.6 * q.scale_tril)
    guide.z_dist = lambda voxels: narrow
    found = left_out(model, guide, voxels)
    # the divergence of normals whose sds are 0.6 of right ones, in three dimensions; 64 draws see most of it
    exact = float(3 * (0.6**2 - 1) / 2 - 3 * torch.tensor(0.6).log())
    assert 0.5 * exact < found < 1.2 * exact


def test_the_average_covers_truths_of_few_voxels_where_the_point_does_not():
    inside = {True: 0, False: 0}
    for seed in range(40):
        z = LOC + SD * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        y = z @ DESIGN.T + 2 * SIGMA * torch.randn(4, 8, generator=torch.Generator().manual_seed(100 + seed))
        loc, noise = torch.linalg.lstsq(DESIGN, y.T).solution.T.mean(0), 2 * SIGMA
        information = DESIGN.T @ DESIGN / noise**2
        cov = torch.linalg.inv(information + torch.eye(3) / SD**2)
        mean = (y @ DESIGN / noise**2 + loc / SD**2) @ cov
        now = Population(torch.zeros(1), loc[None], (SD * torch.eye(3))[None])
        error = torch.linalg.cholesky((SD**2 * torch.eye(3) + torch.linalg.inv(information)) / 4)
        points = MultivariateNormal(torch.zeros(3), torch.eye(3)).sample((16,))
        drawn = [now._replace(loc=(loc + error @ p)[None]) for p in torch.cat([points, -points])]
        q = GaussianMixture.single(mean, torch.linalg.cholesky(cov).expand(4, 3, 3))
        for average, found in ((False, q), (True, over_population(q, now, drawn))):
            inside[average] += int(((z - found.mean).abs() < 1.645 * found.variance.sqrt()).sum())
    # of 480: a share of 0.90 has a standard error of 0.014
    assert inside[True] / 480 > 0.87
    assert inside[False] < inside[True] - 10
