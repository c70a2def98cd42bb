"""The settings a scan was made with."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyroqmri.errors import InputError

NEGLIGIBLE_B = 0.006  # ms/um2; below it tissue loses at most 1 % of its signal, and fluid 2 %
FAR_OFFSET = 20.0  # ppm


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

    def __post_init__(self) -> None:
        length = None
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            value = torch.as_tensor(value, dtype=torch.float32)
            value = torch.atleast_2d(value) if field.name == "bvec" else value.flatten()
            object.__setattr__(self, field.name, value)
            if not torch.isfinite(value).all():
                raise InputError(f"{field.name} contains NaN or Inf; give one finite number per measurement")
            if length is not None and len(value) != length:
                raise InputError(f"{field.name} has {len(value)} entries where the other settings have {length}")
            length = len(value)
        if length is None:
            raise InputError("an acquisition needs at least one of bval, te, ti, flip, offset")
        if self.bvec is not None and self.bvec.shape[-1] != 3:
            raise InputError(f"bvec must be (M, 3), got {tuple(self.bvec.shape)}")
        self._check_units()

    def _check_units(self) -> None:
        if self.bval is not None and (self.bval < 0).any():
            raise InputError("bval contains negative values")
        if self.bval is not None and self.bval.max() > 100:
            raise InputError(
                f"bval reaches {self.bval.max():g}: pyroqmri expects ms/um2, so divide values in s/mm2 by 1000 "
                "(Acquisition.from_files does it)"
            )

    def __len__(self) -> int:
        return len(next(v for v in self.settings().values()))

    def settings(self) -> dict[str, Tensor]:
        """The settings that are given, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def require(self, *names: str) -> None:
        """Raise InputError unless every named setting is there."""
        for name in names:
            if getattr(self, name) is None:
                raise InputError(f"this signal needs {name}, and the acquisition has {', '.join(self.settings())}")

    def __getitem__(self, index: Any) -> "Acquisition":
        """The measurements at ``index``."""
        return Acquisition(**{name: value[index] for name, value in self.settings().items()})

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

    @classmethod
    def from_files(cls, bval: str | Path, bvec: str | Path | None = None) -> "Acquisition":
        """Read FSL-style gradient files; s/mm2 or ms/um2 and the orientation are recognised."""
        from pyroqmri.io import read_gradients

        return read_gradients(bval, bvec).acquisition
