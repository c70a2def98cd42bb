"""Voxels whose axis is open: no normal in a tangent plane describes them, and importance weights do."""

from functools import cache

import pytest
import torch

import pyroqmri as pq
from pyroqmri.calibration.simulated_voxels import own_voxels
from pyroqmri.fitting.schema import load_recipe, reweighting, with_settings
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.importance import loose_axes
from pyroqmri.signals import BallStick, BoundSignal
from tests.helpers import rician, shells

SIGMA, DRAWS = 0.04, 256


@cache
def fitted() -> pq.Fit:
    """A population of which every fifth voxel has hardly any stick."""
    g = torch.Generator().manual_seed(0)
    n = 1200
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    f = torch.sigmoid(-1.0 + 1.6 * torch.randn(n, generator=g))
    theta = {"f": f, "D_par": 1.6 + 0.25 * torch.randn(n, generator=g), "D_iso": 1.0 + 0.3 * torch.rand(n, generator=g)}
    acq = shells(6, 20, 1.0, 2.0)
    y = rician(BoundSignal(BallStick, acq)(theta | {"n": axes}), SIGMA)
    settings = {"training.steps": 200, "posterior.reweight": False}  # weights for the open axes alone
    return pq.fit(y, acq, signal="ball_stick", recipe="hierarchical", sigma=SIGMA, s0=1.0, settings=settings)


@cache
def asked() -> tuple[torch.Tensor, Posterior, Posterior, torch.Tensor]:
    """True axes from the fit's own population, its posterior of them, the guide's own, and which are loose."""
    simulated = own_voxels(fitted(), 2000, seed=3)
    post = fitted().posterior(simulated.y, sigma=simulated.sigma, n_draws=DRAWS)
    plain = fitted().posterior(simulated.y, sigma=simulated.sigma, n_draws=DRAWS, reweight=False)
    with torch.no_grad():
        q = plain.guide.z_dist(plain.guide.prepare(plain.batch.voxels))
    return simulated.truth["n"], post, plain, loose_axes(q)


def inside(truth: torch.Tensor, posterior: Posterior, p: float) -> torch.Tensor:
    """Whether each true axis lies in the cone that is to hold it with probability ``p``."""
    assert posterior.direction is not None
    cosine = (truth * posterior.direction).sum(-1).abs().clamp(max=1)
    return torch.rad2deg(cosine.arccos()) < posterior.cone(p)


@pytest.mark.slow
def test_cones_of_loose_axes_hold_what_they_say():
    truth, post, plain, loose = asked()
    n = len(loose)
    assert 300 < n < 1000
    for p in (0.5, 0.9):
        # four standard errors, and the tolerance of a check: a cone a tenth too narrow
        margin = 4 * (p * (1 - p) / n) ** 0.5 + 0.03
        assert abs(inside(truth, post, p)[loose].float().mean() - p) < margin
    assert inside(truth, plain, 0.9)[loose].float().mean() < 0.82


@pytest.mark.slow
def test_the_stick_in_them_is_told_right_too():
    found = own_voxels(fitted(), 2000, seed=3).truth
    _, post, plain, loose = asked()
    z, before = ((p.mean["f"] - found["f"])[loose] / p.sd["f"][loose] for p in (post, plain))
    assert z.mean().abs() < 0.15
    assert z.mean().abs() < before.mean().abs()


@pytest.mark.slow
def test_other_voxels_are_left_as_they_were():
    _, post, plain, loose = asked()
    tight = torch.ones(2000, dtype=torch.bool)
    tight[loose] = False
    for name in post.names:
        torch.testing.assert_close(post.mean[name][tight], plain.mean[name][tight], rtol=1e-4, atol=1e-4)
        low, before = (p.quantile(0.05)[name][tight] for p in (post, plain))
        torch.testing.assert_close(low, before, rtol=1e-4, atol=1e-4)
    assert (post.mean["f"][loose] != plain.mean["f"][loose]).float().mean() > 0.8


def test_a_batch_without_any_is_the_guides_own():
    truth, _, plain, loose = asked()
    tight = torch.ones(len(truth), dtype=torch.bool)
    tight[loose] = False
    some = fitted().posterior(own_voxels(fitted(), 2000, seed=3).y[tight][:20], n_draws=DRAWS)
    torch.testing.assert_close(some.mean["f"], plain.mean["f"][tight][:20], rtol=1e-4, atol=1e-4)


def test_it_can_be_left_out():
    fit = fitted()
    off = reweighting(with_settings(fit.recipe, {"posterior.loose_axes": False}))
    assert not off.wanted(axes=True)
    assert reweighting(fit.recipe).wanted(axes=True)
    assert not reweighting(fit.recipe).wanted(axes=False)
    assert not reweighting(load_recipe("vae_gmm_relaxed")).loose_axes
