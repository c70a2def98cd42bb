"""Strengths of a field and the borders in it, learned from the measurements."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pyroqmri.markov.graph import Graph
from pyroqmri.markov.law import LEVELS, Law
from pyroqmri.markov.smooth import Moments, Sites, Smoothed, smooth

AXIS_SD = 0.5  # of the log factor of an axis, before measurements
LEAST = 0.02  # of the precision of an increment, which all but its edge gives at least
SMOOTHEST = 2.0  # strength over a voxel's own information
FEWEST = 30  # edges along an axis from which it has a factor of its own
LEFT, LEFT_OF = 0.05, 200  # share of voxels that leave beforehand, and how many voxels know it
LEAST_LEFT, MOST_LEFT = 0.005, 0.2
RIDGE, LONGEST = 2.0, 1.0  # information that a log strength has of itself, and the longest step of one


@dataclass(frozen=True)
class Plan:
    """How a field is learned.

    Parameters
    ----------
    rounds
        Of the learning.
    draws
        Of the field's prior and posterior in each round.
    borders
        Whether neighbours may lie on either side of a border; without, increments are normal.
    """

    rounds: int = 8
    draws: int = 16
    borders: bool = True


Expand = Callable[[Smoothed | None, Law], Sites]


def find_borders(graph: Graph, law: Law, weights: np.ndarray, found: Smoothed) -> np.ndarray:
    r"""Weights of the edges ``(E,)`` one round further.

    The increment of two neighbours is a mixture of normals of the levels :math:`\lambda_k`, each as likely beforehand.
    Shares that are learned while strengths are still low, before any border shows, would leave no edge to be one.
    An edge is judged by what all else states about its increment, which without the edge has the mean :math:`a` and the
    variance :math:`v` in each of P directions, in units in which :math:`T` is the identity:

    .. math:: p_k \propto (v + 1 / \lambda_k)^{-P / 2} e^{-|a|^2 / 2 (v + 1 / \lambda_k)}, \qquad
              w = \frac{1}{\mathrm{Var}(d)} - \frac1v

    with the variance of the increment under the mixture of its posteriors at all levels: an edge that may be a border
    or not carries little either way. With the edge left in, what it has smoothed would be its own evidence, and small
    lesions would be lost.
    """
    base = law.weights(graph)
    if len(base) == 0:
        return base
    p = len(law.loc)
    mean = (graph.incidence @ (found.mean - law.loc)) @ np.linalg.cholesky(law.shared)
    square = (mean**2).sum(1)
    variance = np.einsum("pq,eqp->e", law.shared, found.moments.apart) - square
    after = p / np.maximum(variance, 1e-9)  # precisions of the increment, with and without its edge
    before = np.maximum(after - weights, LEAST * after)
    square = square * (after / before) ** 2
    spread = 1 / before[:, None] + 1 / (base[:, None] * LEVELS)
    log = -p / 2 * np.log(spread) - square[:, None] / spread / 2
    share = np.exp(log - log.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    each = 1 / (before[:, None] + base[:, None] * LEVELS)
    middle = (share * each).sum(1, keepdims=True)
    apart = square[:, None] * (before[:, None] * (each - middle)) ** 2
    total = (share * (each + apart / p)).sum(1)
    return np.clip(1 / total - before, base * LEVELS.min(), base * LEVELS.max())


def learn(graph: Graph, law: Law, expand: Expand, plan: Plan, seed: int = 0) -> tuple[Law, np.ndarray, Smoothed]:
    """Raise a field's strengths to those that its measurements make most likely, in rounds.

    At the maximum of the marginal likelihood the squares of values and of increments have the same expectations under
    the prior as under the posterior: the derivative of the log-determinants is in their difference, a trace that random
    probes estimate with the relative error of one voxel's squared noise over the number of probes. Steps are divided by
    the average information.

    Parameters
    ----------
    graph
        Of the voxels.
    law
        To start from.
    expand
        Likelihoods of the voxels as normals, around a posterior, or where there is none yet.
    plan
        What to do.

    Returns
    -------
    Law
        What was learned.
    ndarray
        Weights of the edges ``(E,)``.
    Smoothed
        The posterior of the last round.

    Source: Gilmour et al. 1995, doi:10.2307/2533274.
    """
    found, sites, probes = None, expand(None, law), None
    weights = law.weights(graph)
    for round_ in range(plan.rounds):
        found = smooth(graph, law, weights, sites, plan.draws, seed, None if found is None else found.mean)
        probes = probe(graph, law, weights, sites.information, plan.draws, seed, probes)
        before, law = law, stronger(graph, law, weights, found, probes, sites)
        weights = weights * (law.along / before.along)[graph.axis]
        if plan.borders and round_ > 0:
            weights = find_borders(graph, law, weights, found)
        sites = expand(found, law)
        if sites.left is not None and law.leave > 0:
            law = replace(law, leave=leaving(sites.left))
    assert found is not None
    return law, weights, found


def leaving(left: np.ndarray) -> float:
    """Share of voxels that leave the field, of the probabilities ``(N,)`` that each one has."""
    return float(np.clip((left.sum() + LEFT * LEFT_OF) / (len(left) + LEFT_OF), LEAST_LEFT, MOST_LEFT))


class Probes(NamedTuple):
    """Random signs ``(N, P, K)`` and the solutions of the field's linear system for them, measured and not."""

    signs: np.ndarray
    before: np.ndarray
    after: np.ndarray


def probe(
    graph: Graph, law: Law, weights: np.ndarray, information: np.ndarray, n: int, seed: int, near: Probes | None = None
) -> Probes:
    """Solve for ``n`` vectors of random signs, which are the same at every call."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (graph.n, len(law.loc), n))
    before = law.system(graph, weights).solve(signs, None if near is None else near.before, 1e-4)
    after = law.system(graph, weights, information).solve(signs, None if near is None else near.after, 1e-4)
    return Probes(signs, before, after)


def stronger(graph: Graph, law: Law, weights: np.ndarray, found: Smoothed, probes: Probes, sites: Sites) -> Law:
    """The law one round further."""
    p, after = len(law.loc), found.moments
    loc = found.mean.mean(0)
    changed = replace(law, loc=loc)
    if len(weights) == 0:
        return replace(changed, own=np.linalg.inv(law.population))
    lost = _lost(graph, probes)
    total = np.einsum("e,epq->pq", weights, after.apart)
    mean = found.mean - law.loc
    # what measurements take from the variance, less what their mean puts in its place
    d = np.asarray(graph.incidence @ mean)
    move = _steps(graph, law, weights, Moments(lost.own - mean.T @ mean, lost.apart - d[:, :, None] * d[:, None]),
                  mean, sites.information)  # fmt: skip
    total_lost = np.einsum("e,epq->pq", weights, lost.apart) - (weights[:, None] * d).T @ d
    return replace(
        changed,
        # its correlations stay those of the population: in moments, what is well measured would draw along what is not
        own=_limited(law.own * np.exp(np.add.outer(move[:p], move[:p])), np.linalg.inv(law.population)[None], 1.0),
        shared=_limited(_moved(law.shared, total + total_lost, total, move[p : 2 * p]), sites.information, SMOOTHEST),
        along=law.along * np.exp(move[2 * p :]),
    )


def _lost(graph: Graph, probes: Probes) -> Moments:
    """Covariances that measurements take away, summed over voxels and of each edge."""
    u, x = probes.signs, probes.before - probes.after
    n, p, k = u.shape
    own = np.einsum("npk,nqk->pq", u, x) / k
    difference = [(graph.incidence @ part.reshape(n, p * k)).reshape(-1, p, k) for part in (u, x)]
    apart = difference[0] @ difference[1].transpose(0, 2, 1) / k
    return Moments((own + own.T) / 2, (apart + apart.transpose(0, 2, 1)) / 2)


def _limited(strength: np.ndarray, information: np.ndarray, most: float) -> np.ndarray:
    """A precision of at most ``most`` times the information ``(N, P, P)`` of a usual voxel, in every direction.

    What is flatter than its measurements could show to be wrong is smoothed too far; and a voxel's own term states no
    more than the population, to which neighbours only add: else tissues that lie on a line would allow nothing beside.
    """
    scale = np.sqrt(np.maximum(np.diagonal(information, axis1=1, axis2=2), 1e-12))
    usual = (information / (scale[:, :, None] * scale[:, None, :])).mean(0)
    middle = np.median(scale, 0)
    root = np.linalg.cholesky(usual * np.outer(middle, middle) + 1e-9 * np.diag(middle**2))
    inner = np.linalg.solve(root, np.linalg.solve(root, strength).T)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    factor = root @ vectors * np.sqrt(np.minimum(values, most))
    return factor @ factor.T


def _moved(precision: np.ndarray, before: np.ndarray, after: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """A precision with other scales, and with the correlations that the moments ask for."""
    covariance = np.linalg.inv(precision)
    towards = covariance
    if np.linalg.eigvalsh(before).min() > 0:  # an estimate of few probes may not be
        move = np.linalg.cholesky(after) @ np.linalg.inv(np.linalg.cholesky(before))
        towards = move @ covariance @ move.T
    root = np.sqrt(np.diag(covariance) / np.diag(towards)) * np.exp(-log_scale)
    return np.linalg.inv(towards * np.outer(root, root))


def _steps(
    graph: Graph, law: Law, weights: np.ndarray, more: Moments, mean: np.ndarray, information: np.ndarray
) -> np.ndarray:
    """Newton steps of the log scales of ``own`` and ``shared`` and of the logs of ``along`` ``(2 P + 3,)``.

    ``more`` is what second moments under the prior have more than under the posterior.
    """
    p, count = len(law.loc), np.bincount(graph.axis, minlength=3)
    used = np.flatnonzero(count >= FEWEST)
    used = used if len(used) > 1 else used[:0]
    apart = np.einsum("e,epq->pq", weights, more.apart)
    by_edge = weights * np.einsum("pq,eqp->e", law.shared, more.apart) / 2
    pull = [by_edge[graph.axis == k].sum() - np.log(law.along[k]) / AXIS_SD**2 for k in used]
    gradient = [np.diag(law.own @ more.own), np.diag(law.shared @ apart), np.array(pull)]
    spread = graph.laplacian(weights) @ mean
    columns = [_scaled(law.own, mean), _scaled(law.shared, spread)]
    for k in used:
        part = graph.laplacian(np.where(graph.axis == k, weights, 0.0)) @ mean
        columns.append((part @ law.shared)[..., None])
    v = np.concatenate(columns, -1)
    gain = law.system(graph, weights).solve(v, tolerance=1e-3)
    gain -= law.system(graph, weights, information).solve(v, tolerance=1e-3)
    average = np.einsum("npa,npb->ab", v, gain) / 2
    average[2 * p :, 2 * p :] += np.eye(len(used)) / AXIS_SD**2
    free = np.eye(len(average))
    for j in range(len(used)):  # all axes together are what shared is
        free[2 * p + j, 2 * p :] -= count[used] / count[used].sum()
    g = free @ np.concatenate(gradient)
    average = free @ (average + average.T) / 2 @ free.T
    step = free.T @ np.linalg.solve(average + RIDGE * np.eye(len(g)), g)
    step *= min(1.0, LONGEST / max(np.abs(step).max(), 1e-12))
    out = np.zeros(2 * p + 3)
    out[: 2 * p], out[2 * p + used] = step[: 2 * p], step[2 * p :]
    return out


def _scaled(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Derivative of ``matrix`` times values ``(N, P)`` in the log scale of each parameter ``(N, P, P)``."""
    p = len(matrix)
    unit = np.eye(p)
    first = unit[None] * (x @ matrix)[:, :, None]  # row a of the matrix alone
    return first + matrix[None] * x[:, None, :]
