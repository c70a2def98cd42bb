"""The exact posterior under the true prior and the true Rician noise: the lowest error any estimator can reach.

Written with numpy and scipy alone, independently of pyroqmri's signals, likelihoods, transforms and fits. A population
says what the truth was drawn from: a mapping of uniform ranges, or anything with the attributes of
pyroqmri.simulate.GaussianClasses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import i0e, logsumexp

from benchmarks.quadrature import Array, Densities, Moments, integrate, locate
from benchmarks.rician import crlb, rician_logpdf
from benchmarks.shells import ShellLikelihood
from benchmarks.truth import Truth, truth_of

__all__ = ["Exact", "crlb", "ivim", "ivim_signal", "msdki", "msdki_signal", "rician_logpdf"]

IRRELEVANT = -25.0  # a class whose log evidence is this far below the best one's is not integrated finely


@dataclass
class Exact:
    """The exact posterior of N voxels.

    Parameters
    ----------
    mean, sd
        Each parameter's posterior mean and sd, ``(N,)``.
    cdf
        Each parameter's posterior distribution function at the points that were asked for, ``(N, Q)``. At the truth
        it is uniform over voxels; a central interval of mass p covers the truth where it is within p / 2 of 1/2.
    log_evidence
        ``(N,)``, of the measurements' density.
    responsibilities
        Posterior probability of each class, ``(N, C)``.
    n_effective
        ``(N,)`` effective number of random draws; infinite for grids.
    direction
        Mean axes ``(N, 3)`` of a signal with a direction.
    """

    mean: dict[str, Array]
    sd: dict[str, Array]
    cdf: dict[str, Array]
    log_evidence: Array
    responsibilities: Array
    n_effective: Array
    direction: Array | None = None


def msdki_signal(bval: Array, D: Array, K: Array) -> Array:
    """Signal (..., M) of MS-DKI."""
    bD = np.asarray(bval) * np.asarray(D)[..., None]
    return np.exp(-bD + bD**2 * np.asarray(K)[..., None] / 6)


def ivim_signal(bval: Array, f: Array, D_fast: Array, D_slow: Array, S0: Array | float = 1.0) -> Array:
    """Signal (..., M) of IVIM, Epstein et al. 2022 eq. 11."""
    f, fast, slow, s0 = (np.asarray(v)[..., None] for v in (f, D_fast, D_slow, S0))
    return s0 * (f * np.exp(-bval * (fast + slow)) + (1 - f) * np.exp(-bval * slow))


def msdki(
    y: Array,
    bval: Array,
    sigma: Array | float,
    population: Any,
    at: Mapping[str, Array] | None = None,
    nodes: tuple[int, int] = (28, 24),
    tolerance: float = 1e-3,
    chunk: int = 100,
) -> Exact:
    """The exact posterior of D and K; volumes of one b-value are replicates, S0 is 1.

    Parameters
    ----------
    y, bval, sigma
        Measurements ``(N, M)`` in units of S0, ``(M,)`` in ms/um2, and the true noise level, a number or ``(N,)``.
    population
        What the truth was drawn from, over ("D", "K"); its region is integrated exactly to its edges.
    at
        Points ``(N, Q)`` at which each parameter's distribution function is wanted: the truth, an interval's ends.
    nodes, tolerance
        Where grids start, and when they stop being refined (:func:`benchmarks.quadrature.integrate`).
    chunk
        Voxels at a time.
    """
    y, sigma = _checked(y, sigma)
    likelihood = ShellLikelihood(y, np.asarray(bval, dtype=float), sigma)
    return _by_class(_MSDKI, likelihood, len(y), truth_of(population), at, nodes, tolerance, chunk)


def ivim(
    y: Array,
    bval: Array,
    sigma: Array | float,
    population: Any,
    at: Mapping[str, Array] | None = None,
    nodes: tuple[int, ...] | None = None,
    tolerance: float = 2e-2,
    chunk: int = 10,
) -> Exact:
    """The exact posterior of f, D_fast, D_slow, and of S0 where the population has it; otherwise S0 is 1.

    Parameters as for :func:`msdki`; the population's parameters may come in any order.
    """
    y, sigma = _checked(y, sigma)
    truth, bval = truth_of(population), np.asarray(bval, dtype=float)
    constant = np.log(y / sigma[:, None] ** 2).sum(1)

    def likelihood(theta: Array, voxels: Array) -> Array:
        value = dict(zip(truth.parameters, np.moveaxis(theta, -1, 0), strict=True))
        total = np.repeat(constant[voxels, None], theta.shape[1], 1)
        product = np.ones(total.shape)
        for m, b in enumerate(bval):
            signal = (1 - value["f"]) + value["f"] * np.exp(-b * value["D_fast"])
            signal *= np.exp(-b * value["D_slow"]) * value.get("S0", 1.0)
            observed, s = y[voxels, m, None], sigma[voxels, None]
            total -= ((observed - signal) / s) ** 2 / 2
            product *= i0e(observed / s**2 * signal)
            if m % 20 == 19 or m == len(bval) - 1:  # one log for many factors, before they underflow
                total += np.log(product)
                product[:] = 1
        return total

    if nodes is None:
        nodes = (14,) * 3 if len(truth.parameters) == 3 else (10,) * len(truth.parameters)
    return _by_class(_ByClass, likelihood, len(y), truth, at, nodes, tolerance, chunk)


def _checked(y: Array, sigma: Array | float) -> tuple[Array, Array]:
    y = np.asarray(y, dtype=float)
    return y, np.broadcast_to(np.asarray(sigma, dtype=float), (len(y),))


class _ByClass(Densities):
    """Likelihood times one class's prior; a row is a voxel and a class, voxels first; coordinates are parameters."""

    def __init__(self, likelihood: Any, truth: Truth, voxels: Array) -> None:
        n_classes = len(truth.log_scale)
        self.likelihood, self.truth = likelihood, truth
        self.voxel, self.of_class = np.repeat(voxels, n_classes), np.tile(np.arange(n_classes), len(voxels))
        self.lower, self.upper = truth.lower[self.of_class], truth.upper[self.of_class]

    def log_density(self, points: Array, rows: Array) -> Array:
        prior = self.truth.log_density(points, self.of_class[rows])
        return prior + self.likelihood(points, self.voxel[rows])

    def region(self, k: int, before: list[Array], rows: Array) -> tuple[Array, Array]:
        return self.truth.region(k, before, self.of_class[rows])


class _MSDKI(_ByClass):
    """Coordinates D and q = D^2 K, in which log signals are linear and so the likelihood's ridges straight."""

    def __init__(self, likelihood: ShellLikelihood, truth: Truth, voxels: Array) -> None:
        super().__init__(likelihood, truth, voxels)
        largest = np.maximum(self.lower[:, 0] ** 2, self.upper[:, 0] ** 2)
        self.lower, self.upper = self.lower.copy(), self.upper.copy()
        self.lower[:, 1] = np.minimum(self.lower[:, 1] * largest, 0)
        self.upper[:, 1] = np.maximum(self.upper[:, 1] * largest, 0)

    def parameters(self, points: Array) -> Array:
        D, q = np.moveaxis(points, -1, 0)
        return np.stack([D, q / D**2], -1)

    def level(self, k: int, before: list[Array], value: Array) -> Array:
        return value if k == 0 else value * before[0] ** 2

    def region(self, k: int, before: list[Array], rows: Array) -> tuple[Array, Array]:
        lower, upper = self.truth.region(k, before, self.of_class[rows])
        return (lower, upper) if k == 0 else (lower * before[0] ** 2, upper * before[0] ** 2)

    def log_density(self, points: Array, rows: Array) -> Array:
        D, q = np.moveaxis(points, -1, 0)
        log_signals = [b * (b * q / 6 - D) for b in self.likelihood.bval]
        prior = self.truth.log_density(self.parameters(points), self.of_class[rows]) - np.log(D**2)
        return prior + self.likelihood(log_signals, self.voxel[rows])


def _by_class(
    densities: type[_ByClass],
    likelihood: Any,
    n: int,
    truth: Truth,
    at: Mapping[str, Array] | None,
    nodes: tuple[int, ...],
    tolerance: float,
    chunk: int,
) -> Exact:
    """The exact posterior of ``n`` voxels, each class integrated on grids of its own."""
    names, n_classes = truth.parameters, len(truth.log_scale)
    points = None if at is None else [np.asarray(at[name], dtype=float).reshape(n, -1) for name in names]
    parts = []
    for start in range(0, n, chunk):
        voxels = np.arange(start, min(start + chunk, n))
        found = _integrate_rows(densities(likelihood, truth, voxels), n_classes, nodes, points, tolerance)
        parts.append(_combine(found, len(voxels), n_classes))
    mass, mean, sd, cdf, share = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Exact(
        mean={name: mean[:, k] for k, name in enumerate(names)},
        sd={name: sd[:, k] for k, name in enumerate(names)},
        cdf={} if points is None else {name: cdf[:, k] for k, name in enumerate(names)},
        log_evidence=mass,
        responsibilities=share,
        n_effective=np.full(n, np.inf),
    )


def _integrate_rows(
    densities: _ByClass, n_classes: int, nodes: tuple[int, ...], points: list[Array] | None, tolerance: float
) -> Moments:
    """Moments of every (voxel, class); the mass alone, and coarsely, of classes that do not matter."""
    rows = np.arange(len(densities.voxel))
    box = locate(densities, rows, rows // n_classes)
    mass = box.log_mass.reshape(-1, n_classes)
    fine = rows[(mass > mass.max(1, keepdims=True) + IRRELEVANT).ravel()]
    at = None if points is None else [p[densities.voxel[fine]] for p in points]
    moments = integrate(densities, box[fine], fine, nodes, at, tolerance)
    every = Moments(box.log_mass, densities.parameters(box.centre[:, None])[:, 0], np.zeros_like(box.slope))
    for name in ("log_mass", "mean", "cov"):
        getattr(every, name)[fine] = getattr(moments, name)
    for values in moments.cdf:
        every.cdf.append(np.zeros((len(rows), values.shape[1])))
        every.cdf[-1][fine] = values
    return every


def _combine(found: Moments, n: int, n_classes: int) -> tuple[Array, ...]:
    """Log evidence, mean, sd, distribution functions and class probabilities of ``n`` voxels."""
    mass = found.log_mass.reshape(n, n_classes)
    total = logsumexp(mass, axis=1)
    share = np.exp(mass - total[:, None])
    means = found.mean.reshape(n, n_classes, -1)
    mean = np.einsum("nc,ncd->nd", share, means)
    spread = np.einsum("rdd->rd", found.cov).reshape(means.shape) + (means - mean[:, None]) ** 2
    sd = np.sqrt(np.einsum("nc,ncd->nd", share, spread))
    cdf = np.zeros((n, mean.shape[1], 0))
    if found.cdf:
        values = np.stack(found.cdf, 1)
        cdf = np.einsum("nc,nckq->nkq", share, values.reshape(n, n_classes, *values.shape[1:]))
    return total, mean, sd, cdf, share
