"""Voxels that are unlike the population whose values they are drawn towards."""

import torch
from torch import Tensor

from pyroqmri.decoders import IdentityDecoder
from pyroqmri.priors import GaussianPrior, Population
from pyroqmri.voxel_model import VoxelModel

LEAST = 0.1  # contraction along a direction of the latents; along others a voxel shows nothing of its own


def compared_latents(model: VoxelModel) -> list[int]:
    """Latents whose population is one learned Gaussian, but those in the scan's units; none for any other prior.

    An amplitude differs between voxels by the coils, which is no other tissue.
    """
    prior = model.prior
    learned = any(True for _ in prior.parameters()) and prior.is_written_by(GaussianPrior)
    if not learned or prior.looks_at_voxels or not isinstance(model.decoder, IdentityDecoder):
        return []
    if len(prior.classes().log_weights) > 1:
        return []
    return [i for i, p in enumerate(model.signal.tissue) if p.name not in model.signal.in_scan_units]


def unlike_population(z: Tensor, population: Population) -> Tensor:
    r"""p-value ``(n,)`` of the distance between voxels and the Gaussian population that they are drawn towards.

    With the posterior's mean and covariance :math:`\mu_n, P_n`, and the population's :math:`m, \Sigma`,

    .. math:: d_n^2 = (\mu_n - m)^\top (\Sigma - P_n)^{-1} (\mu_n - m)

    has the distribution of chi-squared over voxels of the population, exactly where the signal is linear. Directions of
    the latents along which the posterior is hardly narrower than the population count for nothing.

    Parameters
    ----------
    z
        Posterior draws of the latents that are compared ``(S, n, K)``.
    population
        One class of these latents, mean ``(1, K)`` and Cholesky factor ``(1, K, K)``.

    Source: Evans and Moshonov 2006, doi:10.1214/06-BA129, for checks of prior-data conflict.
    """
    tril = population.scale_tril[0].double()
    whitener = torch.linalg.inv(tril)
    mean = z.mean(0)
    offset = (z - mean).movedim(0, -1)
    covariance = (offset @ offset.mT / len(z)).double()
    mean = (mean.double() - population.loc[0].double()) @ whitener.mT
    contraction, axes = torch.linalg.eigh(torch.eye(len(tril)).to(covariance) - whitener @ covariance @ whitener.mT)
    seen = contraction > LEAST
    along = (axes.mT @ mean.unsqueeze(-1)).squeeze(-1).square() / contraction.clamp_min(LEAST)
    freedom = seen.sum(-1).double()
    p = torch.special.gammaincc(freedom.clamp_min(1) / 2, (along * seen).sum(-1) / 2)
    return torch.where(freedom > 0, p, torch.ones_like(p)).to(z)


def marginal(population: Population, latents: list[int]) -> Population:
    """The population of some of its latents."""
    some = population.scale_tril[:, latents]
    return Population(population.log_weights, population.loc[:, latents], torch.linalg.cholesky(some @ some.mT))
