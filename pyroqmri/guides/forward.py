"""Guides for a prior that is fixed: trained by forward KL on simulations from that prior."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.guides.base import Guide, perceptron, tril_from
from pyroqmri.guides.features import Features
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.voxel_model import VoxelModel, voxel_plate

SPREAD = 0.1  # simulated noise levels reach a tenth beyond the data's on the log scale


class ForwardMixture(Guide):
    r"""A mixture of normals around each voxel's own mode, trained by forward KL.

    With the mode :math:`\hat u` under the uniform prior of the box and the factor T of its covariance,

    .. math:: q(z \mid y) = \sum_k \pi_k(y)\, \mathcal N\big(\hat u + T o_k(y), \; T R_k(y) R_k(y)^\top T^\top\big)

    The objective is :math:`-\mathbb E_{p(z)\, p(y \mid z)} \log q(z \mid y)` on simulations from the pair's own model
    at the noise levels of the training voxels: least where q is the posterior, and never too narrow, because every
    truth that q misses is paid for. It needs no measurement, so nothing of the model can be learned by it.

    Parameters
    ----------
    model
        The voxel model of the pair.
    n_measurements
        Length of a voxel's measurements.
    width, depth
        Of the hidden layers.
    components
        Normals in the mixture.
    simulations
        Simulated voxels to train on.

    Raises
    ------
    InputError
        When something of the model is to be learned, or its latents are not the physical parameters.

    Source: neural posterior estimation, Papamakarios and Murray 2016, arXiv:1605.06376.
    """

    needs_mode = True
    maximises_elbo = False  # the loss is a forward KL

    def __init__(
        self,
        model: VoxelModel,
        n_measurements: int,
        width: int = 64,
        depth: int = 2,
        components: int = 6,
        simulations: int = 50_000,
    ) -> None:
        super().__init__(model)
        if not model.is_identity:
            raise InputError("a forward-KL guide needs the identity decoder: a network's latents have no mode")
        if any(p.requires_grad for part in (model.prior, model.likelihood) for p in part.parameters()):
            raise InputError(
                "a forward-KL guide learns from simulations alone, which carry no information on a population or noise "
                "factor: use prior standard_normal and a known sigma, or guide structured"
            )
        n = model.n_latents
        self.components, self.simulations = components, simulations
        self.features = Features(0 if model.has_direction else n_measurements, n)
        self.context = Context(len(model.signal.signal.inputs))
        n_out = components * (1 + n + n * (n + 1) // 2)
        self.network = perceptron(self.features.size + self.context.size, width, depth, n_out, last_scale=0.01)
        self.apart = nn.Parameter(0.5 * torch.randn(components, n) * (components > 1))

    def start(self, voxels):
        self.features.fit(voxels)

    @torch.no_grad()
    def training_set(self, voxels):
        """Simulations from the model at the noise levels and inputs of ``voxels``, which are not used otherwise."""
        simulated = simulations(self.model, self.prepare, voxels, self.simulations)
        self.features.fit(simulated)
        self.context.fit(simulated)
        return simulated

    def objective(self, n_particles: int = 1) -> Callable[..., Tensor]:
        return forward_kl

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample the latents: the Pyro program."""
        voxels = self.prepare(y)
        q = self.z_dist(voxels)
        with voxel_plate(len(voxels), size, voxels.y.device):
            pyro.sample("z", q)

    def z_dist(self, voxels):
        assert voxels.mode is not None and voxels.scale_tril is not None
        out = self.network(torch.cat([self.features(voxels), self.context(voxels)], -1))
        n = self.model.n_latents
        out = out.unflatten(-1, (self.components, -1))
        tril = voxels.scale_tril.unsqueeze(-3)
        loc = voxels.mode.unsqueeze(-2) + (tril @ (self.apart + out[..., 1 : n + 1]).unsqueeze(-1)).squeeze(-1)
        return GaussianMixture(out[..., 0], loc, tril @ tril_from(out[..., n + 1 :], n))


class ForwardGaussian(ForwardMixture):
    """One normal around each voxel's own mode, trained by forward KL.

    Wide enough to be repaired: its draws are meant to be reweighted (``[posterior] reweight``).

    Parameters
    ----------
    model, n_measurements, width, depth, simulations
        As in :class:`ForwardMixture`.
    """

    def __init__(
        self, model: VoxelModel, n_measurements: int, width: int = 64, depth: int = 2, simulations: int = 50_000
    ) -> None:
        super().__init__(model, n_measurements, width, depth, 1, simulations)


class Context(nn.Module):
    """Standardised log noise level and inputs of the signal ``(N, 1 + I)``: what a posterior also depends on."""

    loc: Tensor
    scale: Tensor

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.size = 1 + n_inputs
        self.register_buffer("loc", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def raw(self, voxels: Voxels) -> Tensor:
        """The columns before they are standardised."""
        return torch.cat([voxels.noise.log(), *(v.unsqueeze(-1) for v in voxels.inputs.values())], -1)

    @torch.no_grad()
    def fit(self, voxels: Voxels) -> None:
        """Take location and scale from voxels."""
        raw = self.raw(voxels)
        self.loc.copy_(raw.mean(0))
        self.scale.copy_(raw.std(0).clamp_min(1e-2))

    def forward(self, voxels: Voxels) -> Tensor:
        return ((self.raw(voxels) - self.loc) / self.scale).clamp(-5, 5)


def simulations(model: Any, prepare: Callable[[Voxels], Voxels], like: Voxels, n: int) -> Voxels:
    """``n`` prepared voxels drawn from the model itself, with the latents they were made from as ``truth``.

    Noise levels and inputs are those of voxels of ``like``, picked at random.
    """
    pick = torch.randint(len(like), (n,), device=like.y.device)
    sigma = like.noise[pick]
    sigma = sigma * (SPREAD * (2 * torch.rand_like(sigma) - 1)).exp()
    frame = torch.eye(3, device=like.y.device).expand(n, 3, 3) if model.has_direction else None
    blank = Voxels(like.y[pick], sigma, frame, {k: v[pick] for k, v in like.inputs.items()})
    trace = poutine.trace(poutine.uncondition(model)).get_trace(blank)
    z, y = trace.nodes["z"]["value"], trace.nodes["y"]["value"]
    assert z is not None
    found = prepare(replace(blank, y=y, frame=None))
    if model.has_direction:
        assert found.frame is not None
        direction = model.signal.direction
        axis = direction.constrain(z[..., -direction.n_latents :], frame)
        z = torch.cat([z[..., : -direction.n_latents], axis_coordinates(axis, found.frame)], -1)
    return replace(found, truth=z)


def axis_coordinates(axis: Tensor, frame: Tensor) -> Tensor:
    """Latents ``(..., 2)`` of axes ``(..., 3)`` in frames ``(..., 3, 3)``: the inverse of ``Direction.constrain``."""
    c, e = (frame @ axis.unsqueeze(-1)).squeeze(-1).split([1, 2], -1)
    e = torch.where(c < 0, -e, e)
    c = c.abs().clamp(1e-12, 1)
    # |s|^2 = -2 log c; near the axis itself it is |e|^2, which float32 knows better
    near = e.square().sum(-1, keepdim=True)
    squared = torch.where(near < 1e-2, -torch.log1p(-near), -2 * c.log())
    return e * (squared / near.clamp_min(1e-20)).sqrt()


def forward_kl(model: VoxelModel, guide: Guide, voxels: Voxels, size: int | None = None) -> Tensor:
    """Minus the log-density of the truth under the guide, of simulated voxels that stand for ``size``."""
    assert voxels.truth is not None, "forward KL needs simulated voxels: take guide.training_set"
    scale = 1.0 if size is None else size / len(voxels)
    return -guide.z_dist(voxels).log_prob(voxels.truth).sum() * scale
