"""How well voxels determine a population, and populations from its posterior where they leave it open."""

import torch
from pyro import poutine
from torch import Tensor, nn

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.guides.base import Guide
from pyroqmri.guides.over_population import over_population
from pyroqmri.guides.population_refinement import Drawn, draw_latents, evenly, natural
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Prior
from pyroqmri.priors.base import POPULATIONS
from pyroqmri.voxel_model import VoxelModel

VOXELS = 1000
LEAST = 1.0  # eigenvalue of the precision: coordinates of a population are of the size of one
WIDER = 1.02  # times the sd, of the parameter that gains most: less than that is not worth the work


def spread_population(model: VoxelModel, guide: Guide, voxels: Voxels) -> None:
    r"""Give the prior populations from the posterior of the population, where this widens the maps.

    That posterior is taken for normal in the prior's parameters :math:`\phi`, with the precision

    .. math:: \sum_n g_n g_n^\top - \nabla^2 \log p(\phi), \qquad
              g_n = \nabla_\phi \log p(y_n \mid \phi) = \sum_s w_{ns} \nabla_\phi \log p(z_{ns} \mid \phi)

    Source: Meilijson 1989, doi:10.1111/j.2517-6161.1989.tb01754.x, for the information from scores.

    Parameters
    ----------
    model, guide
        The trained pair, for which :func:`pyroqmri.guides.population_refinement.can_refine` holds.
    voxels
        Training voxels as ``guide.prepare`` left them.
    """
    prior, some = model.prior, evenly(voxels, VOXELS)
    scores = _scores(prior, draw_latents(model, guide, some, None))
    precision = scores.T @ scores * (len(voxels) / len(some)) + _curvature(prior)
    values, vectors = torch.linalg.eigh((precision + precision.T) / 2)
    root = vectors / values.clamp_min(LEAST).sqrt()
    points = normal_points(POPULATIONS // 2, len(root), seed=0)[:, 1:].to(root)
    prior.drawn = (torch.cat([points, -points]) @ root.T).to(voxels.y).contiguous()
    if _gain(model, guide, some) < WIDER:
        prior.sharpen()


@torch.no_grad()
def _gain(model: VoxelModel, guide: Guide, voxels: Voxels) -> float:
    """Factor on the sd of the median voxel, of the latent that gains most."""
    q = guide.z_dist(voxels)
    assert isinstance(q, GaussianMixture)
    wide = over_population(q, model.prior.classes(), model.prior.populations())
    return float((wide.variance / q.variance).sqrt().median(0).values.max())


def _scores(prior: Prior, drawn: Drawn) -> Tensor:
    """Gradient of each voxel's log evidence in the prior's parameters ``(N, d)``, in float64."""
    population = prior.classes()
    coefficients = natural(population, drawn.centre)
    with torch.no_grad():
        log_weights, each = drawn.weighted(coefficients)
        share = (log_weights.softmax(0).unsqueeze(-1) * each.softmax(-1)).movedim(0, 1)  # (N, S, C)
        ones = torch.ones_like(drawn.features[..., :1])
        moments = share.mT @ torch.cat([drawn.features, ones], -1).movedim(0, 1)  # (N, C, F + 1)
    parameters = list(prior.parameters())
    rows = []
    for coefficient in coefficients.flatten():
        slopes = torch.autograd.grad(coefficient, parameters, retain_graph=True, allow_unused=True)
        full = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, slopes, strict=True)]
        rows.append(nn.utils.parameters_to_vector(full))
    return moments.flatten(1) @ torch.stack(rows).double()


def _curvature(prior: Prior) -> Tensor:
    """Minus the second derivative of the log hyperprior in the prior's parameters ``(d, d)``, in float64."""
    parameters = list(prior.parameters())
    density = torch.as_tensor(poutine.trace(prior.population).get_trace().log_prob_sum())
    slopes = torch.autograd.grad(density, parameters, create_graph=True, allow_unused=True)
    rows = []
    for p, slope in zip(parameters, slopes, strict=True):
        for one in (torch.zeros_like(p) if slope is None else slope).flatten():
            second = [None] * len(parameters)
            if one.requires_grad:
                second = torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
            full = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, second, strict=True)]
            rows.append(nn.utils.parameters_to_vector(full))
    return -torch.stack(rows).double()
