"""A population that is learned from all voxels, with a posterior of its own."""

import math
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, HalfCauchy, ImproperUniform, LKJCholesky, MultivariateNormal, Normal  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor, nn
from torch.distributions import constraints

from pyroqmri.distributions import normal_points
from pyroqmri.priors.base import POPULATIONS, GaussianPrior
from pyroqmri.priors.hierarchical import correlation_coordinates, correlation_tril, marginals, population_of

_NEARLY = 0.02  # of the sd of a population that is known, and of its logarithm


class FullHierarchical(GaussianPrior):
    r"""The model of :class:`Hierarchical`, its population not a point but a distribution.

    .. math:: m \sim \mathcal N(0, 1), \quad s \sim \mathrm{HalfCauchy}(1), \quad \Omega \sim \mathrm{LKJ}(1),
              \quad z_n \sim \mathcal N(m, \mathrm{diag}(s)\, \Omega\, \mathrm{diag}(s))

    or, with ``jeffreys``, :math:`p(m, \Sigma) \propto |\Sigma|^{-1/2}` for :math:`\Sigma = \mathrm{diag}(s)\, \Omega\,
    \mathrm{diag}(s)`. The posterior of :math:`(m, \log s, \Omega)` is one multivariate normal in coordinates without
    bounds; the guide finds the voxels' modes under the population that was drawn, so that what voxels leave open
    widens the population too. Worth its price where voxels, or regions, are few.

    Parameters
    ----------
    n_tissue, n_direction, sd
        As in :class:`Hierarchical`.
    jeffreys
        Take the Jeffreys prior of the population in place of the weak one.

    Source: Orton et al. 2014, doi:10.1002/mrm.24649.
    """

    follows_draws = True
    expected: Tensor

    def __init__(self, n_tissue: int, n_direction: int = 0, sd: float = 0.5, jeffreys: bool = False) -> None:
        super().__init__()
        self.n_tissue, self.n_latents, self.jeffreys = n_tissue, n_tissue + n_direction, jeffreys
        size = 2 * n_tissue + n_tissue * (n_tissue - 1) // 2
        self.centre = nn.Parameter(torch.cat([torch.zeros(n_tissue), torch.full((n_tissue,), sd).log(),
                                              torch.zeros(size - 2 * n_tissue)]))  # fmt: skip
        self.log_spread = nn.Parameter(torch.full((size,), 0.05).log())
        self.shear = nn.Parameter(torch.zeros(size, size))
        self.register_buffer("expected", torch.full((4, n_tissue), torch.nan), persistent=False)

    def expect(self, expected: Tensor) -> None:
        """Take hyperpriors of the latents' means and log sds ``(4, P)``: mean, sd, mean, sd; NaN where none is.

        A population that is known is learned within two per cent.
        """
        nearly = torch.stack(
            [expected[0], _NEARLY * expected[2].exp(), expected[2], torch.full_like(expected[0], _NEARLY)]
        )
        self.expected = torch.where(expected[3] == 0, nearly, expected).to(self.centre)

    def population_dist(self) -> MultivariateNormal:
        """Posterior of the population's coordinates: means, log sds, correlations."""
        size = len(self.centre)
        unit = torch.eye(size, dtype=self.shear.dtype, device=self.shear.device) + self.shear.tril(-1)
        return MultivariateNormal(self.centre, scale_tril=self.log_spread.exp().unsqueeze(-1) * unit)

    def _parts(self, coordinates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.n_tissue
        return coordinates[..., :n], coordinates[..., n : 2 * n].exp(), coordinates[..., 2 * n :]

    def population(self):
        n, one = self.n_tissue, torch.ones_like(self.centre[0])
        centred: Any = Normal(0 * one, one)
        weak = {"m": centred.expand([n]).to_event(1), "s": HalfCauchy(one).expand([n]).to_event(1)}
        flat = {"m": ImproperUniform(constraints.real_vector, (), (n,)),
                "s": ImproperUniform(constraints.independent(constraints.positive, 1), (), (n,))}  # fmt: skip
        m, s = (pyro.sample(name, d) for name, d in (flat if self.jeffreys else weak).items())
        corr = pyro.sample("Omega", LKJCholesky(n, one, validate_args=False)) if n > 1 else torch.ones_like(s)[:, None]
        known = self.expected.isfinite().all(0)
        if not self.jeffreys and bool(known.any()):
            # in place of the weak ones that the sites have; a density of log s is 1 / s times as dense in s
            swap = marginals(m, s, self.expected) - marginals(m, s) - s.log()[known].sum()
            pyro.factor("expected", swap)
        if self.jeffreys:
            # of the covariance matrix; |dSigma / ds| is the product of s to the power n, LKJ(1) is flat in Omega
            pyro.factor("jeffreys", (n - 1) * s.log().sum() - corr.diagonal().log().sum())
        return population_of(m, s, corr, self.n_latents)

    def draw(self):
        """Sample the population from its posterior: the guide's half of :meth:`population`."""
        drawn = pyro.sample("population", self.population_dist(), infer={"is_auxiliary": True})
        m, s, off = self._parts(drawn)
        pyro.sample("m", Delta(m, event_dim=1))
        pyro.sample("s", Delta(s, log_density=-s.log().sum(), event_dim=1))  # type: ignore[arg-type]
        corr = correlation_tril(off, self.n_tissue)
        if self.n_tissue > 1:
            pyro.sample("Omega", Delta(corr, log_density=-_log_slope(corr), event_dim=2))  # type: ignore[arg-type]
        return population_of(m, s, corr, self.n_latents)

    def classes(self):
        m, s, off = self._parts(self.centre)
        return population_of(m, s, correlation_tril(off, self.n_tissue), self.n_latents)

    @torch.no_grad()
    def populations(self):
        points = normal_points(POPULATIONS // 2, len(self.centre), seed=0)[:, 1:].to(self.centre)
        spread = torch.cat([points, -points]) @ self.population_dist().scale_tril.mT
        return [
            population_of(m, s, correlation_tril(off, self.n_tissue), self.n_latents)
            for m, s, off in map(self._parts, self.centre + spread)
        ]

    @torch.no_grad()
    def draws(self, n: int) -> tuple[Tensor, Tensor]:
        """Population means ``(n, P)`` and standard deviations ``(n, P)`` of the latents, from the posterior."""
        return self._parts(self.population_dist().sample(torch.Size([n])))[:2]

    @torch.no_grad()
    def start(self, modes):
        """Start from the median and spread of the voxels' modes, as sure of them as that many voxels allow."""
        n = self.n_tissue
        spread = ((modes.quantile(0.84, 0) - modes.quantile(0.16, 0)) / 2).clamp(0.05, 1)
        self.centre[:n] = modes.median(0).values
        self.centre[n : 2 * n] = spread.log()
        self.log_spread.fill_(len(modes) ** -0.5).log_()
        self.log_spread[:n] += spread.log()
        self.log_spread[n : 2 * n] -= math.log(2) / 2  # of a log sd, 1 / sqrt(2 N)

    @torch.no_grad()
    def update(self, weights, loc, covariance):
        """Set the centre of the population, mean ``(1, P)`` and covariance ``(1, P, P)``."""
        sd = covariance[0].diagonal().sqrt()
        off = correlation_coordinates(covariance[0] / sd.unsqueeze(-1) / sd)
        self.centre.copy_(torch.cat([loc[0], sd.log(), off]))


def _log_slope(corr: Tensor) -> Tensor:
    """Log Jacobian determinant of ``correlation_tril`` at its value ``(P, P)``."""
    # a row with k free coordinates c is (c, 1) / sqrt(1 + |c|^2), its last entry the reciprocal of that root
    k = torch.arange(corr.shape[-1], dtype=corr.dtype, device=corr.device)
    return ((k + 2) * corr.diagonal().log())[1:].sum()
