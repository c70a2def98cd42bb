"""The population where a normal posterior of each voxel narrows it: raised to the evidence by importance weights."""

import torch
from pyro import poutine
from torch import Tensor

from pyroqmri.decoders import IdentityDecoder
from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides.base import Guide
from pyroqmri.guides.structured import Structured
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.voxel_model import VoxelModel

STEPS, VOXELS, DRAWS = 40, 256, 64
_LR, _LAST_LR = 0.05, 0.005
_NEAR, _FAR = 1.25, 2.5  # times the guide's sd, half of the draws each


def can_refine(model: VoxelModel, guide: Guide) -> bool:
    """Whether the population is a point that is learned, of the parameters themselves, and the guide follows it."""
    prior = model.prior
    learned = any(p.requires_grad for p in prior.parameters()) and not prior.follows_draws
    own = not prior.looks_at_voxels and isinstance(model.decoder, IdentityDecoder)
    return learned and own and type(guide) is Structured


def refine_population(model: VoxelModel, guide: Guide, voxels: Voxels) -> None:
    r"""Climb the voxels' evidence in the population, in place.

    .. math:: \nabla \log p(y_n) = \sum_s w_{ns} \nabla \log p(z_{ns} \mid m, s, \Omega), \qquad
              w_{ns} \propto \frac{p(y_n \mid z_{ns})\, p(z_{ns} \mid m, s, \Omega)}{q(z_{ns})}

    The draws are those of the guide, widened, under the population of the moment. Near a bound the posterior of a voxel
    is skewed; the ELBO of a normal one then favours a population that is too narrow, and so do the maps.

    Parameters
    ----------
    model, guide
        The trained pair, for which :func:`can_refine` holds.
    voxels
        Training voxels as ``guide.prepare`` left them.
    """
    prior = model.prior
    optimizer = torch.optim.Adam(prior.parameters(), lr=_LR)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _LR * (_LAST_LR / _LR) ** (step / STEPS)
        some = torch.randint(len(voxels), (min(VOXELS, len(voxels)),), device=voxels.y.device)
        z, weights = _weighted(model, guide, voxels[some])
        density = (weights * prior.log_prob(z, prior.classes())).sum() / len(some)
        hyperprior = poutine.trace(prior.population).get_trace().log_prob_sum() / len(voxels)
        optimizer.zero_grad()
        (-density - hyperprior).backward()
        optimizer.step()


@torch.no_grad()
def _weighted(model: VoxelModel, guide: Guide, voxels: Voxels) -> tuple[Tensor, Tensor]:
    """Draws ``(S, N, L)`` of the voxels' posteriors and their weights ``(S, N)``, which sum to 1 in each voxel."""
    q = guide.z_dist(voxels)
    assert isinstance(q, GaussianMixture)
    logits = torch.cat([q.logits, q.logits], -1)
    wide = GaussianMixture(
        logits, torch.cat([q.loc, q.loc], -2), torch.cat([_NEAR * q.scale_tril, _FAR * q.scale_tril], -3)
    )
    z = wide.sample((DRAWS,))
    ratio = model.log_joint(z, voxels) - wide.log_prob(z)
    return z, ratio.nan_to_num(nan=-1e30).softmax(0)
