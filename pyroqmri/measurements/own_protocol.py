"""A protocol of each voxel's own: measurements that count in part or not at all, and gradients that deviate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals.own_gradients import GRAD_DEV, OWN_B, deviated

WEIGHTS = "weights"  # beside the inputs of a signal, (N, M)
OWN = (WEIGHTS, GRAD_DEV)
_LARGEST = 1.0  # of a deviation, as a fraction of the gradient; scanners have up to 0.15


def with_own_protocol(inputs: Mapping[str, Any] | None, weights: Any, grad_dev: Any) -> dict[str, Any]:
    """Inputs with weights ``(N, M)`` and deviations ``(N, 3, 3)`` among them, where they are given."""
    own = {WEIGHTS: weights, GRAD_DEV: grad_dev}
    return dict(inputs or {}) | {name: value for name, value in own.items() if value is not None}


def refuse_own_protocol(inputs: Mapping[str, Any] | None, who: str) -> None:
    """Raise InputError where weights or deviations are given to what sees one protocol."""
    for name in OWN:
        if name in (inputs or {}):
            raise InputError(f"{who} does not take {name}; leave it out, or fit with it")


def kept_inputs(inputs: Mapping[str, Tensor] | None, keep: Tensor) -> dict[str, Tensor]:
    """Inputs of voxels of whose measurements some are kept: weights are one a measurement."""
    return {name: value[:, keep] if name == WEIGHTS else value for name, value in (inputs or {}).items()}


def blanked(y: Tensor, inputs: Mapping[str, Tensor] | None) -> Tensor:
    """Measurements ``(N, M)`` with NaN where they do not count in full: what noise is not measured on."""
    weights = (inputs or {}).get(WEIGHTS)
    return y if weights is None else torch.where(weights < 1, torch.nan, y)


def counting(y: Tensor, inputs: Mapping[str, Tensor] | None) -> Tensor:
    """Measurements ``(N, M)`` with zero where they do not count at all.

    Raises
    ------
    InputError
        When the weights are not one per measurement.
    """
    weights = (inputs or {}).get(WEIGHTS)
    if weights is None:
        return y
    if weights.shape != y.shape:
        raise InputError(f"weights must be one per measurement, {tuple(y.shape)}, got {tuple(weights.shape)}")
    return torch.where(weights > 0, y, 0.0)


def checked_own(inputs: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Weights and deviations among the inputs of ``n`` voxels.

    Raises
    ------
    InputError
        When weights are none of 0 to 1, deviations are no tensors or per cent, or either is of other voxels.
    """
    found = {name: inputs[name] for name in OWN if name in inputs}
    if (weights := found.get(WEIGHTS)) is not None:
        if weights.dim() != 2 or len(weights) != n:
            raise InputError(f"weights must be ({n}, M), one per measurement, got {tuple(weights.shape)}")
        if not bool(((weights >= 0) & (weights <= 1)).all()):
            bad = int((~((weights >= 0) & (weights <= 1))).sum())
            raise InputError(f"weights must be from 0 to 1, and {bad} are not (or NaN); 0 leaves a measurement out")
    if (deviation := found.get(GRAD_DEV)) is not None:
        if deviation.shape != (n, 3, 3):
            raise InputError(f"grad_dev must be ({n}, 3, 3), a tensor per voxel, got {tuple(deviation.shape)}")
        top = float(deviation.abs().nan_to_num(0.0).max()) if n else 0.0
        if top > _LARGEST:
            raise InputError(
                f"grad_dev reaches {top:.3g}, and it is a fraction of the gradient, of up to 0.15 or so; divide values "
                "in per cent by 100"
            )
    return found


@dataclass(frozen=True)
class Entries:
    """How the M measurements of a scan become the E entries that a model sees.

    ``groups`` are the measurements behind each entry, ``averaged`` states that entries are means over groups,
    ``s0`` ``(M,)`` bool are those that S0 is measured on, whose second moment is taken where ``magnitude`` is set.
    """

    groups: Sequence[Tensor]
    averaged: bool
    s0: Tensor
    magnitude: bool


@dataclass(frozen=True)
class OwnCounts:
    """What counts in each of n voxels.

    Attributes
    ----------
    weights
        The power of each entry's likelihood ``(n, E)``.
    counts
        Magnitudes that each entry is the mean of ``(n, E)``; None where entries are single measurements.
    s0_counts
        Magnitudes behind a measured S0 ``(n,)``; None where it is not measured.
    """

    weights: Tensor
    counts: Tensor | None
    s0_counts: Tensor | None


def filled(y: Tensor, weights: Tensor, entries: Entries) -> Tensor:
    """Measurements ``(N, M)`` whose plain means over groups, and over those of S0, are weighted means.

    Of single measurements those of weight zero alone are replaced, by the mean of what counts in the voxel: their
    values then mean nothing and are in no search's way.
    """
    y = torch.where(weights > 0, y, 0.0)
    anywhere = _mean(y, weights)
    found = torch.where(weights > 0, y, anywhere)
    if entries.averaged:
        for group in entries.groups:
            w, part = weights[:, group], y[:, group]
            mean = torch.where(w.sum(-1, keepdim=True) > 0, _mean(part, w), anywhere)
            found[:, group] = w * part + (1 - w) * mean
    if bool(entries.s0.any()):
        w, part = weights[:, entries.s0], y[:, entries.s0]
        if entries.magnitude:
            part = part.clamp_min(0)
            found[:, entries.s0] = (w * part.square() + (1 - w) * _mean(part.square(), w)).sqrt()
        else:
            found[:, entries.s0] = w * part + (1 - w) * _mean(part, w)
    return found


def _mean(y: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum(-1, keepdim=True)
    return (weights * y).sum(-1, keepdim=True) / total.clamp_min(1e-6)


def usable(weights: Tensor, entries: Entries) -> Tensor:
    """Whether anything counts of each voxel, and of its S0 where that is measured ``(N,)`` bool."""
    some = torch.stack([weights[:, group].sum(-1) > 0 for group in entries.groups]).any(0)
    return some & (weights[:, entries.s0].sum(-1) > 0) if bool(entries.s0.any()) else some


def counted(weights: Tensor, acq: Acquisition, entries: Entries) -> OwnCounts:
    """What counts in each voxel, of weights ``(n, M)``."""
    averages = acq.n_averages.to(weights)
    s0 = (weights * averages)[:, entries.s0].sum(-1) if bool(entries.s0.any()) else None
    if not entries.averaged:
        return OwnCounts(weights[:, torch.cat(list(entries.groups))].contiguous(), None, s0)
    total = torch.stack([(weights * averages)[:, group].sum(-1) for group in entries.groups], -1)
    return OwnCounts((total > 0).to(weights), torch.where(total > 0, total, 1.0), s0)


def check_directions(acq: Acquisition) -> None:
    """Raise InputError where deviations of gradients mean nothing."""
    if acq.bval is None or acq.bvec is None:
        lacks = "b-values" if acq.bval is None else "gradient directions (bvec)"
        raise InputError(f"grad_dev changes b-values by the gradient's direction, and the scan has no {lacks}")


def own_gradients(grad_dev: Tensor, weights: Tensor | None, acq: Acquisition, entries: Entries) -> dict[str, Tensor]:
    """Deviations ``(n, 3, 3)`` as a signal takes them: b-values ``(n, E)`` of means over directions, else themselves.

    Raises
    ------
    InputError
        When the scan has no b-values or no gradient directions.
    """
    check_directions(acq)
    if not entries.averaged:
        return {GRAD_DEV: grad_dev}
    bval = deviated(acq, grad_dev)[0]
    w = torch.ones_like(bval) if weights is None else weights
    counts = torch.stack([w[:, g].sum(-1) for g in entries.groups], -1) > 0
    means, plain = (
        torch.cat([_mean(bval[:, g], each[:, g]) for g in entries.groups], -1) for each in (w, torch.ones_like(w))
    )
    return {OWN_B: torch.where(counts, means, plain)}


def what_counts(
    y: Tensor, given: Mapping[str, Tensor], acq: Acquisition, entries: Entries
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Measurements ``(N, M)`` filled, the inputs, and the voxels ``(N,)`` bool of which something counts.

    Weights that are all 1 are left out.
    """
    if GRAD_DEV in given:
        check_directions(acq)
    y, weights = counting(y, given), given.get(WEIGHTS)
    every = torch.ones(len(y), dtype=torch.bool)
    if weights is None or bool((weights == 1).all()):
        return y, {name: value for name, value in given.items() if name != WEIGHTS}, every
    return filled(y.to(weights), weights, entries), dict(given), usable(weights, entries)


def of_own_protocol(voxels: Voxels, acq: Acquisition, entries: Entries) -> Voxels:
    """Voxels with what the weights and deviations among their inputs make of their entries."""
    weights = voxels.inputs.get(WEIGHTS)
    inputs = {name: value for name, value in voxels.inputs.items() if name not in OWN}
    if GRAD_DEV in voxels.inputs:
        inputs |= own_gradients(voxels.inputs[GRAD_DEV], weights, acq, entries)
    voxels = replace(voxels, inputs=inputs)
    return voxels if weights is None else replace(voxels, **vars(counted(weights, acq, entries)))
