"""The settings a scan was made with."""

import math
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError

NEGLIGIBLE_B = 0.006  # ms/um2; below it tissue loses at most 1 % of its signal, and fluid 2 %
FAR_OFFSET = 20.0  # ppm
HALF_SPECTRUM = 120.0  # half of a Z-spectrum's offsets are closer to water than so many ppm
WEIGHTED_ABOVE = 0.05  # ms/um2; below it many call a volume b0, and none needs a direction
MOST_AVERAGES = 10_000
_ROUNDED = 0.12  # of a unit vector's length, as coarsely as tables are rounded
_SAME_STEP = 1e-3  # of an echo spacing
# by setting: what no scan exceeds, and the unit, for who gives another one
_LARGEST = {
    "bval": (100.0, "ms/um2, so divide values in s/mm2 by 1000 (Acquisition.from_files does it)"),
    "te": (1e5, "ms"),
    "ti": (1e6, "ms"),
    "tr": (1e6, "ms"),
    "flip": (2 * math.pi + 1e-3, "rad, so multiply degrees by pi / 180"),
}


def shortest_step(te: Tensor) -> float:
    """The shortest of the echo times ``(M,)`` and the steps between them, ms: the spacing of a whole train."""
    times = torch.unique(te)
    return float(torch.cat([times[:1], times.diff()]).min())


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """Settings of the M measurements of a scan; every one ``(M,)`` or None.

    Parameters
    ----------
    bval
        b-values in ms/um2.
    bvec
        Unit gradient directions, ``(M, 3)``; zero where b is zero.
    te, ti, tr
        Echo, inversion and repetition times in ms.
    flip
        Flip angles in rad.
    offset
        Frequencies of saturation in ppm from water.
    mt
        Whether a magnetisation transfer pulse is on, 1, or off, 0.
    readout, ti_other, flip_other, tr_readout, shots_before, shots_after
        Of MP2RAGE, as :func:`pyroqmri.signals.mp2rage_acquisition` makes them: 0 for the uniform image, else which
        train it is; time and angle of the other train, the time between excitations, and how many there are before and
        after the centre of k-space.
    echo_spacing
        Time between the echoes of a spin-echo train in ms, where the echo times do not show it: some of a train are
        left when others are left out.
    averages
        How many magnitude images each measurement is the mean of, 1 or more; one where None. Signals do not depend on
        it, the likelihood does.

    Raises
    ------
    InputError
        When nothing is given, lengths differ, or a value is not finite.
    """

    bval: Tensor | None = None
    bvec: Tensor | None = None
    te: Tensor | None = None
    ti: Tensor | None = None
    tr: Tensor | None = None
    flip: Tensor | None = None
    offset: Tensor | None = None
    mt: Tensor | None = None
    readout: Tensor | None = None
    ti_other: Tensor | None = None
    flip_other: Tensor | None = None
    tr_readout: Tensor | None = None
    shots_before: Tensor | None = None
    shots_after: Tensor | None = None
    echo_spacing: Tensor | None = None
    averages: Tensor | None = None

    def __post_init__(self) -> None:
        length = None
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            value = _numbers(field.name, value)
            value = torch.atleast_2d(value) if field.name == "bvec" else value.flatten()
            object.__setattr__(self, field.name, value)
            if length is not None and len(value) != length:
                raise InputError(f"{field.name} has {len(value)} entries where the other settings have {length}")
            length = len(value)
        if not length or set(self.settings()) == {"averages"}:
            raise InputError(
                "an acquisition needs at least one measurement and a setting that signals depend on, such as bval, te, "
                "ti, flip or offset"
            )
        if self.bvec is not None and self.bvec.shape[-1] != 3:
            raise InputError(f"bvec must be (M, 3), got {tuple(self.bvec.shape)}")
        self._check_units()

    def _check_units(self) -> None:
        for name, (largest, expected) in _LARGEST.items():
            value = getattr(self, name)
            if value is None:
                continue
            if (value < 0).any():
                raise InputError(f"{name} contains negative values, the lowest is {value.min():g}")
            if value.max() > largest:
                raise InputError(f"{name} reaches {value.max():g}: pyroqmri expects {expected}")
        if self.mt is not None and not ((self.mt == 0) | (self.mt == 1)).all():
            raise InputError("mt must be 1 where a magnetisation transfer pulse is on, and 0 where it is off")
        if self.averages is not None and not bool(((self.averages >= 1) & (self.averages <= MOST_AVERAGES)).all()):
            raise InputError(
                f"averages are {self.averages.min():g} to {self.averages.max():g}, and each is a number of magnitude "
                f"images, 1 to {MOST_AVERAGES}"
            )
        if self.offset is not None:
            size = self.offset.abs().unique()
            if len(size) >= 5 and size.median() > HALF_SPECTRUM:
                raise InputError(
                    f"half of the offsets are beyond {size.median():g}: pyroqmri expects ppm, so divide values in Hz "
                    "by the frequency of water in MHz"
                )
        if self.bvec is not None:
            self._check_lengths(self.bvec)

    def _check_lengths(self, bvec: Tensor) -> None:
        norm = bvec.norm(dim=-1)
        off = ((norm - 1).abs() > _ROUNDED) & (norm > 0)
        if self.bval is not None:
            off &= self.bval > WEIGHTED_ABOVE
        if off.any():
            i = int(off.nonzero()[0])
            raise InputError(
                f"{int(off.sum())} directions of bvec are not unit vectors, the first is that of volume {i} with the "
                f"length {norm[i]:.4g}; normalise them, and let b-values include what the length scales"
            )

    def __len__(self) -> int:
        return len(next(v for v in self.settings().values()))

    def settings(self) -> dict[str, Tensor]:
        """The settings that are given, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    @property
    def n_averages(self) -> Tensor:
        """How many magnitude images each measurement is the mean of ``(M,)``, ones where nothing is known of it."""
        first = next(iter(self.settings().values()))
        return first.new_ones(len(first)) if self.averages is None else self.averages

    def averaged(self, averages: Any) -> "Acquisition":
        """The same measurements as means of ``averages`` magnitude images, a number or ``(M,)``; None is no change.

        Raises
        ------
        InputError
            When there is neither one for all nor one for each measurement, or one is below 1.
        """
        if averages is None:
            return self
        counts = _numbers("averages", averages).flatten().cpu()
        if len(counts) not in (1, len(self)):
            raise InputError(
                f"averages has {len(counts)} entries for {len(self)} measurements; give one number, or one each"
            )
        return replace(self, averages=counts.expand(len(self)).clone())

    def require(self, *names: str) -> None:
        """Raise InputError unless every named setting is there, and a direction wherever b > 0 if ``bvec`` is named."""
        for name in names:
            if getattr(self, name) is None:
                raise InputError(f"this signal needs {name}, and the acquisition has {', '.join(self.settings())}")
        if "bvec" in names and self.undirected.any():
            found = ",".join(str(i) for i in self.undirected.nonzero().flatten().tolist())
            raise InputError(
                f"no direction (0 0 0) in bvec for volume{'s' if ',' in found else ''} {found} (counted from 0), where "
                "b > 0, such as a trace-weighted average, and this signal needs one; leave such volumes out with "
                f"--drop-volumes {found}, or correct bvec"
            )

    def __getitem__(self, index: Any) -> "Acquisition":
        """The measurements at ``index``, which are echoes of the same train as before."""
        part = Acquisition(**{name: value[index] for name, value in self.settings().items()})
        if self.te is None or part.te is None or self.echo_spacing is not None:
            return part
        spacing = shortest_step(self.te)
        if abs(shortest_step(part.te) - spacing) <= _SAME_STEP * spacing:
            return part
        return replace(part, echo_spacing=torch.full_like(part.te, spacing))

    def to(self, device: torch.device | str) -> "Acquisition":
        """The same settings on another device."""
        return self.trusted(**{name: value.to(device) for name, value in self.settings().items()})

    @classmethod
    def trusted(cls, **settings: Tensor) -> "Acquisition":
        """Settings that were checked before: no copy, no check, cheap enough for an inner loop."""
        acquisition = object.__new__(cls)
        for field in fields(cls):
            object.__setattr__(acquisition, field.name, settings.get(field.name))
        return acquisition

    @property
    def b0(self) -> Tensor:
        """Mask ``(M,)`` of the measurements whose b-value does nothing to tissue: 0.006 ms/um2 or less.

        What a signal takes for S0 itself is its own affair: :func:`pyroqmri.measurements.s0.s0_volumes`.
        """
        self.require("bval")
        assert self.bval is not None
        return self.bval <= NEGLIGIBLE_B + 1e-5  # float32

    @property
    def undirected(self) -> Tensor:
        """Mask ``(M,)`` of the weighted measurements without a direction, such as averages over directions."""
        if self.bvec is None or self.bval is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return (self.bval > WEIGHTED_ABOVE) & (self.bvec == 0).all(-1)

    @classmethod
    def from_files(cls, bval: str | Path, bvec: str | Path | None = None) -> "Acquisition":
        """Read FSL-style gradient files; s/mm2 or ms/um2 and the orientation are recognised."""
        from pyroqmri.io import read_gradients

        found = read_gradients(bval, bvec)
        for warning in found.warnings:
            warnings.warn(warning, stacklevel=2)
        return found.acquisition


def _numbers(name: str, value: Any) -> Tensor:
    """A setting as finite float32."""
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = torch.tensor(False)
    if found.dtype is torch.bool or found.is_complex():
        raise InputError(f"{name} is no array of real numbers; give one finite number per measurement")
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise InputError(f"{name} is masked in places; give one finite number per measurement")
    found = found.detach().to(torch.float32)
    if not torch.isfinite(found).all():
        raise InputError(f"{name} contains NaN or Inf; give one finite number per measurement")
    return found
