"""The posterior of a field whose voxels are measured with Gaussian likelihoods."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pyroqmri.markov.graph import Graph
from pyroqmri.markov.law import Law

GROUP = 8  # draws that are solved for side by side: memory of a whole brain
FINE = 1e-7  # tolerance of a mean, from which a likelihood is taken away again


class Sites(NamedTuple):
    r"""Gaussian likelihoods :math:`\eta_i^\top z_i - \tfrac12 z_i^\top L_i z_i` of voxels.

    Attributes
    ----------
    shift
        :math:`\eta_i` ``(N, P)``.
    information
        :math:`L_i` ``(N, P, P)``, positive semidefinite.
    left
        Probability that each voxel has left the field ``(N,)``; its likelihood counts for the rest. None where no
        voxel leaves.
    """

    shift: np.ndarray
    information: np.ndarray
    left: np.ndarray | None = None


class Moments(NamedTuple):
    """Second moments of a field: ``own`` is the sum over voxels ``(P, P)``, ``apart`` (E, P, P) that of each edge."""

    own: np.ndarray
    apart: np.ndarray


class Messages(NamedTuple):
    """What the rest of the image states about each voxel, its own measurements left out: a normal.

    Attributes
    ----------
    loc
        Mean ``(N, P)``.
    precision
        Inverse covariance ``(N, P, P)``.
    """

    loc: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True)
class Smoothed:
    """Posterior of a field, given its edges' weights.

    Attributes
    ----------
    mean
        ``(N, P)``.
    covariance
        Of each voxel ``(N, P, P)``.
    messages
        Of each voxel.
    moments
        About the law's mean.
    """

    mean: np.ndarray
    covariance: np.ndarray
    messages: Messages
    moments: Moments


def smooth(
    graph: Graph,
    law: Law,
    weights: np.ndarray,
    sites: Sites,
    n_draws: int = 64,
    seed: int = 0,
    start: np.ndarray | None = None,
) -> Smoothed:
    r"""Posterior mean, covariances, messages and moments of a field.

    The mean is one linear system, exact to its tolerance. Covariances are those of draws, each of which is one more
    system, given the neighbours: of the two terms in :math:`\mathrm{Cov}(z_i) = D_i^{-1} + D_i^{-1}
    \mathrm{Cov}(r_i) D_i^{-1}`, with :math:`r_i` the pull of the neighbours on voxel i, only the second one is
    estimated.

    Parameters
    ----------
    graph, law, weights
        Of the field; weights ``(E,)``.
    sites
        Likelihoods of the voxels.
    n_draws, seed
        Of the covariances.
    start
        A mean ``(N, P)`` near the posterior's.

    Source: Siden et al. 2018, doi:10.1080/10618600.2018.1473782.
    """
    system = law.system(graph, weights, sites.information)
    right = sites.shift - np.einsum("npq,q->np", sites.information, law.loc)
    first = None if start is None else (start - law.loc)[..., None]
    mean = system.solve(right[..., None], first, FINE)[..., 0]
    root = root_of(sites.information)
    pulled, own = np.zeros_like(sites.information), np.einsum("np,nq->pq", mean, mean)
    d = np.asarray(graph.incidence @ mean)
    apart = d[:, :, None] * d[:, None, :]
    for k in range(0, n_draws, GROUP):
        n = min(GROUP, n_draws - k)
        noise = law.noise(graph, weights, n, seed + k)  # the prior's own, so that errors of both are alike
        noise += root @ np.random.default_rng(seed + k + 10**6).standard_normal((*mean.shape, n))
        x = system.solve(noise)
        r = system.pull(x)
        pulled += r @ r.transpose(0, 2, 1) / n_draws
        part = moments_of(graph, x)
        own, apart = own + part.own * n / n_draws, apart + part.apart * n / n_draws
    covariance = system.inverse + system.inverse @ pulled @ system.inverse
    messages = _messages(system.diagonal, pulled, mean, right, sites.information, law.blocks(graph))
    messages = messages._replace(loc=messages.loc + law.loc)
    return Smoothed(mean + law.loc, covariance, messages, Moments(own, apart))


def moments_of(graph: Graph, x: np.ndarray) -> Moments:
    """Second moments of draws ``(N, P, K)`` around zero."""
    n, p, k = x.shape
    d = (graph.incidence @ x.reshape(n, p * k)).reshape(-1, p, k)
    return Moments(np.einsum("npk,nqk->pq", x, x) / k, d @ d.transpose(0, 2, 1) / k)


def _messages(
    diagonal: np.ndarray,
    pulled: np.ndarray,
    mean: np.ndarray,
    right: np.ndarray,
    information: np.ndarray,
    least: np.ndarray,
) -> Messages:
    """Each voxel's likelihood taken out of its posterior; what is left is at least as precise as ``least``."""
    shrink = pulled @ np.linalg.solve(pulled + diagonal, diagonal)
    spare = diagonal - information - (shrink + shrink.transpose(0, 2, 1)) / 2 - least
    precision = least + _positive(spare)
    gradient = np.einsum("npq,nq->np", information, mean) - right
    loc = mean + np.linalg.solve(precision, gradient[..., None])[..., 0]
    return Messages(loc, precision)


def _positive(matrix: np.ndarray) -> np.ndarray:
    """The nearest positive semidefinite matrices: sampling error alone makes an eigenvalue negative."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)[..., None, :]) @ vectors.transpose(0, 2, 1)


def root_of(matrix: np.ndarray) -> np.ndarray:
    """Factors ``(N, P, P)`` whose squares are positive semidefinite matrices."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
