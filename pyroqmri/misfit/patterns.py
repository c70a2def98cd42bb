"""Patterns that a cause of misfit leaves in the mean of residuals, and how much of each is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.distributions import ncchi_moments, rice_moments
from pyroqmri.measurements.shells import alike
from pyroqmri.misfit.residuals import Residuals

FLOOR, SETTING, DRIFT, WIDTH = "noise floor", "setting", "drift", "width"
_SURE = 4.0  # standard errors
_LEAST = {
    FLOOR: 0.3,
    SETTING: 0.1,
    DRIFT: 0.1,
    WIDTH: 0.3,
}  # sd of the noise, in some measurement: what is worth a warning
# least squares has no noise floor by definition: worth a warning is a measurement that is mostly floor
_LEAST_GAUSSIAN = 0.75
_LEAST_BESIDE_FLOOR = 0.5  # of a setting, where a floor bends the fit elsewhere
_MORE_COILS = 4.0
_FEWEST_PER_SETTING = 3


@dataclass(frozen=True)
class Pattern:
    """What one unit of a cause adds to residuals ``(M,)`` or ``(n, M)``.

    Attributes
    ----------
    where
        A setting's measurements.
    least
        Mean in some measurement, in sd of the noise, that is worth a warning.
    """

    kind: str
    shape: Tensor
    where: np.ndarray | None = None
    least: float = 0.0


class Seen(NamedTuple):
    """How much of a pattern residuals have.

    Attributes
    ----------
    amount, error
        In units of the pattern, and the standard error.
    largest
        The largest mean over voxels of the pattern at a measurement, in sd of the noise; as far as the parameters
        cannot take it up where the pattern is that of a setting.
    """

    pattern: Pattern
    amount: float
    error: float
    largest: float

    @property
    def sure(self) -> bool:
        """Whether it is there for sure."""
        return abs(self.amount) > _SURE * self.error

    @property
    def alarms(self) -> bool:
        """Whether it is large enough to matter, besides."""
        return self.sure and self.largest > self.pattern.least


def floor_of(found: Residuals, magnitude: bool, coils: float) -> Tensor:
    """What the next higher noise floor adds to the mean of each measurement, in sd ``(n, M)``.

    That of magnitudes where a likelihood has none, that of four times as many coils where it has one.
    """
    noise = found.noise.expand_as(found.signal)
    signal = found.signal.abs() if not magnitude else found.signal
    if not magnitude:
        return (rice_moments(signal, noise)[0] - signal) / found.sd
    above = ncchi_moments(signal, noise, _MORE_COILS * coils)[0]
    own = rice_moments(signal, noise)[0] if coils == 1 else ncchi_moments(signal, noise, coils)[0]
    return (above - own) / found.sd


def patterns_of(
    found: Residuals, acq: Acquisition, likelihood: object, in_order: bool, widening: Tensor | None = None
) -> list[Pattern]:
    """Every pattern that a scan's measurements can show.

    Parameters
    ----------
    acq
        Settings of the M measurements.
    likelihood
        Of the measurements.
    in_order
        Whether measurements stand in the order in which they were made.
    widening
        What a variance of the diffusivity within a voxel would add to the signals ``(n, M)``.
    """
    magnitude, coils = bool(getattr(likelihood, "magnitude", False)), float(getattr(likelihood, "coils", 1.0))
    patterns: list[Pattern] = []
    if (found.signal >= 0).all():
        least = _LEAST[FLOOR] if magnitude else _LEAST_GAUSSIAN
        patterns.append(Pattern(FLOOR, floor_of(found, magnitude, coils), least=least))
    if widening is not None:
        patterns.append(Pattern(WIDTH, widening / found.sd, least=_LEAST[WIDTH]))
    groups = [group for group in alike(acq) if len(group)]
    if len(groups) > 1:
        for group in groups:
            shape = torch.zeros(len(acq), dtype=torch.float64)
            shape[torch.from_numpy(group)] = 1.0
            patterns.append(Pattern(SETTING, shape, group, _LEAST[SETTING]))
    if in_order and len(acq) >= 2 * len(groups):
        time = torch.linspace(-0.5, 0.5, len(acq), dtype=torch.float64)
        for group in groups:  # what the order shares with the settings is theirs
            time[torch.from_numpy(group)] -= time[torch.from_numpy(group)].mean()
        patterns.append(Pattern(DRIFT, found.signal / found.sd * time, least=_LEAST[DRIFT]))
    return patterns


def amount_of(pattern: Pattern, found: Residuals, value: Tensor) -> Seen:
    """How much of a pattern is in residuals ``value`` ``(n, M)``; the error is the spread between voxels."""
    shape = found.free_of_parameters(pattern.shape)
    each, weight = (shape * value).sum(-1), shape.square().sum(-1)
    total = float(weight.sum())
    if not total > 1e-6 * shape.numel():
        return Seen(pattern, 0.0, 1.0, 0.0)
    amount = float(each.sum()) / total
    error = float((each - amount * weight).square().sum().sqrt()) / total
    whole = shape if pattern.kind == SETTING else pattern.shape.expand_as(value)
    return Seen(pattern, amount, error, abs(amount) * float(whole.mean(0).abs().max()))


def patterns_in(found: Residuals, patterns: Sequence[Pattern], report: Callable[[Seen], None]) -> Tensor:
    """Report the patterns that residuals show, the clearest first, and return the residuals without them ``(n, M)``.

    Each is taken out before the next is looked for, so that what two causes share goes to the one that explains more;
    a noise floor too low for a warning is taken out too, or the settings of weak signals would be blamed for it.
    """
    value, left = found.value, list(patterns)
    while left:
        seen = [amount_of(pattern, found, value) for pattern in left]
        shown = (s for s in seen if s.alarms or (s.sure and s.pattern.kind == FLOOR))
        best = max(shown, key=lambda s: abs(s.amount) / s.error, default=None)
        if best is None:
            break
        if best.alarms:
            report(best)
        value = value - best.amount * found.free_of_parameters(best.pattern.shape)
        left = [pattern for pattern in left if pattern is not best.pattern]
        if best.pattern.kind == FLOOR:
            left = [replace(p, least=max(p.least, _LEAST_BESIDE_FLOOR)) if p.kind == SETTING else p for p in left]
    return value
