"""Weights of many points from those of a few: right for smooth, skewed posteriors; elsewhere every point is weighed."""

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.fitting.schema import load_recipe, reweighting
from pyroqmri.posterior.importance import COSTLY, Reweighted, Reweighting, wide
from pyroqmri.posterior.interpolation import LEVELS, Interpolation, few_points, interpolated, levels

L = 5
SHAPES = torch.tensor([4.0, 6.0, 9.0, 14.0, 30.0])  # of gamma distributions, whose logarithms are the latents


def many() -> Tensor:
    """The points of weighted maps, in the posterior's own coordinates."""
    unit = GaussianMixture.single(torch.zeros(L), torch.eye(L))
    return wide(unit).transport(normal_points(1024, L, seed=0))


def log_gamma(z: Tensor) -> Tensor:
    """Log density of logarithms of gamma variables ``(..., L)``, skewed to the left."""
    return (SHAPES * z - z.exp() - torch.lgamma(SHAPES)).sum(-1)


def normal_at_mode(n: int) -> GaussianMixture:
    """The normal at the mode of ``log_gamma``, of its curvature, in n voxels."""
    return GaussianMixture.single(SHAPES.log().expand(n, L), SHAPES.rsqrt().diag().expand(n, L, L))


class Counted:
    """A log density that remembers how many points it was asked about in each voxel."""

    def __init__(self, n: int, rough: int = 0) -> None:
        self.asked, self.rough = torch.zeros(n), rough

    def __call__(self, z: Tensor, index: Tensor) -> Tensor:
        self.asked[index] += len(z)
        rough = torch.where(index < self.rough, 3.0, 0.0)
        return log_gamma(z) + rough * torch.sign(torch.sin(9 * z[..., 0]))


def test_a_quadratic_is_interpolated_exactly():
    points, few = many(), few_points(LEVELS[0], L)
    g = torch.Generator().manual_seed(0)
    curve, slope = torch.randn(L, L, generator=g), torch.randn(L, generator=g)

    def value(x: Tensor) -> Tensor:
        return (-(x @ curve).square().sum(-1) / 2 + x @ slope + 3).unsqueeze(-1)

    step = Interpolation.between(few, points)
    torch.testing.assert_close(step.to_all @ value(few), value(points), rtol=1e-3, atol=0.02)
    assert float(step.error(value(few))) < 0.01


def test_points_of_a_level_are_the_first_of_the_next():
    torch.testing.assert_close(few_points(LEVELS[1], L)[: LEVELS[0]], few_points(LEVELS[0], L))


def test_many_latents_or_few_points_are_not_interpolated():
    assert levels(L, 1024) == LEVELS
    assert levels(12, 1024) == LEVELS[1:]  # 91 terms of a quadratic
    assert levels(L, 128) == ()
    assert levels(40, 1024) == ()


def test_a_rough_density_is_evaluated_at_every_point():
    density = Counted(6, rough=2)
    scale, points, start = SHAPES.rsqrt(), many(), SHAPES.log()

    def log_density(x: Tensor, index: Tensor) -> Tensor:
        return density((start + scale * x).unsqueeze(1).expand(-1, len(index), -1), index)

    found = interpolated(log_density, points, 6)
    every = log_density(points, torch.arange(2))
    torch.testing.assert_close(found[:, :2], every)
    assert density.asked[2:].max() <= LEVELS[1]


@pytest.mark.parametrize("interpolate", [False, True])
def test_moments_of_skewed_posteriors_are_those_of_scipy(interpolate: bool):
    density, n = Counted(8), 8
    settings = Reweighting(draws=1024, reweight=True, interpolate=interpolate)
    q = normal_at_mode(n)
    found = Reweighted(q, density, settings, n_measurements=COSTLY)
    z = found.transport(normal_points(1024, L, seed=0))
    mean = torch.from_numpy(special.digamma(SHAPES.numpy()))
    sd = torch.from_numpy(np.sqrt(special.polygamma(1, SHAPES.numpy())))
    assert bool(found.corrected.all())
    assert float(((z.mean(0) - mean) / sd).abs().max()) < 0.05
    assert float((z.std(0) / sd - 1).abs().max()) < 0.04
    assert float(((q.loc[0, 0] - mean) / sd).abs().max()) > 0.15  # what there is to correct
    asked = density.asked.max()
    assert asked <= LEVELS[1] if interpolate else asked == 1024


def test_few_measurements_are_evaluated_everywhere():
    density = Counted(3)
    found = Reweighted(normal_at_mode(3), density, Reweighting(draws=1024, reweight=True), n_measurements=COSTLY - 1)
    assert bool((found.khat < 0.7).all())
    assert bool((density.asked == 1024).all())


def test_a_recipe_states_whether_weights_are_interpolated():
    assert reweighting(load_recipe("uniform")).interpolate
    assert not reweighting(load_recipe("uniform", {"posterior.interpolate": False})).interpolate
