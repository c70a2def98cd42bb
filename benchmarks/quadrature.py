"""Integrals of many small-dimensional densities on grids that find and fit each density by themselves.

A row is one density in d dimensions. Its grid is a product of Gauss-Legendre rules on a sheared box: the
interval of a coordinate is centred on a linear function of the coordinates before it, and cut where the density's
region ends, so that hard edges are exact. Boxes are found by tempering: a density too sharp for the grid is
flattened until nodes of every axis share its mass, the box shrinks around that, and so on until nothing is flattened.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.tempering import effective_number, temper

Array = np.ndarray
N_SD = 6.5  # half-width of a box in conditional sds: a normal's density falls by e^-21
FACE = -12.0  # a face of the box where the log density is above this, against its maximum, is moved out


class Densities(ABC):
    """R unnormalised densities in d coordinates, which are the parameters or functions of them.

    ``lower`` and ``upper``, ``(R, d)``, are a box with all of the mass inside.
    """

    lower: Array
    upper: Array

    @abstractmethod
    def log_density(self, points: Array, rows: Array) -> Array:
        """Of the coordinates, ``(r, P)``, at points ``(r, P, d)`` of the rows ``(r,)``."""

    def region(self, k: int, before: list[Array], rows: Array) -> tuple[Array | float, Array | float]:
        """The support in coordinate k given the ones before, two arrays that broadcast with them."""
        return -np.inf, np.inf

    def parameters(self, points: Array) -> Array:
        """Parameters ``(r, P, d)`` of points; parameter k depends on coordinates up to k, and rises with the k-th."""
        return points

    def level(self, k: int, before: list[Array], value: Array) -> Array:
        """Coordinate k at which parameter k is ``value``, broadcast with the coordinates ``before``."""
        return value


@dataclass
class Box:
    """Where the mass of r rows is: ``centre`` (r, d), ``slope`` (r, d, d), ``reach`` (r, d, 2), ``log_mass`` (r,)."""

    centre: Array
    slope: Array
    reach: Array
    log_mass: Array

    def __getitem__(self, index: Array) -> "Box":
        return Box(self.centre[index], self.slope[index], self.reach[index], self.log_mass[index])


@dataclass
class Grid:
    """Nodes of a product rule: points ``(r, P, d)``, log weights ``(r, P)``, and each axis's nodes and intervals."""

    points: Array
    log_weight: Array
    shape: tuple[int, ...]
    coordinates: list[Array]
    middle: list[Array]
    half: list[Array]
    cut: list[Array]  # (2, r, ...) True where an interval ends at the region's edge


@dataclass
class Moments:
    """What an integration found, a row each."""

    log_mass: Array
    mean: Array
    cov: Array
    cdf: list[Array] = field(default_factory=list)  # d arrays (r, Q)


def midpoints(n: int) -> tuple[Array, Array]:
    """Nodes and weights of the midpoint rule on [-1, 1]."""
    return (2 * np.arange(n) + 1) / n - 1, np.full(n, 2 / n)


def make_grid(
    densities: Densities,
    box: Box,
    rows: Array,
    nodes: tuple[int, ...],
    rule: Callable = np.polynomial.legendre.leggauss,
) -> Grid:
    """Place ``nodes`` nodes of a rule an axis inside the boxes."""
    coordinates: list[Array] = []
    middles, halves, cuts = [], [], []
    log_weight = np.zeros((len(rows),) + (1,) * len(nodes))
    for k, n in enumerate(nodes):
        expand = (slice(None),) + (None,) * k
        centre = box.centre[:, k][expand]
        for j, c in enumerate(coordinates):
            centre = centre + box.slope[:, k, j][expand] * (c - box.centre[:, j][expand])
        low, high = densities.lower[rows, k][expand], densities.upper[rows, k][expand]
        edges = densities.region(k, coordinates, rows)
        low, high = np.maximum(low, edges[0]), np.minimum(high, edges[1])
        centre = np.clip(centre, low, high)
        a, b = (centre + sign * box.reach[:, k, i][expand] for i, sign in enumerate((-1, 1)))
        cuts.append(np.stack(np.broadcast_arrays(a <= low, b >= high)))
        a, b = np.maximum(a, low), np.minimum(b, high)
        middle, half = (a + b) / 2, (b - a) / 2
        x, w = rule(n)
        coordinates = [c[..., None] for c in coordinates] + [middle[..., None] + half[..., None] * x]
        middles.append(middle)
        halves.append(half)
        tail = (None,) * (len(nodes) - k - 1)
        with np.errstate(divide="ignore"):
            log_weight = log_weight + (np.log(half)[..., None] + np.log(w))[(..., *tail)]
    full = (len(rows), *nodes)
    points = np.stack([np.broadcast_to(c, full).reshape(len(rows), -1) for c in coordinates], -1)
    log_weight = np.broadcast_to(log_weight, full).reshape(len(rows), -1)
    return Grid(points, log_weight, nodes, coordinates, middles, halves, cuts)


def locate(densities: Densities, rows: Array, group: Array | None = None, rounds: int = 80) -> Box:
    """Boxes around the mass of ``rows``, from coarse grids that start at 20 - 3 d nodes an axis.

    Rows of one ``group`` (r,) are added up in the end: one that cannot matter beside another is given up, with no
    mass: where its density is flattened to a power p, nothing can be higher than a few 1 / p above the best node.
    Raises RuntimeError when a density stays too sharp for the grids.
    """
    lower, upper = densities.lower[rows], densities.upper[rows]
    d = lower.shape[1]
    n = 20 - 3 * d
    centre, reach = (lower + upper) / 2, np.repeat(((upper - lower) / 2)[..., None], 2, -1)
    box = Box(centre, np.zeros((len(rows), d, d)), reach, np.zeros(len(rows)))
    settled = np.zeros(len(rows), dtype=int)
    for i in range(rounds):
        todo = np.flatnonzero(settled < 2)
        if not len(todo):
            break
        if i % 7 == 6:  # what is left is curved: a sheared box leaves it thin
            n = int(1.25 * n)
        grid = make_grid(densities, box[todo], rows[todo], (n,) * d, midpoints)
        value = densities.log_density(grid.points, rows[todo])
        sharpness = temper(value, grid.log_weight, lambda p, n=n: _narrowest(p, (n,) * d), 1.7)
        mass, mean, cov = _moments(value * sharpness[:, None] + grid.log_weight, grid.points)
        new = _fit_box(mean, cov, box.reach[todo], n)
        new.log_mass = np.where(sharpness == 1, mass, -np.inf)
        for name in ("centre", "slope", "reach", "log_mass"):
            getattr(box, name)[todo] = getattr(new, name)
        settled[todo] = np.where(sharpness == 1, settled[todo] + 1, 0)
        if group is not None:
            best = np.full(group.max() + 1, -np.inf)
            np.maximum.at(best, group, box.log_mass)
            settled[todo[value.max(1) + 50 / sharpness + 50 < best[group[todo]]]] = 2
    if (settled >= 2).all():
        return box
    raise RuntimeError(f"{(settled < 2).sum()} densities were not located in {rounds} rounds")


def _narrowest(p: Array, shape: tuple[int, ...]) -> Array:
    """Effective number of nodes of the axis that has fewest: one node would hide where the mass is."""
    p = p.reshape(len(p), *shape)
    axes = range(1, p.ndim)
    return np.min([effective_number(p.sum(tuple(a for a in axes if a != k))) for k in axes], axis=0)


def _moments(log_p: Array, points: Array) -> tuple[Array, Array, Array]:
    """Log mass ``(r,)``, mean ``(r, d)`` and covariance of weighted points."""
    top = log_p.max(1, keepdims=True)
    p = np.exp(log_p - top)
    total = p.sum(1, keepdims=True)
    p /= total
    mean = np.einsum("rp,rpd->rd", p, points)
    centred = points - mean[:, None]
    return (top + np.log(total))[:, 0], mean, (centred * p[..., None]).swapaxes(1, 2) @ centred


def _fit_box(mean: Array, cov: Array, old_reach: Array, n: int) -> Box:
    """A box of N_SD conditional sds, no narrower than the grid it was seen with can tell."""
    spacing = old_reach.sum(-1) / n
    d = mean.shape[1]
    cov = cov + np.einsum("rd,de->rde", (0.3 * spacing) ** 2, np.eye(d))
    chol = np.linalg.cholesky(cov)
    sd = np.einsum("rdd->rd", chol)
    unit = sd[..., None] * np.linalg.inv(chol)
    reach = np.repeat((N_SD * sd)[..., None], 2, -1)
    return Box(mean, -np.tril(unit, -1), reach, np.zeros(len(mean)))


def integrate(
    densities: Densities,
    box: Box,
    rows: Array,
    nodes: tuple[int, ...],
    at: list[Array] | None = None,
    tolerance: float = 1e-3,
) -> Moments:
    """Mass, mean, covariance of ``rows``, and the distribution function of each parameter at ``at``, d arrays (r, Q).

    Each row's grid is refined, from ``nodes`` by 1.4 an axis, until log mass, means and sds (in sds) change by less
    than ``tolerance``. Raises RuntimeError when one does not settle.
    """
    d = len(nodes)
    result = Moments(np.zeros(len(rows)), np.zeros((len(rows), d)), np.zeros((len(rows), d, d)))
    result.cdf = [] if at is None else [np.zeros(a.shape) for a in at]
    todo, last = np.arange(len(rows)), None
    for _ in range(10):
        grid, log_p = _covering_grid(densities, box, rows, todo, nodes)
        mass, mean, cov = _moments(log_p, densities.parameters(grid.points))
        sd = np.sqrt(np.einsum("rdd->rd", cov))
        result.log_mass[todo], result.mean[todo], result.cov[todo] = mass, mean, cov
        left = np.ones(len(todo), dtype=bool)
        if last is not None:
            change = np.concatenate([(mean - last[1]) / sd, (sd - last[2]) / sd, (mass - last[0])[:, None]], 1)
            left = np.abs(change).max(1) > tolerance
        if result.cdf and not left.all():
            p = np.exp(log_p - mass[:, None]).reshape(len(todo), *nodes)
            for k, values in enumerate(result.cdf):
                values[todo[~left]] = _cdf(densities, box[todo], rows[todo], grid, p, k, at[k][todo])[~left]
        todo, last = todo[left], (mass[left], mean[left], sd[left])
        if not len(todo):
            return result
        nodes = tuple(int(np.ceil(1.4 * n)) for n in nodes)
    raise RuntimeError(f"{len(todo)} densities did not settle on grids up to {nodes}")


def _covering_grid(
    densities: Densities, box: Box, rows: Array, todo: Array, nodes: tuple[int, ...]
) -> tuple[Grid, Array]:
    """Grids of ``rows[todo]`` and log masses of their nodes; a box with mass at a face is widened first, in place."""
    log_p, left = np.empty((len(todo), int(np.prod(nodes)))), np.arange(len(todo))
    for _ in range(20):
        index = todo[left]
        grid = make_grid(densities, box[index], rows[index], nodes)
        value = densities.log_density(grid.points, rows[index])
        log_p[left] = value + grid.log_weight
        faces = _open_faces(value, grid)
        box.reach[index] *= np.where(faces, 1.4, 1.0)
        left = left[faces.any((1, 2))]
        if not len(left):
            return make_grid(densities, box[todo], rows[todo], nodes), log_p
    raise RuntimeError(f"{len(left)} densities reach beyond every box")


def _open_faces(value: Array, grid: Grid) -> Array:
    """Faces ``(r, d, 2)`` that cut through mass."""
    value = (value - value.max(1, keepdims=True)).reshape(len(value), *grid.shape)
    faces = np.zeros((len(value), len(grid.shape), 2), dtype=bool)
    for k in range(len(grid.shape)):
        for side, index in enumerate((0, -1)):
            face = np.take(value, index, k + 1)
            cut = grid.cut[k][side][(..., *(None,) * (len(grid.shape) - k - 1))]
            faces[:, k, side] = ((face > FACE) & ~cut).reshape(len(value), -1).any(1)
    return faces


def _cdf(densities: Densities, box: Box, rows: Array, grid: Grid, p: Array, k: int, at: Array) -> Array:
    """Distribution function of parameter ``k`` at ``at`` (r, Q), of node masses ``p``: its Legendre series integrated.

    For k > 0 that is a mean over the coordinates before, of what is nearly a step where they correlate: the first
    coordinate is resampled finely.
    """
    n = grid.shape[k]
    mass = p.sum(tuple(range(k + 2, p.ndim)))  # (r, n_1, ..., n_k)
    if k > 0:
        fine = 8 * grid.shape[0]
        mass = np.moveaxis(np.moveaxis(mass, 1, -1) @ _resampling(grid.shape[0], fine), -1, 1)
        grid = make_grid(densities, box, rows, (fine, *grid.shape[1 : k + 1], *(1,) * (p.ndim - k - 2)))
    x, _ = np.polynomial.legendre.leggauss(n)
    coefficients = mass @ np.polynomial.legendre.legvander(x, n - 1) * (np.arange(n) + 0.5)
    before = [c[(..., *(0,) * (c.ndim - k - 1))][..., None] for c in grid.coordinates[:k]]
    value = densities.level(k, before, at.reshape(len(at), *(1,) * k, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (value - grid.middle[k][..., None]) / grid.half[k][..., None]
    t = np.clip(np.nan_to_num(t, nan=-1.0), -1, 1)
    values = np.polynomial.legendre.legvander(t, n)  # (r, ..., Q, degree)
    below = np.concatenate([-np.ones_like(values[..., :1]), values[..., :-2]], -1)  # the integral of P_0 is t + 1
    antiderivative = (values[..., 1:] - below) / (2 * np.arange(n) + 1)
    total = np.einsum("...qm,...m->...q", antiderivative, coefficients)
    return np.clip(total.sum(tuple(range(1, k + 1))), 0, 1)


def _resampling(n: int, fine: int) -> Array:
    """From masses at n Gauss-Legendre nodes to masses at ``fine`` ones, ``(n, fine)``."""
    x, _ = np.polynomial.legendre.leggauss(n)
    t, w = np.polynomial.legendre.leggauss(fine)
    vander = np.polynomial.legendre.legvander
    return (vander(x, n - 1) * (np.arange(n) + 0.5)) @ vander(t, n - 1).T * w
