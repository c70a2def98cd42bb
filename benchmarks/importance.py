"""Weighted draws from many densities that are too wide in dimension for grids, with proposals that fit each one.

A row is one density over d coordinates whose prior is standard normal. The proposal is a mixture of a Student t,
fitted by tempered rounds, and of the prior, which bounds the weights where the t misses something.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from benchmarks.tempering import effective_number, temper

Array = np.ndarray
DEGREES = 6.0  # of freedom of the t
PRIOR_SHARE = 0.15


@dataclass
class Proposal:
    """Centre ``(R, d)`` and scale ``(R, d, d)``, lower triangular, of each row's t."""

    centre: Array
    chol: Array

    def __getitem__(self, index: Array) -> "Proposal":
        return Proposal(self.centre[index], self.chol[index])

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draws ``(R, n, d)``."""
        r, d = self.centre.shape
        normal = rng.standard_normal((r, n, d))
        stretch = np.sqrt(DEGREES / rng.chisquare(DEGREES, (r, n, 1)))
        points = self.centre[:, None] + (normal * stretch) @ self.chol.swapaxes(1, 2)
        n_prior = int(PRIOR_SHARE * n)
        points[:, :n_prior] = normal[:, :n_prior]
        return points

    def log_density(self, points: Array) -> Array:
        """Of ``(R, n, d)``, ``(R, n)``."""
        d = points.shape[-1]
        z = (points - self.centre[:, None]) @ np.linalg.inv(self.chol).swapaxes(1, 2)
        log_det = np.log(np.einsum("rdd->rd", self.chol)).sum(1)[:, None]
        factor = gammaln((DEGREES + d) / 2) - gammaln(DEGREES / 2) - d / 2 * np.log(DEGREES * np.pi)
        student = factor - log_det - (DEGREES + d) / 2 * np.log1p((z**2).sum(-1) / DEGREES)
        prior = -(points**2).sum(-1) / 2 - d / 2 * np.log(2 * np.pi)
        share = int(PRIOR_SHARE * points.shape[1]) / points.shape[1]
        return np.logaddexp(np.log(1 - share) + student, np.log(share) + prior)


def fit_proposals(
    log_target: Callable[[Array, Array], Array],
    n_rows: int,
    d: int,
    rng: np.random.Generator,
    n: int = 600,
    rounds: int = 12,
) -> tuple[Proposal, Array]:
    """Proposals fitted to ``log_target`` (points ``(r, n, d)``, rows ``(r,)`` to ``(r, n)``), and rough log masses."""
    proposal = Proposal(np.zeros((n_rows, d)), np.repeat(np.eye(d)[None], n_rows, 0))
    log_mass = np.full(n_rows, -np.inf)
    settled = np.zeros(n_rows, dtype=int)
    for _ in range(rounds):
        rows = np.flatnonzero(settled < 2)
        if not len(rows):
            break
        points = proposal[rows].sample(n, rng)
        log_w = log_target(points, rows) - proposal[rows].log_density(points)
        power = temper(log_w, np.zeros_like(log_w), effective_number, n / 8)
        top = log_w.max(1, keepdims=True)
        log_mass[rows] = top[:, 0] + np.log(np.exp(log_w - top).mean(1))
        w = np.exp((log_w - top) * power[:, None])
        w /= w.sum(1, keepdims=True)
        centre = np.einsum("rn,rnd->rd", w, points)
        centred = points - centre[:, None]
        cov = (centred * w[..., None]).swapaxes(1, 2) @ centred
        proposal.centre[rows] = centre
        proposal.chol[rows] = np.linalg.cholesky(cov + 1e-10 * np.eye(d))
        settled[rows] = np.where(power == 1, settled[rows] + 1, 0)
    return proposal, log_mass
