"""A measured S0 has an error: the likelihood that averages over it, against the integral and against simulation."""

import math

import pytest
import torch
from torch import Tensor

import pyroqmri as pq
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.laplace.measured_s0 import s0_error
from pyroqmri.laplace.mode import expand, jacobian
from pyroqmri.likelihoods import GaussianLikelihood, Likelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import StandardNormal
from pyroqmri.signals import DTI, MSDKI, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import rician, shells, tissue

SIGMA, N_S0 = 0.08, 4
ACQ = shells(0, 6, 1.0, 2.0, bvec=False)
KINDS = pytest.mark.parametrize("kind", [GaussianLikelihood, RicianLikelihood])


def scene(kind: type[Likelihood], n: int = 40) -> tuple[VoxelModel, Voxels, Tensor, Tensor]:
    """Voxels whose measured S0 is off by what four measurements leave, their latents, and S0 over the measured one."""
    model = VoxelModel(BoundSignal(MSDKI, ACQ), StandardNormal(2), IdentityDecoder(2), kind(n_s0=N_S0), SIGMA)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, 2, generator=generator) * 0.3 - 0.6
    kappa = 1 + SIGMA / math.sqrt(N_S0) * torch.randn(n, 1, generator=generator)
    signal = model.signal(model.signal.constrain(z)) * kappa
    y = rician(signal, SIGMA) if kind is RicianLikelihood else signal + SIGMA * torch.randn(signal.shape)
    return model.double(), Voxels(y.double(), torch.full((n, 1), SIGMA, dtype=torch.float64)), z.double(), kappa[:, 0]


def integral(model: VoxelModel, voxels: Voxels, z: Tensor) -> Tensor:
    """Log of the likelihood averaged over S0, by a fine sum."""
    offsets = torch.linspace(-8, 8, 401, dtype=torch.float64)
    signal, tau = model.simulate(z, voxels), SIGMA / math.sqrt(N_S0)
    terms = [
        model.likelihood.information(signal * (1 + tau * e), voxels.y, voxels.noise).log_prob.sum(-1) - e**2 / 2
        for e in offsets
    ]
    return torch.stack(terms).logsumexp(0) + math.log((offsets[1] - offsets[0]).item()) - math.log(2 * math.pi) / 2


@KINDS
def test_a_noise_level_that_grew_is_that_of_s0_too(kind):
    likelihood = kind(n_s0=N_S0, learn=True)
    likelihood.log_factor.data.fill_(math.log(3))
    found = likelihood.s0_variance(torch.tensor([[0.1], [0.2]])).detach()
    torch.testing.assert_close(found, torch.tensor([0.3**2, 0.6**2]) / N_S0)


@KINDS
def test_the_likelihood_is_the_integral_over_s0(kind):
    model, voxels, z, _ = scene(kind)
    found = model.y_dist(z, voxels).log_prob(voxels.y)
    # Gaussian: closed form. Rician: quadratic in S0 to a hundredth of a nat
    atol = 1e-6 if kind is GaussianLikelihood else 0.02
    torch.testing.assert_close(found, integral(model, voxels, z), rtol=0, atol=atol)
    plain = model.likelihood.information(model.simulate(z, voxels), voxels.y, voxels.noise).log_prob.sum(-1)
    assert (found - plain).abs().max() > 0.5


@KINDS
def test_its_expansion_is_that_of_the_integral(kind):
    model, voxels, z, _ = scene(kind)
    found = expand(lambda u: model.simulate(u, voxels), model.likelihood, voxels, z)
    torch.testing.assert_close(found.value, model.y_dist(z, voxels).log_prob(voxels.y))
    at = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(integral(model, voxels, at).sum(), at)
    close = {"rtol": 1e-6, "atol": 1e-6} if kind is GaussianLikelihood else {"rtol": 0.05, "atol": 0.5}
    torch.testing.assert_close(found.gradient, gradient, **close)
    assert (torch.linalg.eigvalsh(found.information) > 0).all()


def test_its_information_is_that_of_correlated_noise():
    model, voxels, z, _ = scene(GaussianLikelihood)
    signal, slope = jacobian(lambda u: model.simulate(u, voxels), z)
    found = expand(lambda u: model.simulate(u, voxels), model.likelihood, voxels, z)
    shared = SIGMA**2 / N_S0 * signal.unsqueeze(-1) * signal.unsqueeze(-2)
    covariance = SIGMA**2 * torch.eye(signal.shape[-1], dtype=torch.float64) + shared
    torch.testing.assert_close(found.information, slope.mT @ torch.linalg.solve(covariance, slope))


@KINDS
def test_voxels_say_where_their_s0_was_missed(kind):
    model, voxels, z, kappa = scene(kind, n=4000)
    signal = model.simulate(z, voxels)
    told = model.likelihood.information(signal, voxels.y, voxels.noise)
    error = s0_error(signal, told.score, told.fisher, model.likelihood.s0_variance(voxels.noise))
    score = (kappa - 1 - error.shift) / error.variance.sqrt()
    # mean and sd of 4,000 normal scores: off by over 0.06 and 0.05 once in 10,000 seeds
    assert abs(score.mean()) < 0.06
    assert abs(score.std() - 1) < 0.05
    assert error.variance.max() < SIGMA**2 / N_S0


def test_samples_scatter_together():
    model, voxels, z, _ = scene(GaussianLikelihood)
    torch.manual_seed(0)
    y = model.y_dist(z, voxels).sample(torch.Size([20_000]))
    signal = model.simulate(z, voxels)
    centred = y - signal
    found = torch.einsum("snm,snk->nmk", centred, centred) / len(y)
    shared = SIGMA**2 / N_S0 * signal.unsqueeze(-1) * signal.unsqueeze(-2)
    wanted = SIGMA**2 * torch.eye(y.shape[-1], dtype=torch.float64) + shared
    # entries scatter by about sigma^2 sqrt(2 / 20,000) = 1 %; 5,760 of them stay within 6 %
    assert ((found - wanted).abs() / SIGMA**2).max() < 0.08


def test_repeats_that_are_compressed_know_it_too():
    acq = shells(0, 90, 1.0, 2.0, bvec=False)
    model = VoxelModel(BoundSignal(MSDKI, acq), StandardNormal(2), IdentityDecoder(2), RicianLikelihood(n_s0=3), SIGMA)
    assert model.short.active
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)) * 0.3 - 0.6
    y = rician(model.signal(model.signal.constrain(z)) * 1.05, SIGMA)
    short, plain = model.prepare(y), Voxels(y, torch.full((20, 1), SIGMA))
    found = model.y_dist(z, short).log_prob(y)
    told = model.likelihood.information(model.simulate(z, plain), y, plain.noise)
    gain = s0_error(model.simulate(z, plain), told.score, told.fisher, model.likelihood.s0_variance(plain.noise)).gain
    torch.testing.assert_close(found, told.log_prob.sum(-1) + gain, rtol=1e-4, atol=0.05)


def test_maximum_likelihood_carries_it_along():
    acq, theta = shells(2, 40, 1.0, 2.0, bvec=False), tissue(3000)
    y = rician(BoundSignal(MSDKI, acq)(theta), 0.025)
    fit = pq.fit(y, acq, signal="msdki", recipe="maximum_likelihood", sigma=0.025, progress=False)
    interval = fit.posterior(y).interval(0.9)
    for name in ("D", "K"):
        low, high = interval[name].unbind(-1)
        # standard error .005; with S0 taken as exact .70 and .88
        assert 0.87 < float(((low < theta[name]) & (theta[name] < high)).float().mean()) < 0.93


def test_the_mean_diffusivity_of_a_tensor_carries_it_along():
    acq, generator = shells(3, 30, 1.0), torch.Generator().manual_seed(0)
    sizes = torch.tensor([1.2, 0.3, 0.3]) + torch.tensor([0.5, 0.3, 0.2]) * torch.rand(3000, 3, generator=generator)
    turn = torch.linalg.qr(torch.randn(3000, 3, 3, generator=generator))[0]
    tensor = turn @ torch.diag_embed(sizes) @ turn.mT
    theta = {f"D{'xyz'[i]}{'xyz'[j]}": tensor[:, i, j] for i in range(3) for j in range(i, 3)}
    y = rician(BoundSignal(DTI, acq)(theta), 1 / 30)
    found = pq.fit(y, acq, signal="dti", recipe="least_squares", sigma=1 / 30, progress=False).posterior(y)
    low, high = found.interval(0.9)["MD"].unbind(-1)
    # standard error .005; with three b0s taken as exact the sd is a third too small
    assert 0.87 < float(((low < sizes.mean(-1)) & (sizes.mean(-1) < high)).float().mean()) < 0.93
