"""Fisher information of the measurements, against the range that a parameter plausibly has."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyroqmri.laplace.mode import Expansion, expand
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.bound import S0

_UNIFORM = 12**-0.5  # sd of a uniform distribution over its range


def plausible_sd(signal: BoundSignal, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each free scalar parameter is uncertain by without any data, each ``(N,)``, around values ``theta``.

    The sd of a uniform distribution over its range, or the value itself where that is less and cannot be zero: an
    error as large as T2 itself leaves it undetermined. A nuisance is known that well beforehand.
    """
    found = {}
    for p in signal.tissue:
        box = signal.box(p, theta)
        lower, upper = (p.lower, p.upper) if box is None else box
        sd = _UNIFORM * (upper - lower) * torch.ones_like(theta[p.name])
        found[p.name] = torch.minimum(sd, theta[p.name].abs()) if p.lower > 0 else sd
        if p.name in signal.signal.nuisance:
            found[p.name] = torch.full_like(sd, signal.signal.nuisance[p.name][1])
    return found


class Scaled(NamedTuple):
    """What data say of latents, in units of what each is plausibly uncertain by.

    Attributes
    ----------
    information
        Fisher information ``(N, L, L)``; an inferred S0 is let go wherever it fits best, its row and column are zero.
    unit
        The plausible sd of each latent ``(N, L)``.
    """

    information: Tensor
    unit: Tensor


def expanded(signal: BoundSignal, likelihood: Likelihood, z: Tensor, frame: Tensor | None, voxels: Voxels) -> Expansion:
    """The log-likelihood of voxels' measurements to second order around latents ``(N, L)``; no prior is counted."""
    return expand(
        lambda u: signal(signal.constrain(u, frame), voxels.inputs),
        likelihood,
        voxels,
        z,
        lambda u: signal.unconstrained_slopes(u, frame, voxels.inputs),
    )


def scaled_information(
    signal: BoundSignal, likelihood: Likelihood, z: Tensor, frame: Tensor | None, voxels: Voxels
) -> Scaled:
    """What voxels' measurements, and no prior, say of latents ``(N, L)``; the error of a measured S0 is counted."""
    theta = signal.constrain(z, frame)
    found = expanded(signal, likelihood, z, frame, voxels).information
    unit, plausible = torch.ones_like(z), plausible_sd(signal, theta)
    for i, p in enumerate(signal.tissue):
        unit[:, i] = plausible[p.name] / p.slope(z[:, i], signal.box(p, theta))
    found = found * unit.unsqueeze(-1) * unit.unsqueeze(-2)
    s0 = next((i for i, p in enumerate(signal.tissue) if p.name == S0.name), None)
    return Scaled(without(found, s0), unit)


def without(found: Tensor, i: int | None) -> Tensor:
    """Information ``(N, L, L)`` with coordinate ``i`` a nuisance, whose row and column are then zero."""
    if i is None:
        return found
    across = found[:, :, i]
    return found - across.unsqueeze(-1) * across.unsqueeze(-2) / found[:, i, i, None, None].clamp_min(1e-30)


def left_uncertain(found: Tensor) -> Tensor:
    """Share ``(N, L)`` of each parameter's plausible sd that data of that information leave: 1 where they say nothing.

    With r the Cramer-Rao sd over the plausible one it is r / sqrt(1 + r^2) for a parameter by itself.
    """
    return covariance(found).diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()


def covariance(found: Tensor) -> Tensor:
    """Covariance ``(N, L, L)``, in units of the plausible sds, once the data are counted."""
    identity = torch.eye(found.shape[-1], dtype=found.dtype, device=found.device)
    return torch.linalg.inv(found + identity)
