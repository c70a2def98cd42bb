"""Weighted least squares in closed form, for signals whose logarithm is linear in some coefficients."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.own_gradients import has_own_gradients
from pyroqmri.voxelwise.cholesky import solve

SMALLEST = 1e-4  # of S0: the logarithm of less says nothing
_FEW, _MANY = 4096, 32768  # voxels whose measurements stay in a core's cache; voxels whose equations do in all cores'
_LN2 = math.log(2)


def has_closed_form(signal: BoundSignal) -> bool:
    """Whether the signal is linear in its logarithm with all of its parameters free."""
    return signal.signal.log_linear is not None and not signal.fixed and not signal.tied


def weighted_fit(signal: BoundSignal, voxels: Voxels, counts: Tensor | None) -> dict[str, Tensor]:
    """Parameters, each ``(N,)``, by weighted linear regression of the logarithm; they may lie outside their bounds.

    Parameters
    ----------
    counts
        How many measurements each entry is the mean of ``(M,)``; once each when None.

    Notes
    -----
    Unweighted first, then the weighted correction to it: a sum that small numbers do not spoil in float32.
    """
    form = signal.signal.log_linear
    assert form is not None
    if voxels.weights is not None or has_own_gradients(voxels.inputs):
        parts = [_own_regression(signal, voxels[i : i + _FEW], counts) for i in range(0, max(1, len(voxels)), _FEW)]
        coefficients = torch.cat(parts, -1).to(voxels.y)
    else:
        regress = _Regression(_design(signal, None).double(), form.predicted, counts, voxels.y.dtype)
        coefficients = torch.cat([regress(y) for y in voxels.y.split(_MANY)], -1)
    if not signal.infer_s0:
        return form.theta(coefficients)
    return form.theta(coefficients[:-1]) | {"S0": coefficients[-1].exp()}


def _design(signal: BoundSignal, inputs: Mapping[str, Tensor] | None) -> Tensor:
    """Design matrix ``(M, C)``, or one a voxel ``(N, M, C)``, with a column for S0 where that is free."""
    form = signal.signal.log_linear
    assert form is not None
    design = form.design(signal.acquisition_of(inputs))
    return torch.cat([design, torch.ones_like(design[..., :1])], -1) if signal.infer_s0 else design


def _own_regression(signal: BoundSignal, voxels: Voxels, counts: Tensor | None) -> Tensor:
    """Coefficients ``(C, N)`` in float64 of voxels whose measurements count, or whose gradients are, differently."""
    form = signal.signal.log_linear
    assert form is not None
    voxels = voxels.map(lambda t: t.double())
    design = _design(signal, voxels.inputs).double().expand(*voxels.y.shape, -1)
    power = torch.ones_like(voxels.y) if voxels.weights is None else voxels.weights
    n = counts if voxels.counts is None else voxels.counts
    many = power if n is None else power * n.to(power)
    log_y = voxels.y.clamp_min(SMALLEST).log()
    first = _solved(design, power, log_y)
    predicted = (design @ first.unsqueeze(-1)).squeeze(-1)
    weights = (2 * predicted).exp() if form.predicted else voxels.y.square()
    return (first + _solved(design, many * weights, log_y - predicted)).mT


def _solved(design: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Coefficients ``(N, C)`` of weighted regressions; what is not determined stays near zero."""
    weighted = design * weights.unsqueeze(-1)
    normal = weighted.mT @ design
    ridge = 1e-10 * normal.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-30)
    normal = normal + ridge[:, None, None] * torch.eye(normal.shape[-1]).to(normal)
    return torch.linalg.solve(normal, weighted.mT @ values.unsqueeze(-1)).squeeze(-1)


class _Regression:
    """Weighted regression of logarithms on one design ``(M, C)``, in place: memory is what it waits for."""

    def __init__(self, design: Tensor, predicted: bool, counts: Tensor | None, dtype: torch.dtype) -> None:
        n = design.shape[1]
        self.rows = torch.tril_indices(n, n, device=design.device)
        i, j = self.rows
        counted = design if counts is None else design * counts.to(design).unsqueeze(-1)
        self.squares = (counted[:, i] * design[:, j]).mT.to(dtype).contiguous()
        self.counted = counted.mT.to(dtype).contiguous()
        self.inverse = torch.linalg.pinv(design).to(dtype)
        # of twice the logarithm to base 2: torch raises 2 to a power in a third of the time of e
        self.design, self.predicted = (design.mT * (2 / _LN2)).to(dtype).contiguous(), predicted

    def __call__(self, y: Tensor) -> Tensor:
        """Coefficients ``(C, N)`` of measurements ``(N, M)``."""
        n = len(self.design)
        found = y.new_empty(len(self.squares) + 2 * n, len(y))
        for few, place in zip(y.split(_FEW), found.split(_FEW, -1), strict=True):
            self._equations(few, *place.split((n, len(self.squares), n)))
        first, entries, right = found.split((n, len(self.squares), n))
        matrix: list[list[Tensor]] = [[] for _ in self.design]
        for i, entry in zip(self.rows[0].tolist(), entries, strict=True):
            matrix[i].append(entry)
        return first.add_(solve(matrix, right))

    def _equations(self, y: Tensor, first: Tensor, entries: Tensor, right: Tensor) -> None:
        """Fill in unweighted coefficients ``(C, N)``, and matrix and right-hand side of those of their correction."""
        log_y = _log_(y.clamp_min(SMALLEST))
        torch.mm(self.inverse, log_y.mT, out=first)
        predicted = first.mT @ self.design
        residual = log_y.sub_(predicted, alpha=_LN2 / 2)
        weights = predicted.exp2_() if self.predicted else y.square()
        torch.mm(self.squares, weights.mT, out=entries)
        torch.mm(self.counted, residual.mul_(weights).mT, out=right)


def _log_(x: Tensor) -> Tensor:
    """Logarithm in place; on the CPU numpy's, which takes 40 % of the time of torch's."""
    if x.device.type != "cpu":
        return x.log_()
    np.log(x.numpy(), out=x.numpy())
    return x
