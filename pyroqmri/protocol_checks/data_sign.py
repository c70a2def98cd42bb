"""The sign of the data against that of the signal."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals import SIGNALS

_VOXELS = 2000
_SHARE = 0.01  # of values below zero, which magnitudes have only by rounding and interpolation
_SIZE = 2e-3  # of a voxel's largest value: less is rounding or the ringing of an interpolation
_INVERTED = 0.25, 0.2  # of a voxel's largest value, below zero: more than noise; share of the voxels
_WRAPPED = 0.005, 0.7  # share of the values; depth of the lowest of them over height of the highest: SNR below 4
_NULL = 0.05, 0.01  # of a voxel's largest value, and share of the voxels
_FOLDED = 0.1, 0.3  # dip of an inversion recovery in magnitudes, and share of the voxels that have it


@dataclass(frozen=True)
class Sign:
    """How negative measurements are.

    Attributes
    ----------
    share
        Of all measurements.
    size
        Root mean square of those, over the voxels' largest ones.
    inverted
        Whether many voxels have one so far below zero that no noise puts it there.
    """

    share: float
    size: float
    inverted: bool

    @property
    def real(self) -> bool:
        """Whether the data keep their sign, as the real part of an image does."""
        return self.share > _SHARE and self.size > _SIZE


def sign_of(y: Tensor) -> Sign:
    """The sign of measurements ``(N, M)``, on a sample of voxels that are finite and have a signal."""
    if bool((_every(y) >= 0).all()):  # as of magnitudes, none of them NaN
        return Sign(0.0, 0.0, False)
    some = _sample(y)
    below = some < 0
    if len(some) == 0 or not bool(below.any()):
        return Sign(0.0, 0.0, False)
    relative = some / some.abs().amax(-1, keepdim=True)
    depth, share = _INVERTED
    inverted = float((relative.amin(-1) < -depth).double().mean()) > share
    return Sign(float(below.double().mean()), float(relative[below].square().mean().sqrt()), inverted)


def _every(y: Tensor) -> Tensor:
    """About 2,000 of the voxels."""
    return y[:: max(1, len(y) // _VOXELS)]


def _sample(y: Tensor) -> Tensor:
    some = _every(y).double()
    return some[torch.isfinite(some).all(-1) & (some != 0).any(-1)]


def check_sign(found: Sign, y: Tensor, acquisition: Acquisition, signal: str) -> list[str]:
    """Sentences on data whose sign does not suit the signal.

    Raises
    ------
    InputError
        When inversion data keep their sign and the signal describes their magnitude.
    """
    model = SIGNALS[signal]
    twin = _twin(signal)
    many = found.share > _WRAPPED[0]  # else the lowest values that count are not below zero, and nothing need be sorted
    if many and not model.signed and not {"ti", "readout"} & set(model.requires) and _overflowed(y):
        return [
            f"{100 * found.share:.2g} % of the values are negative, as far below zero as others are above, where "
            f"{signal} is above zero: integers that overflowed where the scan was converted, phase, or another image "
            "that is no magnitude; convert it again"
        ]
    if not model.signed and "ti" in model.requires and found.real and found.inverted:
        other = "" if twin is None else f"use signal {twin}, or "
        raise InputError(
            f"{100 * found.share:.2g} % of the values are negative, so these data keep their sign, and {signal} "
            f"describes magnitudes; {other}give magnitude data"
        )
    if acquisition.readout is not None and len(acquisition) > 1 and found.share == 0 and _null_is_seen(y):
        raise InputError(
            "no value is negative: magnitudes of the pair leave the sign of its first image, and with it T1, open; "
            "give the uniform image (UNIT1), or the pair with its sign"
        )
    if model.signed and twin is not None and not found.real and _folded(y, acquisition):
        return [
            f"no value is negative, and measurements fall and rise again with ti as magnitudes do, where {signal} "
            f"describes data that keep their sign; use signal {twin}"
        ]
    return []


def _overflowed(y: Tensor) -> bool:
    """Whether many values are so negative that it is no noise around zero: wrapped integers reach both ends."""
    some = _sample(y)
    if len(some) == 0:
        return False
    share, depth = _WRAPPED
    values = some.flatten()
    low, high = (float(values.quantile(q)) for q in (share, 1 - share))
    return -low > depth * high


def _twin(signal: str) -> str | None:
    """The signal of the same parameters and settings that describes data of the other kind."""
    model = SIGNALS[signal]
    for name, other in SIGNALS.items():
        same = other.requires == model.requires and [p.name for p in other.parameters] == [
            p.name for p in model.parameters
        ]
        if same and other.signed != model.signed:
            return name
    return None


def _folded(y: Tensor, acquisition: Acquisition) -> bool:
    """Whether the measurement at the shortest inversion time stands clearly above a later one in many voxels."""
    if acquisition.ti is None:
        return False
    some = _sample(y)[:, acquisition.ti.argsort()]
    if len(some) == 0 or some.shape[1] < 3:
        return False
    dip, share = _FOLDED
    drop = (some[:, 0] - some.amin(-1)) / some.amax(-1).clamp_min(1e-30)
    return float((drop > dip).double().mean()) > share


def _null_is_seen(y: Tensor) -> bool:
    """Whether the smaller of the measurements passes near zero in some voxels, where a sign would change."""
    some = _sample(y)
    near, share = _NULL
    return len(some) > 0 and float((some.amin(-1) < near * some.amax(-1)).double().mean()) > share


def gaussian_in_place(found: Sign, kind: str) -> str:
    """A sentence for a likelihood of magnitudes that gives way to a Gaussian one."""
    return (
        f"{100 * found.share:.2g} % of the values are negative, so these data keep their sign and are no magnitudes: "
        f"likelihood gaussian is used in place of {kind}, and sds are right where the phase was removed without noise "
        "of its own; give --likelihood, or likelihood=, to choose another"
    )


def magnitudes_asked_for(found: Sign, kind: str) -> str:
    """A sentence for a likelihood of magnitudes that was asked for on data that keep their sign."""
    return (
        f"{100 * found.share:.2g} % of the values are negative, which {kind} magnitudes cannot be: they are set to "
        "zero, which biases every parameter; use likelihood gaussian"
    )
