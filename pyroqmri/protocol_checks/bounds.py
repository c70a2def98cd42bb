"""Estimates at a bound: whether noise put them there, or data that ask for a value beyond it."""

import copy

import torch
from torch import Tensor

from pyroqmri.laplace.start import CHUNK
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.protocol_checks.information import expanded
from pyroqmri.signals import BoundSignal

_SURE = 2.0  # standard deviations of the score: noise alone reaches them in 2.3 % of the estimates at a bound


@torch.no_grad()
def beyond_bounds(
    signal: BoundSignal, likelihood: Likelihood, voxels: Voxels, theta: dict[str, Tensor], at_bound: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Whether the data ask for a value beyond the bound at which an estimate lies, each ``(n,)`` bool.

    This is Rao's score test of the bound. Where little is known of a parameter, noise alone puts many estimates at a
    bound, but the slope of their likelihood stays within its own scatter.

    Parameters
    ----------
    theta
        Physical parameters of the voxels in the model's units, each ``(n,)``, a direction ``(n, 3)``.
    at_bound
        Whether each free parameter lies at one of its bounds, each ``(n,)`` bool; those left out do not.
    """
    signal, likelihood = copy.deepcopy(signal).cpu().double(), copy.deepcopy(likelihood).cpu().double()
    nowhere = torch.zeros(len(voxels), dtype=torch.bool)
    held = torch.stack([at_bound.get(p.name, nowhere) for p in signal.tissue], -1)
    found = torch.zeros_like(held)
    some = held.any(-1).nonzero().squeeze(-1)
    for index in some.split(CHUNK):
        here = {name: value[index].double() for name, value in theta.items()}
        part = voxels.map(lambda t, index=index: t[index].double())
        found[index] = held[index] & (_push(signal, likelihood, part, here, held[index]) > _SURE)
    return {p.name: found[:, i] for i, p in enumerate(signal.tissue)}


def _push(
    signal: BoundSignal, likelihood: Likelihood, voxels: Voxels, theta: dict[str, Tensor], held: Tensor
) -> Tensor:
    """Slope of the log-likelihood towards each scalar's nearer bound, in its standard deviations ``(n, P)``."""
    z, frame = signal.at_axes(signal.unconstrain(theta), theta)
    n = signal.n_tissue
    found = expanded(signal, likelihood, z, frame, voxels)
    # what the free coordinates, which lie where they fit best, could absorb; those at their bounds absorb nothing
    free = torch.cat([~held, held.new_ones(len(z), z.shape[-1] - n)], -1).to(z)
    scale = found.information.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()
    unit = found.information * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    among = unit * free.unsqueeze(-1) * free.unsqueeze(-2) + torch.diag_embed(1 - free + 1e-9)
    across = unit * free.unsqueeze(-1)  # free coordinates down, all of them across
    left = 1 - (across * torch.linalg.solve(among, across)).sum(-2)
    outward = torch.where(z > 0, 1.0, -1.0)
    return (outward * found.gradient * scale / left.clamp_min(1e-6).sqrt())[:, :n]
