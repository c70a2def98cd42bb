"""Posteriors of voxels with the error of the population averaged over."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.laplace.mode import inverse_tril, safe_cholesky
from pyroqmri.priors import Population


def over_population(q: GaussianMixture, now: Population, drawn: Sequence[Population]) -> GaussianMixture:
    r"""Normals with the mean and the covariance of each voxel's posterior over populations.

    A normal posterior :math:`\mathcal N(\mu, P^{-1})` under a class :math:`\mathcal N(m, C^{-1})` is that under another
    one :math:`\mathcal N(m_k, C_k^{-1})` for

    .. math:: P_k = P - C + C_k, \qquad P_k \mu_k = P \mu - C m + C_k m_k

    exactly where the signal is linear. What is returned has the mean and the covariance over all k.

    Parameters
    ----------
    q
        Posteriors under ``now``, batch ``(N,)``; components follow one another as the classes do, once or more.
    now
        The population that they are under.
    drawn
        Populations from the posterior of the population, each as likely as another; none change nothing.
    """
    if not drawn:
        return q
    n_classes, n_components = len(now.log_weights), q.logits.shape[-1]
    which = torch.arange(n_components, device=q.loc.device) % n_classes
    precision, before = _precision(q.scale_tril), _natural(now, which)
    pull = (precision @ q.loc.unsqueeze(-1)).squeeze(-1)
    first, second = torch.zeros_like(q.loc), torch.zeros_like(precision)
    for population in drawn:
        after = _natural(population, which)
        changed = precision - before[0] + after[0]
        # a posterior that is wider than the class itself has no likelihood to go with another class: it stays
        valid = torch.linalg.cholesky_ex(changed)[1] == 0
        tril = inverse_tril(torch.where(valid[..., None, None], changed, precision))
        moved = (tril @ (tril.mT @ (pull - before[1] + after[1]).unsqueeze(-1))).squeeze(-1)
        offset = torch.where(valid.unsqueeze(-1), moved, q.loc) - q.loc
        first += offset / len(drawn)
        second += (tril @ tril.mT + offset.unsqueeze(-1) * offset.unsqueeze(-2)) / len(drawn)
    covariance = second - first.unsqueeze(-1) * first.unsqueeze(-2)
    return GaussianMixture(q.logits, q.loc + first, safe_cholesky(covariance))


def _precision(tril: Tensor) -> Tensor:
    unit = torch.eye(tril.shape[-1], dtype=tril.dtype, device=tril.device).expand_as(tril)
    inverse = torch.linalg.solve_triangular(tril, unit, upper=False)
    return inverse.mT @ inverse


def _natural(population: Population, which: Tensor) -> tuple[Tensor, Tensor]:
    """Precisions ``(C, L, L)`` of classes, and their products with the means ``(C, L)``."""
    precision = _precision(population.scale_tril)
    return precision[which], (precision @ population.loc.unsqueeze(-1)).squeeze(-1)[which]
