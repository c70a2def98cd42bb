"""A population with a posterior of its own."""

import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal

import pyroqmri as pq
from pyroqmri.errors import InputError
from pyroqmri.guides import Structured
from pyroqmri.priors import FullHierarchical
from pyroqmri.priors.hierarchical import correlation_tril, hyperprior
from pyroqmri.signals import MSDKI
from pyroqmri.svi import Training, fit_svi
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_model, shells

N = 300
SD = torch.tensor([0.7, 0.5, 0.9])
LOC = torch.tensor([0.5, -0.5, 1.0])


def laplace_of_the_population(y: torch.Tensor, jeffreys: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mode and covariance of the population's coordinates, the voxels integrated out in closed form."""
    y, design = y.double(), DESIGN.double()

    def loss(c):
        m, s, corr = c[:3], c[3:6].exp(), correlation_tril(c[6:], 3)
        factor = s.unsqueeze(-1) * corr
        spread = design @ factor
        covariance = spread @ spread.mT + SIGMA**2 * torch.eye(8, dtype=c.dtype)
        found = MultivariateNormal(design @ m, covariance).log_prob(y).sum()
        # densities of s and of the correlation factor, carried to the coordinates without bounds
        k = torch.arange(3)
        found = found + s.log().sum() + ((k + 2) * corr.diagonal().log())[1:].sum()
        if not jeffreys:
            return -found - hyperprior(m, s, corr)
        flat = torch.distributions.LKJCholesky(3, torch.ones((), dtype=c.dtype), validate_args=False).log_prob(corr)
        return -found - flat - 2 * s.log().sum() + corr.diagonal().log().sum()

    c = torch.cat([LOC, SD.log(), torch.zeros(3)]).double().requires_grad_()
    optimizer = torch.optim.LBFGS([c], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(c)
        value.backward()
        return value

    optimizer.step(closure)
    hessian = torch.autograd.functional.hessian(loss, c.detach())
    return c.detach(), torch.linalg.inv(hessian)


@pytest.mark.parametrize(
    "jeffreys", [pytest.param(False, marks=pytest.mark.slow, id="weak"), pytest.param(True, id="jeffreys")]
)
def test_it_is_the_posterior_that_integrating_the_voxels_out_gives(jeffreys):
    y = quadratic_data(N, 1, LOC, SD.diag())
    mode, covariance = laplace_of_the_population(y, jeffreys)
    torch.manual_seed(0)
    model = quadratic_model(FullHierarchical(3, jeffreys=jeffreys))
    guide = Structured(model, 8)
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    fit_svi(model, guide, voxels, Training(steps=600, batch_size=N, lr=1e-3, lr_population=1e-2, held_out=0))
    found = model.prior.population_dist()
    sd = covariance.diagonal().sqrt()
    # 600 noisy steps: the centre is known to a fifth of its sd, the sds to a tenth
    assert ((found.mean - mode).abs() < 0.35 * sd).all(), (found.mean - mode) / sd
    ratio = found.covariance_matrix.diagonal().sqrt() / sd
    assert ((ratio > 0.8) & (ratio < 1.25)).all(), ratio


@pytest.mark.slow
def test_the_recipes_training_is_enough_for_few_voxels():
    offs, ratios = [], []
    for seed in (0, 100, 200):
        y = quadratic_data(100, seed, LOC, SD.diag())
        mode, covariance = laplace_of_the_population(y, False)
        torch.manual_seed(0)
        model = quadratic_model(FullHierarchical(3))
        guide = Structured(model, 8)
        voxels = guide.prepare(y)
        model.start(voxels)
        guide.start(voxels)
        # models/hierarchical.toml
        fit_svi(model, guide, voxels, Training(steps=300, batch_size=512, lr=5e-3, lr_population=2e-2))
        found, sd = model.prior.population_dist(), covariance.diagonal().sqrt()
        offs.append(((found.mean - mode) / sd)[:6])
        ratios.append((found.stddev / sd)[:6])
    # with a tenth of the voxels kept aside and gradients that stop at the modes: 0.39 and 1.13
    assert torch.stack(offs).square().mean().sqrt() < 0.2
    assert abs(torch.stack(ratios)[:, 3:].mean() - 1) < 0.08


def test_model_and_guide_agree_on_their_sites():
    model = quadratic_model(FullHierarchical(3))
    guide = Structured(model, 8)
    voxels = guide.prepare(quadratic_data(20))
    guided = pyro.poutine.trace(guide).get_trace(voxels)
    trace = pyro.poutine.trace(pyro.poutine.replay(model, guided)).get_trace(voxels)
    trace.compute_log_prob()
    for name in ("m", "s", "Omega", "z"):
        assert trace.nodes[name]["value"] is guided.nodes[name]["value"]
        assert torch.isfinite(trace.nodes[name]["log_prob_sum"])


def test_the_jacobian_of_the_correlations_is_its_determinant():
    off = torch.tensor([0.4, -0.7, 1.1], dtype=torch.float64)
    i, j = torch.tril_indices(3, 3, -1)
    slope = torch.autograd.functional.jacobian(lambda c: correlation_tril(c, 3)[i, j], off)
    diagonal = correlation_tril(off, 3).diagonal()
    expected = (diagonal[1] ** 3 * diagonal[2] ** 4).log()
    torch.testing.assert_close(torch.linalg.det(slope).log(), expected)


def test_a_guide_that_does_not_draw_it_is_refused():
    acq = shells(6, 10, 1.0)
    settings = {"prior.kind": "full_hierarchical", "guide.kind": "map_started"}
    with pytest.raises(InputError, match="does not draw the population"):
        pq.fit(torch.rand(40, len(acq)), acq, signal="ball_stick", recipe="hierarchical", sigma=0.1, settings=settings)


@pytest.mark.slow
def test_a_fit_of_few_voxels_says_how_well_it_knows_their_population(tmp_path):
    acq = pq.Acquisition(bval=torch.tensor([0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]))
    torch.manual_seed(0)
    theta = {"D": 1 + 0.2 * torch.randn(60, 1), "K": 1 + 0.1 * torch.randn(60, 1)}
    y = MSDKI.signal(acq, **theta) + 0.03 * torch.randn(60, len(acq))
    settings = {"prior.kind": "full_hierarchical", "training.steps": 150, "training.batch_size": 60}
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=0.03, s0=1.0, settings=settings)
    drawn = pq.population_draws(fit, 2000)["D"]
    assert abs(float(drawn.median()) - 1) < 4 * 0.2 / 60**0.5
    assert 0.6 < float(drawn.std()) / (0.2 / 60**0.5) < 1.6
    fit.save(tmp_path)
    again = pq.population_draws(pq.load_fit(tmp_path), 2000)["D"]
    torch.testing.assert_close(again, drawn)
    assert not torch.equal(pq.population_draws(fit, 2000, seed=1)["D"], drawn)
    plain = pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=0.03, s0=1.0, settings={"training.steps": 2})
    with pytest.raises(InputError, match="as a point"):
        pq.population_draws(plain)
