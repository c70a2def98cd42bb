"""A population that is learned from all voxels."""

import pyro
import torch
from pyro.distributions import HalfCauchy, LKJCholesky, Normal  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor, nn

from pyroqmri.priors.base import GaussianPrior, Population


class Hierarchical(GaussianPrior):
    r"""Learned population mean and full covariance of the latents.

    .. math:: m \sim \mathcal N(0, 1), \quad s \sim \mathrm{HalfCauchy}(1), \quad \Omega \sim \mathrm{LKJ}(1),
              \quad z_n \sim \mathcal N(m, \mathrm{diag}(s)\, \Omega\, \mathrm{diag}(s))

    or, for parameters of which something is expected (:meth:`expect`), :math:`m \sim \mathcal N(\mu, \tau^2)` and
    :math:`\log s \sim \mathcal N(\lambda, \kappa^2)`. The population is point-estimated: its hyperpriors enter the
    objective as a factor, which thousands of voxels outweigh. Where voxels leave it open, maps are averaged over
    populations from its approximate posterior. :class:`FullHierarchical` has a posterior of it in the training.
    Latents whose log sd is expected without any error have a population that is known: it is not learned, and
    correlates with no other.

    Parameters
    ----------
    n_tissue, n_direction
        Latents that are learned about, and latents of a direction.
    sd
        Population standard deviation to start from.

    Source: the model of Orton et al. 2014, doi:10.1002/mrm.24649, with proper hyperpriors.
    """

    expected: Tensor

    def __init__(self, n_tissue: int, n_direction: int = 0, sd: float = 0.5) -> None:
        super().__init__()
        self.n_tissue = n_tissue
        self.n_latents = n_tissue + n_direction
        self.loc = nn.Parameter(torch.zeros(n_tissue))
        self.log_sd = nn.Parameter(torch.full((n_tissue,), sd).log())
        self.off_diagonal = nn.Parameter(torch.zeros(n_tissue * (n_tissue - 1) // 2))
        self.register_buffer("expected", torch.full((4, n_tissue), torch.nan), persistent=False)

    def expect(self, expected: Tensor) -> None:
        """Take hyperpriors of the latents' means and log sds ``(4, P)``: mean, sd, mean, sd; NaN where none is.

        Where the last one is zero the population is known.
        """
        self.expected = expected.to(self.loc)

    @property
    def known(self) -> Tensor:
        """The latents whose population is not learned ``(P,)`` bool."""
        return self.expected[3] == 0

    def correlation_tril(self) -> Tensor:
        """Cholesky factor of the population's correlations ``(P, P)``."""
        i, j = torch.tril_indices(self.n_tissue, self.n_tissue, -1, device=self.loc.device)
        return correlation_tril(self.off_diagonal * ~(self.known[i] | self.known[j]), self.n_tissue)

    def population(self):
        pyro.factor("hyperprior", hyperprior(self.loc, self.log_sd.exp(), self.correlation_tril(), self.expected))
        return self.classes()

    def classes(self):
        loc = torch.where(self.known, self.expected[0], self.loc)
        log_sd = torch.where(self.known, self.expected[2], self.log_sd)
        return population_of(loc, log_sd.exp(), self.correlation_tril(), self.n_latents)

    @torch.no_grad()
    def start(self, modes):
        """Start from the median and spread of the voxels' modes."""
        self.loc.copy_(modes.median(0).values)
        spread = (modes.quantile(0.84, 0) - modes.quantile(0.16, 0)) / 2
        self.log_sd.copy_(spread.clamp(0.05, 1).log())

    @torch.no_grad()
    def update(self, weights, loc, covariance):
        """Set the population mean ``(1, P)`` and covariance ``(1, P, P)``."""
        self.sharpen()
        sd = covariance[0].diagonal().sqrt()
        self.loc.copy_(loc[0])
        self.log_sd.copy_(sd.log())
        self.off_diagonal.copy_(correlation_coordinates(covariance[0] / sd.unsqueeze(-1) / sd))


def population_of(loc: Tensor, sd: Tensor, corr: Tensor, n_latents: int) -> Population:
    """One class, of the tissue's mean ``(P,)``, sd ``(P,)`` and correlation factor ``(P, P)``; axes stay uniform."""
    n = len(loc)
    tril = torch.eye(n_latents, dtype=sd.dtype, device=sd.device)
    tril[:n, :n] = sd.unsqueeze(-1) * corr
    return Population(loc.new_zeros(1), nn.functional.pad(loc, (0, n_latents - n))[None], tril[None])


def hyperprior(loc: Tensor, sd: Tensor, correlation: Tensor, expected: Tensor | None = None) -> Tensor:
    """Log density of a population's mean ``(..., P)``, sd ``(..., P)`` and correlation factor ``(..., P, P)``.

    Where something is ``expected`` ``(4, P)`` of a latent, the density of its log sd stands for that of its sd.
    """
    one = torch.ones((), dtype=loc.dtype, device=loc.device)
    density = marginals(loc, sd, expected)
    if loc.shape[-1] > 1:
        density = density + LKJCholesky(loc.shape[-1], one, validate_args=False).log_prob(correlation)
    return density


def marginals(loc: Tensor, sd: Tensor, expected: Tensor | None = None) -> Tensor:
    """The same of mean and sd alone."""
    one = torch.ones((), dtype=loc.dtype, device=loc.device)
    m, s = Normal(0 * one, one).log_prob(loc), HalfCauchy(one).log_prob(sd)
    if expected is not None:
        known = expected.isfinite().all(0) & (expected[3] > 0)
        mean, mean_sd, log_sd, log_sd_sd = torch.where(known, expected, one)
        m = torch.where(known, Normal(mean, mean_sd).log_prob(loc), m)
        s = torch.where(known, Normal(log_sd, log_sd_sd).log_prob(sd.log()), s)
    return m.sum(-1) + s.sum(-1)


def correlation_tril(off_diagonal: Tensor, n: int) -> Tensor:
    """Cholesky factors ``(..., n, n)`` with unit rows, of free coordinates ``(..., n (n - 1) / 2)``."""
    rows = torch.eye(n, dtype=off_diagonal.dtype, device=off_diagonal.device).repeat(*off_diagonal.shape[:-1], 1, 1)
    i, j = torch.tril_indices(n, n, -1)
    rows[..., i, j] = off_diagonal
    return rows / rows.norm(dim=-1, keepdim=True)


def correlation_coordinates(correlation: Tensor) -> Tensor:
    """Free coordinates of correlation matrices ``(..., P, P)``: the inverse of :func:`correlation_tril`."""
    tril = torch.linalg.cholesky(correlation)
    n = tril.shape[-1]
    i, j = torch.tril_indices(n, n, -1)
    return (tril / tril.diagonal(dim1=-2, dim2=-1).unsqueeze(-1))[..., i, j]
