"""BIDS sidecars: those that apply to an image, and the numbers in them."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.io.names import inherited

# BIDS has no name for the frequencies of saturation yet
BIDS_KEYS = {
    "te": "EchoTime",
    "ti": "InversionTime",
    "tr": "RepetitionTime",
    "flip": "FlipAngle",
    "offset": "SaturationOffset",
    "mt": "MTState",
}
_PROTON_MHZ_PER_T = 42.577
_EXCITATION, _PREPARATION = "RepetitionTimeExcitation", "RepetitionTimePreparation"


@dataclass(frozen=True)
class Sidecar:
    """Entries of the sidecars that apply to one image, each with the file that it stands in.

    ``rivals`` are entries on which two files of one rank disagree.
    """

    entries: dict[str, Any]
    files: dict[str, Path]
    rivals: dict[str, Path] = field(default_factory=dict)

    def numbers(self, key: str) -> np.ndarray:
        """Finite numbers ``(K,)`` of an entry that is one or a list of them.

        Raises
        ------
        InputError
            When the entry is anything else, or two sidecars state it differently.
        """
        entry, path = self.entries[key], self.files[key]
        if key in self.rivals:
            raise InputError(
                f"{key} differs between {path} and {self.rivals[key].name}, and either applies; keep one of them"
            )
        found = entry if isinstance(entry, list) else [entry]
        shown = f"sidecar {path}: {key} is {_short(entry)}"
        if any(isinstance(value, str) for value in found) and all(isinstance(v, str) and _is_number(v) for v in found):
            raise InputError(f"{shown}, a text; write the number without quotation marks")
        if key == BIDS_KEYS["mt"]:
            found = [int(value) if isinstance(value, bool) else value for value in found]
        # True is an int in Python
        if not found or any(type(value) not in (int, float) for value in found):
            raise InputError(f"{shown}; expected a number or a list of numbers")
        if not all(math.isfinite(value) for value in found):
            raise InputError(f"{shown}; expected finite numbers")
        return np.array(found, dtype=float)

    def source(self, key: str) -> str:
        """The file of an entry, as messages name it."""
        return self.files[key].name

    def ours(self, key: str) -> bool:
        """Whether an entry was written by this package, whose times are in seconds whatever their size."""
        return self.files[key] == self.files.get("GeneratedBy") and "pyroqmri" in str(self.entries["GeneratedBy"])

    def tr_key(self, has_ti: bool, angles_vary: bool) -> str | None:
        """The entry that is the repetition time of the signal equation, or None.

        Between inversions it is that of the preparation; a spoiled gradient echo's is that of its excitations.
        """
        have = [key for key in (_PREPARATION, BIDS_KEYS["tr"], _EXCITATION) if key in self.entries]
        if angles_vary and not has_ti:
            return next((key for key in (_EXCITATION, BIDS_KEYS["tr"]) if key in have), None)
        if has_ti and _PREPARATION not in have and len(have) == 2:
            return max(have, key=lambda key: self.numbers(key).max())  # the other is that of the readout
        return have[0] if have else None

    def water_mhz(self) -> tuple[float, str] | None:
        """Frequency of water in MHz and where it stands, or None when no sidecar has it."""
        for key, scale in (("ImagingFrequency", 1.0), ("MagneticFieldStrength", _PROTON_MHZ_PER_T)):
            if key in self.entries:
                value = float(self.numbers(key)[0])
                mhz = (value / 1e6 if value > 1e6 else value) * scale
                if 1.0 <= mhz <= 1000.0:
                    return mhz, f"{key} {value:g} in {self.source(key)}"
        return None


def read_sidecar(image: str | Path, given: str | Path | None = None) -> Sidecar:
    """The entries that apply to an image: those of the file that is given, or found by BIDS inheritance.

    Raises
    ------
    InputError
        When a sidecar cannot be read, is not valid JSON or contains no table.
    """
    entries: dict[str, Any] = {}
    files: dict[str, Path] = {}
    rivals: dict[str, Path] = {}
    for rank in [[Path(given)]] if given is not None else inherited(image, ".json"):
        fresh: dict[str, Any] = {}
        for path in rank:
            for key, value in read_table(path, "sidecar").items():
                if key in fresh and fresh[key] != value:
                    rivals.setdefault(key, path)
                elif key not in entries and key not in fresh:
                    fresh[key], files[key] = value, path
        entries |= fresh
    return Sidecar(entries, files, rivals)


def stated_beside(image: str | Path, given: str | Path | None = None) -> dict[str, Any]:
    """Entries that apply to an image, for remarks on it: none where they cannot be read, which readers report."""
    try:
        return read_sidecar(image, given).entries
    except InputError:
        return {}


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _short(entry: Any) -> str:
    text = repr(entry)
    return text if len(text) <= 60 else text[:57] + "..."


def averages_note(image: str | Path, json: str | Path | None = None) -> list[str]:
    """A sentence where an image's sidecars state that it was averaged, which does not say of what."""
    found = read_sidecar(image, json)
    if "NumberOfAverages" not in found.entries:
        return []
    try:
        most = found.numbers("NumberOfAverages").max()
    except InputError:
        return []
    if most <= 1:
        return []
    return [
        f"NumberOfAverages is {most:g} in {found.source('NumberOfAverages')}: where magnitude images were averaged, "
        f"and not complex ones, give --averages {most:g}"
    ]
