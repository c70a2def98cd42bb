"""The noise level a fit uses, and where it came from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.residual import Residual
from pyroqmri.measurements.arguments import as_level
from pyroqmri.measurements.noise import WORDS as METHODS
from pyroqmri.measurements.noise import (
    NoiseEstimate,
    NoiseLevel,
    disagree,
    disagreement,
    estimate_sigma,
)
from pyroqmri.measurements.noise_field import (
    FEWEST_VOXELS,
    MOST_VOXELS,
    Fitted,
    field_of_groups,
    fit_field,
)
from pyroqmri.measurements.own_protocol import WEIGHTS, blanked
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.signals import BoundSignal

_RESIDUAL_VOXELS = 2000
_COMPARED_VALUES, _COMPARED_VOXELS = 30_000, (100, 300)  # measurements, and voxels at least and at most
WORDS = ("estimate", "field", "learn")
_OTHER_SCALE = 2.0  # times less noise than where the signal is bright
_RESIDUAL_NOTE = "residuals of least squares, pooled over voxels"


def noise_level(
    y: Tensor,
    acq: Acquisition,
    sigma: Any,
    preparation: Preparation,
    signal: BoundSignal,
    inputs: Mapping[str, Tensor] | None = None,
    position: Tensor | None = None,
) -> NoiseLevel:
    """Noise level from what the caller said: a value, one a voxel, or None, "estimate", "field", "learn".

    With voxel indices ``position`` ``(N, 3)`` an estimate is a field where the scan shows one.

    Raises
    ------
    InputError
        When a given value, or every one of a map's, is not above zero, or the word is unknown.
    """
    if isinstance(sigma, NoiseLevel) and not sigma.provisional:
        return sigma
    partial = WEIGHTS in (inputs or {})
    if sigma is None or isinstance(sigma, str | NoiseLevel):
        if isinstance(sigma, str) and sigma not in WORDS:
            raise InputError(
                f"sigma must be a number above zero, one per voxel, or one of {', '.join(WORDS)}, got {sigma!r}"
            )
        residual, y = Residual(y, acq, preparation, signal, inputs or {}), blanked(y, inputs)
        if isinstance(sigma, str) and sigma == "field":
            return _field(y, acq, position, residual, partial)
        found = sigma if isinstance(sigma, NoiseLevel) else _estimate(y, acq, preparation.coils, partial)
        found = _compared(found, residual)
        chosen = found.method == "shells" and position is not None and sigma in (None, "estimate")
        seen = seen_field(y, acq, position, preparation.coils, partial) if chosen else None
        return found if seen is None else replace(seen, warnings=found.warnings)
    level = as_level(sigma, len(y))
    if level.dim() == 0:
        found = NoiseLevel(float(level), "given", "the noise level was given")
    else:  # voxels without a noise level are not fitted
        found = NoiseLevel(level, "given", "a noise map was given; the number is its median")
    # residuals of measurements judge a given number, those of means over directions do not
    if not preparation.average:
        return found
    return replace(found, warnings=_unlike_the_scan(found, blanked(y, inputs), acq, preparation, partial))


def _unlike_the_scan(
    given: NoiseLevel, y: Tensor, acq: Acquisition, preparation: Preparation, partial: bool
) -> tuple[str, ...]:
    own = _estimate(y, acq, preparation.coils, partial)
    if own is None or not disagree(given.sigma, own.sigma):
        return ()
    return (
        f"noise level: sigma {given.sigma:.4g} was given, which was used, and {METHODS[own.method]} of this scan give "
        f"{own.sigma:.4g}: errors come out {given.sigma / own.sigma:.2g} times as large; give sigma in the units of "
        "the image, or leave it to be estimated",
    )


def seen_field(
    y: Tensor, acq: Acquisition, position: Tensor | None, coils: float, partial: bool = False
) -> NoiseLevel | None:
    """The field of a scan whose shells and repeats show one, at indices ``(N, 3)``; None where one number does."""
    try:
        found = field_of_groups(y.numpy(), acq, np.asarray(position), coils, partial, wanted=False)
    except InputError:
        return None
    return field_level(found, position, "shells and repeats") if found.worth_it else None


def field_level(found: Fitted, position: Any, source: str) -> NoiseLevel:
    """A fitted field as the noise level of the voxels at indices ``(N, 3)``."""
    place = torch.as_tensor(np.asarray(position))
    level, known = found.field(place), float(found.field.relative_sd(place).median())
    words = (
        f"sigma is a field, {found.low:.4g} to {found.high:.4g} (5 to 95 % of the voxels), known to "
        f"{max(known, 0.001):.1%}, from the residuals of {source}; it is {found.gain:.0f} nats likelier than one number"
    )
    return NoiseLevel(level, "field", words, field=found.field)


def _field(y: Tensor, acq: Acquisition, position: Tensor | None, residual: Residual, partial: bool) -> NoiseLevel:
    if position is None:
        raise InputError("a noise field needs the voxels' places: give voxels=, or mask=, or sigma as numbers")
    source = "shells and repeats"
    try:
        found = field_of_groups(y.numpy(), acq, position.numpy(), residual.preparation.coils, partial)
    except InputError:
        seen = residual.scatter(MOST_VOXELS)
        if seen is None or len(seen[0]) < FEWEST_VOXELS:
            raise
        found, source = fit_field(position[seen[0]].numpy(), seen[1]), "a fit of least squares"
    return field_level(found, position, source)


def provisional(found: NoiseEstimate) -> NoiseLevel:
    """An estimate from the scan alone, still to be compared with the residuals of a signal."""
    return NoiseLevel(found.sigma, found.method, found.note, found.warnings, provisional=True)


def _estimate(y: Tensor, acq: Acquisition, coils: float, partial: bool) -> NoiseLevel | None:
    try:
        return provisional(estimate_sigma(y.numpy(), acq, coils=coils, partial=partial))
    except InputError:
        return None


def _enough(n_measurements: int) -> int:
    """Voxels whose residuals, of so many measurements each, give a noise level to compare with another."""
    least, most = _COMPARED_VOXELS
    return min(most, max(least, _COMPARED_VALUES // n_measurements))


def _of_other_scale(sigma: float, residual: Residual) -> tuple[str, ...]:
    """A sentence where dim voxels have far less noise, as averages over regions of scans with other gains have."""
    dim = residual.dim_sigma(_COMPARED_VOXELS[0])
    if dim is None or not 0 < dim < sigma / _OTHER_SCALE:
        return ()
    return (
        f"noise level: the residuals of bright voxels give sigma {sigma:.4g}, which was used, and those of dim voxels "
        f"{dim:.4g}: one number does not suit both (voxels or regions of several scans, each with a scale of its own, "
        "or a signal that does not follow the bright ones); errors of dim voxels come out too large, and some end "
        "as no signal; scale all to one S0, fit them apart, or give a map with --sigma FILE",
    )


def _compared(found: NoiseLevel | None, residual: Residual) -> NoiseLevel:
    """The scan's own estimate beside the residuals, or the residuals where there is none."""
    if found is None:
        sigma = residual.sigma(_RESIDUAL_VOXELS)
        if sigma is None:
            raise InputError(residual.shortage)
        return NoiseLevel(sigma, "residual", _RESIDUAL_NOTE, _of_other_scale(sigma, residual))
    found = replace(found, provisional=False)
    # means over directions leave the signal's misfit, magnified, and no noise
    other = None if residual.preparation.average else residual.sigma(_enough(residual.y.shape[1]))
    if other is None or not disagree(found.sigma, other):
        return found
    if found.method == "background" or (found.method == "b0" and other < found.sigma):
        more = residual.sigma(_RESIDUAL_VOXELS)
        other = other if more is None else more
        said = disagreement(other, "residual", found.sigma, found.method)
        return NoiseLevel(other, "residual", f"{_RESIDUAL_NOTE}; not {found.note}", (*found.warnings, said))
    said = disagreement(found.sigma, found.method, other, "residual")
    return replace(found, warnings=(*found.warnings, said))
