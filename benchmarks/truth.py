"""The densities that simulated truths were drawn from, for the oracle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

from benchmarks.quadrature import Array

N_SD = 7.0  # a normal's mass further out is 1e-12


@dataclass(frozen=True)
class Truth:
    """C classes of independent normals or uniforms in d parameters, truncated to a region.

    Parameters
    ----------
    parameters
        Their names.
    mean, sd
        ``(C, d)``; an infinite sd is a uniform.
    log_scale
        ``(C,)`` log of each class's weight, of its normals' factor, and of one over the mixture's mass in the region.
    lower, upper
        ``(C, d)`` the region, cut at N_SD sds.
    max_product
        The largest product of the first two parameters inside the region.
    """

    parameters: tuple[str, ...]
    mean: Array
    sd: Array
    log_scale: Array
    lower: Array
    upper: Array
    max_product: float = np.inf

    def log_density(self, theta: Array, classes: Array) -> Array:
        """Log of weight times density ``(r, P)`` of the classes ``(r,)`` at points ``(r, P, d)`` of the region."""
        gap = (theta - self.mean[classes, None]) / self.sd[classes, None]
        return self.log_scale[classes, None] - (gap**2).sum(-1) / 2

    def region(self, k: int, before: list[Array], classes: Array) -> tuple[Array, Array]:
        """Ends of parameter ``k`` of the classes ``(r,)`` given the parameters before, which have r as first axis."""
        expand = (slice(None),) + (None,) * (before[0].ndim - 1 if before else 0)
        lower, upper = self.lower[classes, k][expand], self.upper[classes, k][expand]
        if k == 1 and np.isfinite(self.max_product):
            upper = np.maximum(np.minimum(upper, self.max_product / before[0]), lower)
        return lower, upper


def truth_of(population: Any) -> Truth:
    """The density of a population: a mapping of uniform ranges, or an object like simulate.GaussianClasses.

    Raises ValueError when a product is bounded and the first parameter may not be positive.
    """
    if isinstance(population, Mapping):
        lower, upper = np.array(list(population.values()), dtype=float).T[:, None]
        scale = -np.log(upper - lower).sum(1)
        return Truth(tuple(population), lower, np.full_like(lower, np.inf), scale, lower, upper)
    if np.isfinite(population.max_product) and population.lower[0] < 0:
        raise ValueError("a bounded product needs a positive first parameter")
    mean, sd, weight = population.means, population.sds, population.weights
    edges = (population.lower, population.upper, float(population.max_product))
    total = sum(w * region_mass(m, s, *edges) for m, s, w in zip(mean, sd, weight, strict=True))
    with np.errstate(divide="ignore"):
        scale = np.log(weight / total) - np.log(sd * np.sqrt(2 * np.pi)).sum(1)
    lower, upper = np.maximum(edges[0], mean - N_SD * sd), np.minimum(edges[1], mean + N_SD * sd)
    return Truth(tuple(population.parameters), mean, sd, np.maximum(scale, -1e6), lower, upper, edges[2])


def region_mass(mean: Array, sd: Array, lower: Array, upper: Array, product: float) -> float:
    """Mass of independent normals inside a box and below a product of the first two."""
    low, high = ndtr((lower - mean) / sd), ndtr((upper - mean) / sd)
    if not np.isfinite(product):
        return float((high - low).prod())

    def slice_mass(x: float) -> float:
        inner = ndtr((min(upper[1], product / x) - mean[1]) / sd[1]) - low[1]
        return max(inner, 0.0) * np.exp(-(((x - mean[0]) / sd[0]) ** 2) / 2) / (sd[0] * np.sqrt(2 * np.pi))

    start, stop = max(lower[0], mean[0] - 9 * sd[0], 1e-9), min(upper[0], mean[0] + 9 * sd[0])
    return quad(slice_mass, start, stop, epsabs=1e-12, epsrel=1e-10, limit=200)[0] * float((high - low)[2:].prod())
