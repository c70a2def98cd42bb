"""Weighted least squares in closed form, for signals whose logarithm is linear in some coefficients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.estimators.small import solve
from pyroqmri.signals import DTI, MSDKI, BoundSignal, SignalModel
from pyroqmri.signals.tensor import tensor_design
from pyroqmri.voxels import Voxels

_SMALLEST = 1e-4  # of S0: the logarithm of less says nothing


@dataclass(frozen=True)
class LogLinear:
    """How a signal is linear: log S/S0 = design @ coefficients.

    Parameters
    ----------
    design
        Design matrix ``(M, C)`` of an acquisition, without the column of log S0.
    theta
        Physical parameters, each ``(N,)``, of coefficients ``(C, N)``.
    predicted
        Weigh by the squared signal that unweighted least squares predicts; else by the squared measurement.
    """

    design: Callable[[Acquisition], Tensor]
    theta: Callable[[Tensor], dict[str, Tensor]]
    predicted: bool


def _kurtosis_design(acq: Acquisition) -> Tensor:
    assert acq.bval is not None
    return torch.stack([-acq.bval, acq.bval.square() / 6], -1)


def _kurtosis(coefficients: Tensor) -> dict[str, Tensor]:
    D, variance = coefficients
    return {"D": D, "K": variance / D.square()}


def _tensor(coefficients: Tensor) -> dict[str, Tensor]:
    return dict(zip(("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz"), coefficients, strict=True))


# each weighs as the program does that everyone compares with, dipy
LOG_LINEAR: dict[type[SignalModel], LogLinear] = {
    MSDKI: LogLinear(_kurtosis_design, _kurtosis, predicted=False),
    DTI: LogLinear(lambda acq: tensor_design(acq)[:, :6], _tensor, predicted=True),
}


def has_closed_form(signal: BoundSignal) -> bool:
    """Whether the signal is linear in its logarithm with all of its parameters free."""
    return signal.signal in LOG_LINEAR and not signal.fixed and not signal.tied


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
    form, y = LOG_LINEAR[signal.signal], voxels.y
    design = form.design(signal.acquisition).double()
    if signal.infer_s0:
        design = torch.cat([design, torch.ones_like(design[:, :1])], -1)
    n = design.shape[1]
    i, j = torch.tril_indices(n, n)
    squares = (design[:, i] * design[:, j]).to(y)
    inverse, design = torch.linalg.pinv(design).to(y), design.to(y)
    log_y = y.clamp_min(_SMALLEST).log()
    first = log_y @ inverse.mT
    predicted = first @ design.mT
    weights = predicted.mul(2).exp() if form.predicted else y.square()
    if counts is not None:
        weights = weights * counts.to(y)
    matrix = y.new_empty(n, n, len(y))
    matrix[i, j] = (weights @ squares).mT
    correction = solve(matrix, ((weights * (log_y - predicted)) @ design).mT)
    coefficients = first.mT + correction
    if not signal.infer_s0:
        return form.theta(coefficients)
    return form.theta(coefficients[:-1]) | {"S0": coefficients[-1].exp()}
