"""Parameters as coordinates of the unit box, and how a signal changes with them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.parameter import Parameter, frame_around
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.bound import S0

_H = 1e-5  # of a box's width: in float64 forward differences then hold 5 digits, and second ones as many


@dataclass(frozen=True)
class Point:
    """Where N voxels are: tissue in the unit box ``(P, N)`` and, for a signal with a direction, axes ``(N, 3)``."""

    tissue: Tensor
    axis: Tensor | None

    def __len__(self) -> int:
        return self.tissue.shape[-1]

    def __getitem__(self, index: Tensor) -> "Point":
        return Point(self.tissue[:, index], None if self.axis is None else self.axis[index])

    def where(self, pick: Tensor, other: "Point") -> "Point":
        """The point itself in the voxels of ``pick`` ``(N,)``, the other elsewhere."""
        axis = self.axis
        if axis is not None and other.axis is not None:
            axis = torch.where(pick.unsqueeze(-1), axis, other.axis)
        return Point(torch.where(pick, self.tissue, other.tissue), axis)


class UnitBox:
    """A signal over the unit box: 0 is a parameter's lower bound and 1 its upper one.

    A direction adds two coordinates, a step in the tangent plane of its present axis.
    """

    def __init__(self, signal: BoundSignal) -> None:
        self.signal = signal
        self.tissue = signal.tissue
        self.n_tissue, self.n_latents = signal.n_tissue, signal.n_latents

    def theta(self, point: Point) -> dict[str, Tensor]:
        """Physical parameters, each ``(..., N)``, of tissue coordinates ``(..., P, N)``."""
        t = point.tissue
        theta = {name: torch.full_like(t[..., 0, :], value) for name, value in self.signal.fixed.items()}
        for i, p in enumerate(self.tissue):
            lower, upper = self._bounds(p, theta)
            theta[p.name] = lower + (upper - lower) * t[..., i, :]
        for name, target in self.signal.tied.items():
            theta[name] = theta[target]
        if self.signal.direction is not None:
            assert point.axis is not None
            theta[self.signal.direction.name] = point.axis
        return theta

    def raw(self, theta: dict[str, Tensor]) -> Tensor:
        """Tissue coordinates ``(P, N)`` of physical parameters, each ``(N,)``; beyond 0..1, or NaN, outside the box."""
        rows = []
        for p in self.tissue:
            lower, upper = self._bounds(p, theta)
            rows.append((theta[p.name] - lower) / (upper - lower))
        return torch.stack(rows)

    def point(self, theta: dict[str, Tensor]) -> Point:
        """Coordinates of physical parameters, moved into the box where they lie outside."""
        axis = None if self.signal.direction is None else theta[self.signal.direction.name]
        inside: dict[str, Tensor] = dict(theta)
        rows = []
        for p in self.tissue:  # one after the other: bounds may depend on parameters that were moved
            lower, upper = self._bounds(p, inside)
            rows.append(((theta[p.name] - lower) / (upper - lower)).nan_to_num(0.5).clamp(0, 1))
            inside[p.name] = lower + (upper - lower) * rows[-1]
        return Point(torch.stack(rows), axis)

    def _bounds(self, p: Parameter, theta: dict[str, Tensor]) -> tuple[Tensor | float, Tensor | float]:
        box = self.signal.box(p, theta)
        return (p.lower, p.upper) if box is None else box

    def move(self, point: Point, step: Tensor) -> Point:
        """The point a step ``(L, N)`` further, held in the box."""
        tissue = (point.tissue + step[: self.n_tissue]).clamp(0, 1)
        if point.axis is None or self.signal.direction is None:
            return Point(tissue, point.axis)
        axis = self.signal.direction.constrain(step[self.n_tissue :].mT, frame_around(point.axis))
        return Point(tissue, axis)

    def slopes(self, function: Callable[[dict[str, Tensor]], Tensor], point: Point) -> tuple[Tensor, Tensor]:
        """Values ``(N, ...)`` of a function of the parameters and their slopes ``(L, N, ...)``, by forward differences.

        One call of ``function`` with a leading axis. Differences point into the box, so that no
        signal is asked for parameters it does not know. In torch 2.13 they cost half as much
        as reverse passes and a quarter of forward mode, and their error, 1e-5, is far below the noise.
        """
        steps = torch.eye(self.n_latents, dtype=point.tissue.dtype, device=point.tissue.device) * _H
        values = function(self.theta(self.around(point, torch.cat([torch.zeros_like(steps[:1]), steps]))))
        slope = (values[1:] - values[0]).div_(_H)
        slope *= self.inward(point).reshape(slope.shape[:2] + (1,) * (values.dim() - 2))
        return values[0], slope

    def bends(
        self, function: Callable[[dict[str, Tensor]], Tensor], point: Point, values: Tensor, slopes: Tensor
    ) -> Tensor:
        """Second derivatives ``(K, N, ...)`` of each pair of coordinates of the lower triangle, row by row."""
        i, j = torch.tril_indices(self.n_latents, self.n_latents, device=point.tissue.device)
        steps = torch.eye(self.n_latents, dtype=point.tissue.dtype, device=point.tissue.device) * _H
        inward = self.inward(point).reshape(slopes.shape[:2] + (1,) * (values.dim() - 1))
        rise = slopes * (_H * inward)
        both = function(self.theta(self.around(point, steps[i] + steps[j])))
        return (both - values - rise[i] - rise[j]) / (_H**2 * inward[i] * inward[j])

    def around(self, point: Point, steps: Tensor) -> Point:
        """Points small ``steps`` ``(K, L)`` away, inwards from the nearer bounds, with a leading axis ``K``."""
        inward = self.inward(point)[: self.n_tissue]
        tissue = point.tissue + steps[:, : self.n_tissue].unsqueeze(-1) * inward
        axis = point.axis
        if axis is not None and self.signal.direction is not None:
            axis = self.signal.direction.constrain(steps[:, None, self.n_tissue :], frame_around(axis))
        return Point(tissue, axis)

    def inward(self, point: Point) -> Tensor:
        """Sign ``(L, N)`` of a step away from the nearer bound; a direction has none."""
        sign = torch.ones(self.n_latents, len(point), dtype=point.tissue.dtype, device=point.tissue.device)
        sign[: self.n_tissue] -= 2 * (point.tissue > 0.5)
        return sign

    def candidates(self, n: int, device: torch.device) -> Tensor:
        """Points ``(n, P)`` spread evenly over the box, a little off its walls; S0 is left at its middle."""
        free = [i for i, p in enumerate(self.tissue) if p != S0]
        points = torch.full((n, self.n_tissue), 0.5, dtype=torch.float64)
        if free:
            sobol = torch.quasirandom.SobolEngine(len(free), scramble=True, seed=0)
            points[:, free] = 0.02 + 0.96 * sobol.draw(n, dtype=torch.float64)
        return points.to(device)

    @property
    def s0(self) -> tuple[int, Parameter] | None:
        """The row of S0, where it is free."""
        return next(((i, p) for i, p in enumerate(self.tissue) if p == S0), None)
