"""Whether voxels show that their population has another shape than a single Gaussian."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyroqmri.guides.base import Guide
from pyroqmri.guides.population_refinement import Drawn, draw_latents, natural
from pyroqmri.laplace.mode import safe_cholesky
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population
from pyroqmri.voxel_model import VoxelModel

ROUNDS, AXES = 40, 3
PER_PARAMETER = 1.5  # nats in all voxels that each parameter of a second class gains; 0.5 where there is none
_SURE = 0.9  # share of a voxel that starts in its half


class TwoClasses(NamedTuple):
    """Two normal classes in place of one.

    Attributes
    ----------
    gain
        Nats per voxel by which they have more evidence; 0 where that may be chance.
    moved
        Whether the posterior mean of a latent would move by more than its sd in each voxel looked at ``(n,)``.
    """

    gain: float
    moved: Tensor


class _Raised(NamedTuple):
    """Mean log evidence of a voxel, and the weights ``(S, N)`` of its draws."""

    evidence: float
    weights: Tensor


@torch.no_grad()
def two_classes(model: VoxelModel, guide: Guide, some: Voxels) -> TwoClasses:
    """What two normal classes would change.

    Both populations are raised to the evidence of the same draws by expectation-maximisation. The second class starts
    from either half of the voxels along the axes on which they differ most. Twice the gain of a class that is not
    there has about the distribution of chi-squared with its number of parameters.

    Parameters
    ----------
    model, guide
        The trained pair, of one class, for which :func:`pyroqmri.guides.population_refinement.can_refine` holds.
    some
        Training voxels as ``guide.prepare`` left them, some hundreds.

    Source: McLachlan 1987, doi:10.2307/2347790, for the likelihood ratio of the number of classes.
    """
    now = model.prior.classes()
    own = draw_latents(model, guide, some, None).moments(now)
    drawn = draw_latents(model, guide, some, own)
    one = _raised(drawn, torch.ones(len(some), 1, dtype=torch.float64, device=some.y.device), now)
    two = max((_raised(drawn, half, now) for half in _halves(drawn, now)), key=lambda found: found.evidence)
    n, gain = len(drawn.centre), two.evidence - one.evidence
    chance = PER_PARAMETER * (1 + n + n * (n + 1) / 2) / len(some)
    moved = _moved(drawn, one.weights, two.weights)
    return TwoClasses(gain, moved) if gain > chance else TwoClasses(0.0, torch.zeros_like(moved))


def _moved(drawn: Drawn, one: Tensor, two: Tensor) -> Tensor:
    """Whether a voxel's mean of a latent under weights ``(S, N)`` moves by more than its sd under others ``(N,)``."""
    u = drawn.features[..., -len(drawn.centre) :]
    mean, other = ((weights.unsqueeze(-1) * u).sum(0) for weights in (one, two))
    sd = (one.unsqueeze(-1) * (u - mean).square()).sum(0).sqrt()
    return ((other - mean).abs() > sd).any(-1)


def _halves(drawn: Drawn, now: Population) -> list[Tensor]:
    """Where classes start: shares of voxels in two halves ``(N, 2)``, by each of the axes on which they differ most."""
    means = drawn.moments(now).loc[:, 0, : len(drawn.centre)].double()
    means = (means - means.mean(0)) / means.std(0).clamp_min(1e-6)
    axes = torch.linalg.svd(means, full_matrices=False).Vh[:AXES]
    upper = (means @ axes.mT > (means @ axes.mT).median(0).values).double()
    share = (1 - _SURE) / 2 + _SURE * upper
    return [torch.stack([each, 1 - each], -1) for each in share.unbind(-1)]


def _raised(drawn: Drawn, start: Tensor, now: Population) -> _Raised:
    """What draws show under classes that start with shares ``(N, C)`` of the voxels."""
    plain = drawn.log_weights(now).softmax(0)
    share, raised = plain.unsqueeze(-1) * start, _Raised(-math.inf, plain)
    for _ in range(ROUNDS):
        log_weights, each = drawn.weighted(natural(_classes(drawn, share), drawn.centre))
        found = float(log_weights.logsumexp(0).mean()) - math.log(len(drawn.rest))
        if not math.isfinite(found):
            return raised
        raised = _Raised(found, log_weights.softmax(0))
        share = raised.weights.unsqueeze(-1) * each.softmax(-1)
    return raised


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
