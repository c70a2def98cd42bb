"""Repeats as one event, as a voxel model makes them."""

import pyro
import pytest
import torch

from pyroqmri.decoders import IdentityDecoder
from pyroqmri.distributions import Repeats
from pyroqmri.likelihoods import GaussianLikelihood, Likelihood, RicianLikelihood
from pyroqmri.priors import StandardNormal
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import rician, shells, tissue

ACQ = shells(0, 60, 1.0, 2.0, bvec=False)


def made(likelihood: Likelihood, n: int = 20):
    signal = BoundSignal(MSDKI, ACQ)
    model = VoxelModel(signal, StandardNormal(2), IdentityDecoder(2), likelihood, 0.1)
    voxels = model.prepare(rician(signal(tissue(n)), 0.1))
    z = signal.unconstrain(tissue(n, seed=4))
    return model, voxels, z, likelihood(model.simulate(z, voxels), voxels.sigma)


def test_the_gaussian_log_probability_is_the_plain_one():
    model, voxels, z, plain = made(GaussianLikelihood())
    ours = model.y_dist(z, voxels)
    assert isinstance(ours, Repeats)
    assert (ours.batch_shape, ours.event_shape) == (plain.batch_shape, plain.event_shape)
    torch.testing.assert_close(ours.log_prob(voxels.y), plain.log_prob(voxels.y), rtol=1e-4, atol=1e-3)
    other = rician(torch.rand(20, 120) + 0.1, 0.1)
    torch.testing.assert_close(ours.log_prob(other), plain.log_prob(other), rtol=1e-4, atol=5e-3)


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), RicianLikelihood()])
def test_slopes_are_the_plain_ones(likelihood):
    model, voxels, z, _ = made(likelihood)
    slopes = []
    for short in (voxels, model.prepare(voxels.y)):
        at = z.clone().requires_grad_()
        if short is voxels:
            value = model.y_dist(at, short).log_prob(short.y)
        else:
            value = likelihood(model.simulate(at, short), short.sigma).log_prob(short.y)
        slopes.append(torch.autograd.grad(value.sum(), at)[0])
    # the posterior sd is near 1 / 15 here: a slope off by 1 moves a mode by .07 sd
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0.02, atol=1.0)


def test_the_rician_log_probability_is_the_plain_one():
    model, voxels, z, plain = made(RicianLikelihood())
    ours = model.y_dist(z, voxels).log_prob(voxels.y)
    # 120 measurements; without the sum of log x it would be off by more than half a nat
    torch.testing.assert_close(ours, plain.log_prob(voxels.y), rtol=0, atol=0.2)


def test_draws_are_the_plain_ones():
    model, voxels, z, plain = made(RicianLikelihood())
    ours = model.y_dist(z, voxels)
    torch.testing.assert_close(ours.mean, plain.mean)
    torch.testing.assert_close(ours.variance, plain.variance)
    draws = ours.sample((500,))
    assert draws.shape == (500, 20, 120)
    # 60,000 values a voxel: standard error of the mean .0004
    torch.testing.assert_close(draws.mean((0, 2)), plain.mean.mean(-1), atol=2e-3, rtol=0)
    assert torch.isfinite(ours.log_prob(draws[0])).all()


def test_values_may_have_leading_axes():
    model, voxels, z, _ = made(RicianLikelihood())
    ours = model.y_dist(z, voxels)
    y = ours.sample((3,))
    assert ours.log_prob(y).shape == (3, 20)


def test_draws_of_the_latent_lead():
    model, voxels, z, _ = made(RicianLikelihood())
    many = model.y_dist(torch.stack([z, z + 0.1]), voxels)
    assert many.log_prob(voxels.y).shape == (2, 20)
    torch.testing.assert_close(many.log_prob(voxels.y)[0], model.y_dist(z, voxels).log_prob(voxels.y))


def test_predictive_replicates_the_data():
    model, voxels, *_ = made(RicianLikelihood())
    replicates = pyro.infer.Predictive(pyro.poutine.uncondition(model), num_samples=3)(voxels)["y"]
    assert replicates.shape == (3, 20, 120)
