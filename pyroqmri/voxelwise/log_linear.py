"""Weighted least squares in closed form, for signals whose logarithm is linear in some coefficients."""

import math

import numpy as np
import torch
from torch import Tensor

from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import BoundSignal
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
    design = form.design(signal.acquisition).double()
    if signal.infer_s0:
        design = torch.cat([design, torch.ones_like(design[:, :1])], -1)
    regress = _Regression(design, form.predicted, counts, voxels.y.dtype)
    coefficients = torch.cat([regress(y) for y in voxels.y.split(_MANY)], -1)
    if not signal.infer_s0:
        return form.theta(coefficients)
    return form.theta(coefficients[:-1]) | {"S0": coefficients[-1].exp()}


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
