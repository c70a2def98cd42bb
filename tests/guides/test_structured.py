"""Laplace modes of each class: exact where the signal is linear."""

import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal

import pyroqmri as pq
from pyroqmri.guides import Structured
from pyroqmri.priors import FullHierarchical, Hierarchical, Mixture
from pyroqmri.priors.hierarchical import correlation_tril, population_of
from pyroqmri.svi import Training, fit_svi
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_model, quadratic_posterior

LOC = torch.tensor([[1.0, 0.5, -0.5], [-1.0, 0.0, 1.0]])
SD = torch.tensor([0.4, 0.6])
WEIGHTS = torch.tensor([0.3, 0.7])


def two_classes(n: int, seed: int = 0) -> torch.Tensor:
    """Measurements ``(n, 8)``, the first 30 % of the first class."""
    first = round(0.3 * n)
    parts = [quadratic_data(k, seed + i, LOC[i], SD[i] * torch.eye(3)) for i, k in enumerate((first, n - first))]
    return torch.cat(parts)


def known_mixture(given: torch.Tensor | None = None) -> Mixture:
    prior = Mixture(3, classes=2 if given is None else 1, given=given)
    covariance = SD.square()[:, None, None] * torch.eye(3)
    prior.update(WEIGHTS, LOC, covariance)
    return prior


def exact(guide: Structured) -> Structured:
    torch.nn.init.zeros_(guide.network[-1].weight)
    return guide


def exact_evidence(y: torch.Tensor) -> torch.Tensor:
    """Log of weight times marginal likelihood of each class ``(N, 2)``."""
    covariance = [DESIGN @ DESIGN.mT * sd**2 + SIGMA**2 * torch.eye(8) for sd in SD]
    marginals = [MultivariateNormal(m @ DESIGN.mT, c).log_prob(y) for m, c in zip(LOC, covariance, strict=True)]
    return torch.stack(marginals, -1) + WEIGHTS.log()


GIVEN = torch.stack([LOC[1], SD[1].expand(3)])[None]
CASES = pytest.mark.parametrize("given", [None, GIVEN], ids=["learned", "given"])


@CASES
def test_before_training_it_is_the_exact_posterior_of_a_linear_signal(given):
    y = two_classes(100)
    model = quadratic_model(known_mixture(given))
    guide = exact(Structured(model, 8))
    q = guide.z_dist(guide.prepare(y))
    torch.testing.assert_close(q.probs, exact_evidence(y).softmax(-1), atol=2e-3, rtol=0)
    for k in range(2):
        loc, covariance = quadratic_posterior(y, LOC[k], SD[k] ** 2 * torch.eye(3))
        torch.testing.assert_close(q.loc[:, k], loc, atol=3e-3, rtol=0)
        found = q.scale_tril[:, k] @ q.scale_tril[:, k].mT
        torch.testing.assert_close(found, covariance.expand(100, 3, 3), atol=1e-4, rtol=1e-2)


@CASES
def test_the_enumerated_objective_is_the_evidence(given):
    y = two_classes(100)
    model = quadratic_model(known_mixture(given))
    guide = exact(Structured(model, 8))
    guide.steps = 12
    voxels = guide.prepare(y)
    loss = model.prior.elbo().differentiable_loss(model, guide, voxels)
    trace = pyro.poutine.trace(model.prior.population).get_trace()
    trace.compute_log_prob()
    density = trace.nodes["hyperprior"]["log_prob_sum"]
    # an exact posterior makes the bound the evidence, whatever was drawn
    assert float((-loss - density).detach()) / 100 == pytest.approx(
        float(exact_evidence(y).logsumexp(-1).mean()), abs=0.01
    )


def test_its_start_finds_the_classes():
    y = two_classes(2000)
    model = quadratic_model(Mixture(3, classes=2))
    guide = Structured(model, 8)
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    log_weights, loc, tril = (t.detach() for t in model.prior.classes())
    order = loc[:, 0].argsort(descending=True)
    # 600 and 1,400 voxels: standard errors near .03 for means, 3 % for sds, .01 for weights
    torch.testing.assert_close(loc[order], LOC, atol=0.12, rtol=0)
    torch.testing.assert_close(log_weights.exp()[order], WEIGHTS, atol=0.05, rtol=0)
    torch.testing.assert_close(tril.square().sum(-1).sqrt()[order], SD[:, None].expand(2, 3), rtol=0.15, atol=0)


@pytest.mark.slow
def test_training_keeps_what_the_start_found_and_gains():
    y = two_classes(2000)
    model = quadratic_model(Mixture(3, classes=2))
    guide = Structured(model, 8, width=16)
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    trace = fit_svi(model, guide, voxels, Training(steps=200, batch_size=256, held_out=200))
    assert trace.held_out[-1] <= trace.held_out[0] + 0.02
    evidence = float(exact_evidence(y).logsumexp(-1).mean())
    assert -trace.held_out[-1] == pytest.approx(evidence, abs=0.3)
    q = guide.z_dist(voxels)
    order = model.prior.loc[:, 0].argsort(descending=True)
    assert (q.probs.detach()[:, order] - exact_evidence(y).softmax(-1)).abs().mean() < 0.03


def test_with_one_class_it_follows_a_hierarchical_population():
    loc, covariance = torch.tensor([0.5, -0.5, 0.0]), torch.diag(torch.tensor([0.25, 0.5, 1.0]))
    prior = Hierarchical(3)
    prior.update(torch.ones(1), loc[None], covariance[None])
    model = quadratic_model(prior)
    guide = exact(Structured(model, 8))
    y = quadratic_data(50)
    q = guide.z_dist(guide.prepare(y))
    torch.testing.assert_close(q.mean, quadratic_posterior(y, loc, covariance)[0], atol=3e-3, rtol=0)


def test_given_classes_stay_what_they_are():
    y = two_classes(400)
    model = quadratic_model(Mixture(3, classes=1, given=GIVEN))
    guide = Structured(model, 8, width=16)
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    fit_svi(model, guide, voxels, Training(steps=20, batch_size=128))
    _, loc, tril = model.prior.classes()
    torch.testing.assert_close(loc[1].detach(), LOC[1], rtol=0, atol=0)
    torch.testing.assert_close(tril[1].detach(), SD[1] * torch.eye(3))
    torch.testing.assert_close(loc[0].detach(), LOC[0], atol=0.25, rtol=0)


def test_voxels_that_a_given_class_explains_do_not_start_the_learned_ones():
    y = two_classes(1000)
    model = quadratic_model(Mixture(3, classes=1, given=GIVEN))
    guide = exact(Structured(model, 8))
    voxels = guide.prepare(y)
    explained = guide.explained(voxels)
    assert explained[:300].float().mean() < 0.5  # the classes overlap
    assert explained[300:].float().mean() > 0.97
    guide.start(voxels)
    torch.testing.assert_close(model.prior.loc.detach(), LOC[:1], atol=0.1, rtol=0)


def test_a_drawn_population_moves_the_posteriors_as_the_closed_form_does():
    y = quadratic_data(20)
    guide = exact(Structured(quadratic_model(FullHierarchical(3)), 8))
    voxels = guide.prepare(y)
    n = 2 * 3 + 3
    direction = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))

    def slopes(answer) -> torch.Tensor:
        c = torch.linspace(-0.4, 0.4, n, requires_grad=True)
        population = population_of(c[:3], c[3:6].exp(), correlation_tril(c[6:], 3), 3)
        loc, covariance = answer(population)
        return torch.autograd.grad((loc * direction).sum() + covariance.sum(), c)[0]

    def ours(population):
        q = guide.components(voxels, 12, population)
        return q.loc[:, 0], (q.scale_tril @ q.scale_tril.mT)[:, 0]

    def closed_form(population):
        tril = population.scale_tril[0]
        loc, covariance = quadratic_posterior(y, population.loc[0], tril @ tril.mT)
        return loc, covariance.expand(20, 3, 3)

    torch.testing.assert_close(slopes(ours), slopes(closed_form), rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_the_start_climbs_a_ridge_and_leaves_a_poor_optimum():
    """Two pools in 32 echoes: noise spreads the modes along f and T2_short; a poor start leaves f at .35."""
    rng, n, te = np.random.default_rng(0), 1000, np.arange(10.0, 330, 10)
    f, short, long = (np.clip(rng.normal(m, s, (n, 1)), 0.01, None) for m, s in ((0.12, 0.03), (18, 3), (80, 6)))
    s = 1000 * (f * np.exp(-te / short) + (1 - f) * np.exp(-te / long))
    y = np.abs(s + 20 * (rng.normal(size=s.shape) + 1j * rng.normal(size=s.shape)))
    fit = pq.fit(y, pq.Acquisition(te=te), signal="t2_biexp", recipe="hierarchical", sigma=20.0,
                 settings={"training.steps": 1})  # fmt: skip
    centre = fit.signal.constrain(fit.model.prior.classes().loc[0].detach())
    assert 0.08 < centre["f"] < 0.18
    assert 12 < centre["T2_short"] < 32
    assert 75 < centre["T2_long"] < 90


def test_a_magnitude_of_either_sign_has_both_its_modes():
    """Three inversion times: the first may lie before or after the zero; integrated by brute force over T1."""
    ti, tr, sigma, n = np.array([300.0, 700, 1100]), 6000.0, 0.1, 400
    rng = np.random.default_rng(3)
    t1 = np.where(rng.random(n) < 0.5, rng.normal(850, 80, n), rng.normal(1350, 120, n))

    def signal(t):
        return np.abs(1 - 2 * np.exp(-ti / t[:, None]) + np.exp(-tr / t[:, None]))

    y = np.abs(signal(t1) + sigma * (rng.normal(size=(n, 3)) + 1j * rng.normal(size=(n, 3))))
    acq = pq.Acquisition(ti=ti, tr=np.full(3, tr))
    fit = pq.fit(y, acq, signal="t1_inversion", recipe="hierarchical", sigma=sigma, s0=1.0, fixed={"inv_eff": 1.0},
                 settings={"training.steps": 1})  # fmt: skip
    fit.model.prior.update(torch.ones(1), torch.full((1, 1), -0.8), torch.full((1, 1, 1), 0.49))
    torch.nn.init.zeros_(fit.guide.network[-1].weight)
    torch.nn.init.zeros_(fit.guide.network[-1].bias)
    z = np.linspace(-4, 3, 2001)
    grid = 10 + 5990 * stats.norm.cdf(z)
    density = stats.rice.logpdf(y[:, None], signal(grid) / sigma, scale=sigma).sum(-1) + stats.norm.logpdf(z, -0.8, 0.7)
    weights = np.exp(density - density.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    mean = weights @ grid
    sd = np.sqrt(weights @ grid**2 - mean**2)
    found = fit.posterior(y).mean["T1"].numpy()
    assert np.abs((found - mean) / sd).max() < 1
