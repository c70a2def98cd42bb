"""Where a search begins: the nearest of points spread over the box, then the nearest of those far from it."""

import torch
from torch import Tensor

from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals.own_gradients import at_measurements
from pyroqmri.voxelwise.unit_box import Point, UnitBox

_POINTS = 192
_POOL = 4096
_POINTS_ALONG_AXES = 20  # each costs a simulation of its own where every voxel has an axis
_ENOUGH = 48  # measurements tell such a point from another
_FAR = 0.3  # of the box's width in some parameter: another valley, if there is one
_CHUNK = 256  # voxels, whose distances to all points fit a core's cache
_CHUNK_ALONG_AXES = 1024


def nearest(box: UnitBox, voxels: Voxels, n_starts: int) -> list[Point]:
    """For each voxel the point nearest to its measurements, then the nearest one far from those before it.

    Nearest by least squares: the noise model matters once the region is found. A free S0 is solved for.
    """
    own = box.signal.direction is not None or bool(voxels.inputs)
    points = box.candidates(_POINTS_ALONG_AXES, voxels.y.device) if own else spread(box, _POINTS, voxels.y.device)
    every = torch.arange(0, voxels.y.shape[1], max(1, voxels.y.shape[1] // _ENOUGH), device=voxels.y.device)
    thinned = UnitBox(box.signal.at(every)), every
    near = (points.unsqueeze(1) - points).abs().amax(-1) <= _FAR
    starts: list[list[Point]] = [[] for _ in range(n_starts)]
    size = _CHUNK_ALONG_AXES if own else _CHUNK
    for i in range(0, len(voxels), size):
        part = voxels[i : i + size]
        axis = None
        if box.signal.direction is not None:
            axis = box.signal.signal.initial_axis(box.signal.acquisition, part.y)
        product, square = _one_by_one(*thinned, part, points, axis) if own else _by_table(box, part, points, axis)
        scale = product / square.clamp_min(1e-20) if box.s0 is not None else None
        score = 2 * product - square if scale is None else scale * product
        for found in starts:
            best = score.argmax(-1)
            found.append(_point(box, points, best, scale, axis))
            if found is not starts[-1]:
                score = score.masked_fill_(near[best], -torch.inf)
    return [_joined(found) for found in starts]


def spread(box: UnitBox, n: int, device: torch.device) -> Tensor:
    """Up to ``n`` points ``(C, P)`` spread over the signals rather than over the box, by Jeffreys' density.

    Where signals change fast, as with the pseudo-diffusivity at the low end of its bounds, points are many.
    """
    pool = box.candidates(_POOL, device)
    slope = box.slopes(lambda theta: box.signal(theta), Point(pool.mT.contiguous(), None))[1].double()
    if box.s0 is not None:
        slope = torch.cat([slope[: box.s0[0]], slope[box.s0[0] + 1 :]])
    information = torch.einsum("inm,jnm->nij", slope, slope)
    # where signals have decayed the factors of some determinants underflow, and one NaN would leave one point of all
    density = torch.linalg.det(information).nan_to_num(nan=0.0).clamp_min(1e-30).sqrt()
    share = density.cumsum(0) / density.sum()
    middle = (torch.arange(n, dtype=share.dtype, device=device) + 0.5) / n
    return pool[torch.searchsorted(share, middle).clamp_max(_POOL - 1).unique()]


def _point(box: UnitBox, points: Tensor, best: Tensor, scale: Tensor | None, axis: Tensor | None) -> Point:
    tissue = points[best].mT.contiguous()
    if box.s0 is not None and scale is not None:
        row, s0 = box.s0
        tissue[row] = (scale.gather(-1, best.unsqueeze(-1)).squeeze(-1) - s0.lower) / (s0.upper - s0.lower)
    return Point(tissue.clamp(0.005, 0.995), axis)


def _joined(parts: list[Point]) -> Point:
    axes = [p.axis for p in parts if p.axis is not None]
    return Point(torch.cat([p.tissue for p in parts], -1), torch.cat(axes) if axes else None)


def _by_table(box: UnitBox, voxels: Voxels, points: Tensor, axis: Tensor | None) -> tuple[Tensor, Tensor]:
    """Products ``(N, C)`` of each voxel's measurements and each point's signals, and those signals squared."""
    signals = box.signal(_unscaled(box, Point(points.mT, axis)))
    if voxels.weights is None:
        return voxels.y @ signals.mT, signals.square().sum(-1)
    return (voxels.weights * voxels.y) @ signals.mT, voxels.weights @ signals.square().mT


def _one_by_one(
    box: UnitBox, every: Tensor, voxels: Voxels, points: Tensor, axis: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same where each voxel's signals are its own, of the measurements ``every`` that the box simulates."""
    y = voxels.y[:, every]
    weights = torch.ones_like(y) if voxels.weights is None else voxels.weights[:, every]
    products, squares, inputs = [], [], at_measurements(voxels.inputs, every)
    for point in points:
        at = Point(point.unsqueeze(-1).expand(-1, len(voxels)), axis)
        signals = box.signal(_unscaled(box, at), inputs)
        products.append((weights * signals * y).sum(-1))
        squares.append((weights * signals.square()).sum(-1))
    return torch.stack(products, -1), torch.stack(squares, -1)


def _unscaled(box: UnitBox, point: Point) -> dict[str, Tensor]:
    theta = box.theta(point)
    return theta | {"S0": torch.ones_like(theta["S0"])} if box.s0 is not None else theta
