"""Voxels whose measurements leave a parameter open."""

import copy
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from pyroqmri.laplace.start import CHUNK
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import Parameter
from pyroqmri.protocol_checks.information import left_uncertain, plausible_sd, scaled_information
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.bound import S0

_LEFT = 0.9  # share of the plausible sd that is left: the Cramer-Rao bound is twice it
_HALF, _NO_NARROWER = 0.5, 0.1  # the same where, besides, the posterior is no narrower than the population
_LITTLE_NARROWER = 0.89  # contraction of a posterior with a third of the sd of a population that has another shape
_SD = 1.5  # plausible sds of an estimate that no population helps
_ENDS = 2.0  # sds from the rate of a relaxation time to that of its upper bound: nearer, no decay was seen


@torch.no_grad()
def weakly_informed(
    signal: BoundSignal,
    likelihood: Likelihood,
    voxels: Voxels,
    theta: dict[str, Tensor],
    contraction: Mapping[str, Tensor] = MappingProxyType({}),
    other_shape: bool = False,
) -> Tensor:
    """Whether the data leave some parameter as uncertain as no data would, at estimates ``theta`` ``(n,)`` bool.

    A population that is narrow for good reasons (a uniform phantom) is no narrower in its voxels either: a posterior
    with no contraction counts where the data alone leave more than half of the plausible sd.

    Parameters
    ----------
    theta
        Physical parameters of the voxels in the model's units, each ``(n,)``, a direction ``(n, 3)``.
    contraction
        From the population to the posterior, by parameter ``(n,)``; empty without a population.
    other_shape
        Whether the population's shape is known to be wrong: a posterior that keeps a third of its sd rests on that.
    """
    enough = _LITTLE_NARROWER if other_shape else _NO_NARROWER
    signal, likelihood = copy.deepcopy(signal).cpu().double(), copy.deepcopy(likelihood).cpu().double()
    unjudged = {S0.name, *signal.signal.nuisance}
    scalars = [i for i, p in enumerate(signal.tissue) if p in signal.always and p.name not in unjudged]
    found = [torch.zeros(0, dtype=torch.bool)]
    for i in range(0, len(voxels), CHUNK):
        part = voxels[i : i + CHUNK].map(lambda t: t.double())
        here = {name: value[i : i + CHUNK].double() for name, value in theta.items()}
        z, frame = signal.at_axes(signal.unconstrain(here), here)
        left = left_uncertain(scaled_information(signal, likelihood, z, frame, part).information)
        limit = torch.full_like(left, _LEFT)
        for j, p in enumerate(signal.tissue):
            if p.name in contraction:
                limit[:, j] = torch.where(contraction[p.name][i : i + CHUNK] < enough, _HALF, _LEFT)
        found.append((left[:, scalars] > limit[:, scalars]).any(-1))
    return torch.cat(found)


def loosely_estimated(
    signal: BoundSignal, theta: dict[str, Tensor], sd: dict[str, Tensor], endless: bool = True
) -> Tensor:
    """The same ``(n,)`` of estimates whose sd ``(n,)`` is that of the data and of bounds, no prior.

    Relaxation times that may be as long as their bound count where ``endless``.
    """
    plausible = plausible_sd(signal, theta)
    unjudged = {S0.name, *signal.signal.nuisance}
    over = [sd[p.name] > _SD * plausible[p.name] for p in signal.always if p.name not in unjudged]
    times = [p for p in signal.always if p.unit == "ms" and p.name not in unjudged]
    # of two pools the time of the smaller one is loose wherever its fraction is small
    if endless and len(times) == 1:
        over.append(_may_be_endless(times[0], theta[times[0].name], sd[times[0].name]))
    return torch.stack(over).any(0)


def _may_be_endless(p: Parameter, time: Tensor, sd: Tensor) -> Tensor:
    """Whether a relaxation time ``(n,)`` may be as long as its bound.

    Noise makes its rate, not the time, err to both sides: where the scan shows no decay, half of the voxels have a time
    that looks short and an sd below it.
    """
    return 1 / time - 1 / p.upper < _ENDS * sd / time.square()
