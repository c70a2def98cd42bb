"""Parameters as coordinates of the unit box, and how a signal changes with them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.parameter import Parameter, frame_around
from pyroqmri.signals import BoundSignal, SignalModel
from pyroqmri.signals.bound import S0
from pyroqmri.signals.own_gradients import along

# steps of differences, of a box's width: slopes then hold 5 digits in float64 and 3 in float32, what bends 4 and 1
_STEP = {torch.float64: 1e-5, torch.float32: 1e-3}
_BEND = {torch.float64: 1e-5, torch.float32: 4e-3}
_MANY = 32  # measurements from which a product of matrices is the faster sum


@dataclass(frozen=True)
class Point:
    """Where N voxels are: tissue in the unit box ``(P, N)`` and axes ``(N, 3)``, or ``(N, K, 3)`` of K directions."""

    tissue: Tensor
    axis: Tensor | None

    def __len__(self) -> int:
        return self.tissue.shape[-1]

    def to(self, dtype: torch.dtype) -> "Point":
        """The same place in another precision."""
        return Point(self.tissue.to(dtype), None if self.axis is None else self.axis.to(dtype))

    def __getitem__(self, index: Tensor) -> "Point":
        return Point(self.tissue[:, index], None if self.axis is None else self.axis[index])

    def put(self, index: Tensor, other: "Point") -> None:
        """Set the places of some voxels."""
        self.tissue[:, index] = other.tissue
        if self.axis is not None and other.axis is not None:
            self.axis[index] = other.axis

    def where(self, pick: Tensor, other: "Point") -> "Point":
        """The point itself in the voxels of ``pick`` ``(N,)``, the other elsewhere."""
        axis = self.axis
        if axis is not None and other.axis is not None:
            axis = torch.where(pick.view(-1, *[1] * (axis.dim() - 1)), axis, other.axis)
        return Point(torch.where(pick, self.tissue, other.tissue), axis)


class UnitBox:
    """A signal over the unit box: 0 is a parameter's lower bound and 1 its upper one.

    Each direction adds two coordinates, a step in the tangent plane of its present axis.
    """

    def __init__(self, signal: BoundSignal) -> None:
        self.signal = signal
        self.tissue = signal.tissue
        self.n_tissue, self.n_latents = signal.n_tissue, signal.n_latents

    def to(self, dtype: torch.dtype) -> "UnitBox":
        """The same box in another precision."""
        return UnitBox(copy.deepcopy(self.signal).to(dtype))

    def theta(self, point: Point) -> dict[str, Tensor]:
        """Physical parameters, each ``(..., N)``, of tissue coordinates ``(..., P, N)``."""
        t = point.tissue
        theta = {name: torch.full_like(t[..., 0, :], value) for name, value in self.signal.fixed.items()}
        for i, p in enumerate(self.tissue):
            theta[p.name] = p.at(t[..., i, :], self.signal.box(p, theta))
        for name, target in self.signal.tied.items():
            theta[name] = theta[target]
        if self.signal.direction is not None:
            assert point.axis is not None
            theta |= self.signal.named(point.axis)
        return theta

    def raw(self, theta: dict[str, Tensor]) -> Tensor:
        """Tissue coordinates ``(P, N)`` of physical parameters, each ``(N,)``; beyond 0..1, or NaN, outside the box."""
        return torch.stack([p.share(theta[p.name], self.signal.box(p, theta)) for p in self.tissue])

    def point(self, theta: dict[str, Tensor]) -> Point:
        """Coordinates of physical parameters, moved into the box where they lie outside."""
        axis = self.signal.axes_of(theta)
        inside: dict[str, Tensor] = dict(theta)
        rows = []
        for p in self.tissue:  # one after the other: bounds may depend on parameters that were moved
            box = self.signal.box(p, inside)
            rows.append(p.share(theta[p.name], box).nan_to_num(0.5).clamp(0, 1))
            inside[p.name] = p.at(rows[-1], box)
        return Point(torch.stack(rows), axis)

    def move(self, point: Point, step: Tensor) -> Point:
        """The point a step ``(L, N)`` further, held in the box."""
        tissue = (point.tissue + step[: self.n_tissue]).clamp(0, 1)
        if point.axis is None or self.signal.direction is None:
            return Point(tissue, point.axis)
        turn = self.signal.by_direction(step[self.n_tissue :].mT)
        axis = self.signal.direction.constrain(turn, frame_around(point.axis))
        return Point(tissue, axis)

    def slopes(self, function: Callable[[dict[str, Tensor]], Tensor], point: Point) -> tuple[Tensor, Tensor]:
        """Values ``(N, ...)`` of a function of the parameters and their slopes ``(L, N, ...)``, by forward differences.

        One call of ``function`` with a leading axis. Differences point into the box, so that no
        signal is asked for parameters it does not know. In torch 2.13 they cost half as much
        as reverse passes and a quarter of forward mode, and their error, 1e-5, is far below the noise.
        """
        h = _STEP[point.tissue.dtype]
        steps = torch.eye(self.n_latents, dtype=point.tissue.dtype, device=point.tissue.device) * h
        values = function(self.theta(self.around(point, torch.cat([torch.zeros_like(steps[:1]), steps]))))
        slope = (values[1:] - values[0]).div_(h)
        slope *= self.inward(point).reshape(slope.shape[:2] + (1,) * (values.dim() - 2))
        return values[0], slope

    def signal_slopes(self, point: Point, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Signals ``(N, M)`` and their slopes ``(L, N, M)``: by the signal's own formula where it has one."""
        if self.signal.has_slopes:
            return self._by_formula(point, inputs, None if point.axis is None else frame_around(point.axis)[:, 1:])
        if self.signal.signal.slopes is not SignalModel.slopes:
            return self._by_chain(point, inputs)
        return self.slopes(lambda theta: self.signal(theta, inputs), point)

    def _by_formula(self, point: Point, inputs: Mapping[str, Tensor], turn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Signals ``(..., N, M)`` and slopes; ``turn`` ``(..., 2, 3)`` is how the axis moves with its coordinates."""
        signal, by = self.signal.slopes(self.theta(point), inputs)
        rows = [by[p.name] * p.stretch(point.tissue[..., i, :]).unsqueeze(-1) for i, p in enumerate(self.tissue)]
        bvec = self.signal.acquisition_of(inputs).bvec
        if turn is not None and bvec is not None and self.signal.direction is not None:
            rows += [by[self.signal.direction.name] * t for t in (turn @ bvec.mT).unbind(-2)]
        return signal, torch.stack(rows)

    def _by_chain(self, point: Point, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The same where bounds depend on one another, or directions are several: the box alone by differences."""
        signal, by = self.signal.slopes(self.theta(point), inputs)
        steps = torch.eye(self.n_latents).to(point.tissue)[: self.n_tissue] * _STEP[point.tissue.dtype]
        there, here = self.theta(self.around(point, steps)), self.theta(point)
        rows = torch.zeros(self.n_latents, *signal.shape, dtype=signal.dtype, device=signal.device)
        for p in self.tissue:
            change = (there[p.name] - here[p.name]) / steps[0, 0] * self.inward(point)[: self.n_tissue]
            rows[: self.n_tissue] += change.unsqueeze(-1) * by[p.name]
        if point.axis is not None and self.signal.acquisition.bvec is not None:
            bvec = self.signal.acquisition_of(inputs).bvec
            turns = along(frame_around(point.axis)[..., 1:, :], bvec, len(self.signal.directions) > 1)
            for k, name in enumerate(self.signal.named(point.axis)):
                turn = turns if len(self.signal.directions) == 1 else turns[:, k]
                first = self.n_tissue + 2 * k
                rows[first : first + 2] = by[name] * turn.movedim(1, 0)
        return signal, rows

    def bends(self, point: Point, inputs: Mapping[str, Tensor], weights: Tensor, gradient: Tensor) -> Tensor:
        """Second derivatives ``(L, L, N)``, by differences, of signals summed with ``weights`` ``(N, M)``.

        The first ones, ``gradient`` ``(L, N)``, are known.
        """
        n, inward = self.n_latents, self.inward(point)
        if self.signal.has_slopes:
            h = _STEP[weights.dtype]
            there = summed(self._slopes_around(point, inputs, torch.eye(n).to(weights) * h), weights)
            found = (there - gradient.unsqueeze(1)) / (h * inward)
            return (found + found.transpose(0, 1)) / 2
        h = _BEND[weights.dtype]
        i, j = torch.tril_indices(n, n, device=weights.device)
        one = torch.eye(n).to(weights) * h
        steps = torch.cat([torch.zeros_like(one[:1]), one, one[i] + one[j]])
        sums = summed(self.signal(self.theta(self.around(point, steps)), inputs), weights)
        here, one, two = sums.split([1, n, len(i)])
        found = weights.new_empty(n, n, len(weights))
        found[i, j] = found[j, i] = (two - one[i] - one[j] + here) / (h**2 * inward[i] * inward[j])
        return found

    def _slopes_around(self, point: Point, inputs: Mapping[str, Tensor], steps: Tensor) -> Tensor:
        """Slopes ``(L, K, N, M)`` small ``steps`` ``(K, L)`` away, in the point's own coordinates."""
        turn = None
        if point.axis is not None:
            frame = frame_around(point.axis)
            turn = frame[:, 1:] - steps[:, None, self.n_tissue :, None] * frame[:, :1]  # it turns with the axis
        return self._by_formula(self.around(point, steps), inputs, turn)[1]

    def around(self, point: Point, steps: Tensor) -> Point:
        """Points small ``steps`` ``(K, L)`` away, inwards from the nearer bounds, with a leading axis ``K``."""
        inward = self.inward(point)[: self.n_tissue]
        tissue = point.tissue + steps[:, : self.n_tissue].unsqueeze(-1) * inward
        axis = point.axis
        if axis is not None and self.signal.direction is not None:
            turn = self.signal.by_direction(steps[:, None, self.n_tissue :])
            axis = self.signal.direction.constrain(turn, frame_around(axis))
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
        return points.to(device, next(self.signal.buffers()).dtype)

    @property
    def s0(self) -> tuple[int, Parameter] | None:
        """The row of S0, where it is free."""
        return next(((i, p) for i, p in enumerate(self.tissue) if p == S0), None)


def summed(values: Tensor, weights: Tensor) -> Tensor:
    """Sums ``(..., N)`` of values ``(..., N, M)`` over measurements with ``weights`` ``(N, M)``."""
    return torch.einsum("...nm,nm->...n", values, weights)


def products(values: Tensor, others: Tensor) -> Tensor:
    """Symmetric matrices ``(L, L, N)`` of sums over measurements of products of ``(L, N, M)`` and ``(L, N, M)``."""
    if values.shape[-1] > _MANY:
        return torch.bmm(values.transpose(0, 1), others.permute(1, 2, 0)).permute(1, 2, 0).contiguous()
    found, ones = values.new_empty(len(values), *values.shape[:2]), values.new_ones(values.shape[-1])
    for i in range(len(values)):
        entries = (values[: i + 1] * others[i]) @ ones  # sums short rows faster than a sum
        found[i, : i + 1] = entries
        found[:i, i] = entries[:i]
    return found
