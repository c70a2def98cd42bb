r"""A region's own population: draws of its voxels jointly, when the region's tissue has a mean and spread of its own.

Voxels of a fit are drawn towards the population that all scans share, each by a little and all of a region in the
same direction, so a mean over them is biased towards it by more than its sd says. Here draws :math:`z` of each voxel
are put under a region's own :math:`\mathcal N(m, C)` by weights :math:`\mathcal N(z; m, C) / p(z)`, with :math:`p` the
shared population, and a Gibbs sampler alternates between them and :math:`m` (flat prior), :math:`C` (inverse Wishart,
weakly around the shared classes').
"""

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture

BURN = 50


def gibbs_choices(z: Tensor, shared: GaussianMixture, log_shared: Tensor, n: int) -> Tensor:
    """Which of each voxel's draws ``(S, N, L)`` stand for it in ``n`` draws of the whole region: ``(n, N)``.

    ``log_shared`` ``(S, N)`` is the log-density of the draws under the shared population, ``shared`` its classes.
    Draws from the global generator.
    """
    z = z.double()
    n_voxels, size = z.shape[1:]
    shared = GaussianMixture(shared.logits.double(), shared.loc.double(), shared.scale_tril.double())
    log_shared = log_shared.double()
    freedom, scale = _weak(z, shared)
    u = z.mean(0)
    chosen = []
    for step in range(BURN + n):
        middle = u.mean(0)
        scatter = scale + (u - middle).mT @ (u - middle)
        tril = _inverse_wishart(freedom + n_voxels - 1, scatter)
        mean = middle + tril @ torch.randn(size).to(z) / n_voxels**0.5
        white = torch.linalg.solve_triangular(tril, (z - mean).reshape(-1, size).mT, upper=False)
        weight = -0.5 * white.square().sum(0).view(z.shape[:2]) - log_shared
        # the largest of log weights with Gumbel noise is a draw in proportion to the weights
        pick = (weight - torch.rand_like(weight).clamp_min(1e-300).log().neg().log()).argmax(0)
        u = z[pick, torch.arange(n_voxels)]
        if step >= BURN:
            chosen.append(pick)
    return torch.stack(chosen)


def _weak(z: Tensor, shared: GaussianMixture) -> tuple[float, Tensor]:
    """Degrees of freedom and scale of an inverse Wishart whose mean is the spread within the draws' classes."""
    size = z.shape[-1]
    weights = shared.responsibilities(z.reshape(-1, size)).mean(0)
    within = (weights[:, None, None] * shared.scale_tril @ shared.scale_tril.mT).sum(0)
    return size + 2.0, within


def _inverse_wishart(freedom: float, scale: Tensor) -> Tensor:
    """Cholesky factor of a draw, by Bartlett's decomposition."""
    size = len(scale)
    root = torch.linalg.cholesky(torch.linalg.inv(scale))
    chi = torch.distributions.Chi2(torch.tensor([freedom - i for i in range(size)]).to(scale)).sample().sqrt()
    bartlett = root @ (torch.randn(size, size).to(scale).tril(-1) + torch.diag(chi))
    # the inverse of a product of lower factors times its transpose
    inverse = torch.linalg.inv(bartlett)
    return torch.linalg.cholesky(inverse.mT @ inverse)
