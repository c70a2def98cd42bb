"""Whether voxels show that their population has another shape than a single Gaussian."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyroqmri.guides.base import Guide
from pyroqmri.guides.population_refinement import Drawn, draw_latents, evenly, natural
from pyroqmri.laplace.mode import safe_cholesky
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population
from pyroqmri.voxel_model import VoxelModel

VOXELS, ROUNDS, AXES = 600, 40, 3
PER_PARAMETER = 1.5  # nats in all voxels that each parameter of a second class gains; 0.5 where there is none
_SURE = 0.9  # share of a voxel that starts in its half


class TwoClasses(NamedTuple):
    """What two normal classes change beside one.

    Attributes
    ----------
    gain
        Nats per voxel of evidence; 0 where that may be chance.
    shift
        By which each tissue latent's posterior mean moves, root mean square over voxels, in its posterior sds.
    """

    gain: float
    shift: list[float]


@torch.no_grad()
def two_classes(model: VoxelModel, guide: Guide, voxels: Voxels) -> TwoClasses:
    """Compare one normal class with two, by the evidence of some voxels.

    Both populations are raised to the evidence of the same draws by expectation-maximisation. The second class starts
    from either half of the voxels along the axes on which they differ most. Twice the gain of a class that is not
    there has about the distribution of chi-squared with its number of parameters.

    Parameters
    ----------
    model, guide
        The trained pair, of one class, for which :func:`pyroqmri.guides.population_refinement.can_refine` holds.
    voxels
        Training voxels as ``guide.prepare`` left them; 600 of them are looked at.

    Source: McLachlan 1987, doi:10.2307/2347790, for the likelihood ratio of the number of classes.
    """
    some, now = evenly(voxels, VOXELS), model.prior.classes()
    own = draw_latents(model, guide, some, None).moments(now)
    drawn = draw_latents(model, guide, some, own)
    one = _raised(drawn, torch.ones(len(some), 1, dtype=torch.float64, device=some.y.device), now)
    two = max((_raised(drawn, half, now) for half in _halves(drawn, now)), key=drawn.evidence)
    n, gain = len(drawn.centre), float(drawn.evidence(two) - drawn.evidence(one))
    before, after = (drawn.moments(classes) for classes in (one, two))
    shift = ((after.loc - before.loc) / before.component_sd()).square().mean((0, 1)).sqrt()
    chance = PER_PARAMETER * (1 + n + n * (n + 1) / 2) / len(some)
    return TwoClasses(gain if gain > chance else 0.0, shift[:n].tolist())


def _halves(drawn: Drawn, now: Population) -> list[Tensor]:
    """Where classes start: shares of voxels in two halves ``(N, 2)``, by each of the axes on which they differ most."""
    means = drawn.moments(now).loc[:, 0, : len(drawn.centre)].double()
    means = (means - means.mean(0)) / means.std(0).clamp_min(1e-6)
    axes = torch.linalg.svd(means, full_matrices=False).Vh[:AXES]
    upper = (means @ axes.mT > (means @ axes.mT).median(0).values).double()
    share = (1 - _SURE) / 2 + _SURE * upper
    return [torch.stack([each, 1 - each], -1) for each in share.unbind(-1)]


def _raised(drawn: Drawn, start: Tensor, now: Population) -> Population:
    """Classes raised to the evidence of the draws, from shares ``(N, C)`` of the voxels on."""
    share = drawn.log_weights(now).softmax(0).unsqueeze(-1) * start
    classes = _classes(drawn, share)
    for _ in range(ROUNDS):
        log_weights, each = drawn.weighted(natural(classes, drawn.centre))
        share = log_weights.softmax(0).unsqueeze(-1) * each.softmax(-1)
        classes = _classes(drawn, share)
    return classes


def _classes(drawn: Drawn, share: Tensor) -> Population:
    """The classes of draws that belong to them by shares ``(S, N, C)``."""
    n = len(drawn.centre)
    flat = share.flatten(0, 1)
    total = flat.sum(0).clamp_min(1e-12)
    moments = flat.mT @ drawn.features.flatten(0, 1) / total.unsqueeze(-1)
    i, j = torch.tril_indices(n, n, device=flat.device)
    second = moments.new_zeros(len(total), n, n)
    second[:, i, j] = second[:, j, i] = moments[:, :-n]
    loc = moments[:, -n:]
    tril = safe_cholesky(second - loc.unsqueeze(-1) * loc.unsqueeze(-2))
    return Population((total / total.sum()).log(), loc + drawn.centre, tril)
