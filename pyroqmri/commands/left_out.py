"""Volumes that are left out of a scan before anything is judged: by number, by b-value, or as an earlier fit did."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io import Scan
from pyroqmri.io.text import name_volumes
from pyroqmri.protocol_checks.reach import SLACK

SMALLEST_BMAX = 20.0  # s/mm2; a lower one is in ms/um2


@dataclass(frozen=True)
class LeaveOut:
    """What is left out.

    Parameters
    ----------
    volumes
        Numbers from 0 on, such as ``12,40-45``; None for none.
    bmax
        Volumes with a b-value above it (s/mm2) are left out; None for no limit.
    earlier
        What a fit that is used again was trained without, as :func:`left_out_record` has it.
    """

    volumes: str | None = None
    bmax: float | None = None
    earlier: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, acquisition: Acquisition) -> np.ndarray:
        """Whether each volume is left out ``(M,)``.

        Raises
        ------
        InputError
            When a number is none of the scan's, there are no b-values to limit, or too little would be left.
        """
        n = len(acquisition)
        which = np.zeros(n, bool) if self.volumes is None else volume_numbers(self.volumes, n)
        if self.bmax is not None:
            which |= _above(acquisition, self.bmax)
        if self.earlier.get("of") == n:
            which[self.earlier["volumes"]] = True
        elif self.earlier.get("bmax") is not None:
            which |= _above(acquisition, self.earlier["bmax"])
        check_left(which)
        return which

    def notes(self, scan: Scan) -> list[str]:
        """What was left out of a scan, and why."""
        if scan.whole is None:
            return []
        which = np.ones(len(scan.whole), bool)
        which[scan.numbers] = False
        limits = [b for b in (self.bmax, self.earlier.get("bmax")) if b is not None]
        high = _above(scan.whole, min(limits)) if limits else np.zeros(len(which), bool)
        asked = high.copy() if self.volumes is None else high | volume_numbers(self.volumes, len(which))
        said = []
        if high.any():
            said.append(f"left out: {int(high.sum())} volumes above b {min(limits):g} s/mm2 (--bmax)")
        if (asked & ~high).any():
            said.append(f"left out: {name_volumes(asked & ~high)}, as asked for")
        if (which & ~asked).any():
            said.append(f"left out: {name_volumes(which & ~asked)}, as in the training of the fit")
        return [*said, f"{len(scan.numbers)} of {len(which)} volumes are used"] if said else []


def check_left(which: np.ndarray) -> None:
    """Refuse to leave out ``which`` ``(M,)`` where nothing would be left to fit."""
    left = int((~which).sum())
    if left < min(2, len(which)):
        raise InputError(f"--drop-volumes or --bmax leaves {left} of {len(which)} volumes; leave out fewer")


def volume_numbers(wish: str, n: int) -> np.ndarray:
    """Whether each of ``n`` volumes is named by numbers and ranges such as ``12,40-45`` ``(n,)``.

    Raises
    ------
    InputError
        When the text is no such list, or names a volume that there is not.
    """
    which = np.zeros(n, bool)
    for word in wish.split(","):
        first, dash, last = word.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"--drop-volumes takes numbers such as 12,40-45, got {wish!r}")
        low, high = int(first), int(last) if dash else int(first)
        if low > high:
            raise InputError(f"--drop-volumes names {word.strip()}: a range begins with the lower number, {high}-{low}")
        if high >= n:
            raise InputError(f"--drop-volumes names volume {word.strip()}; the image has volumes 0 to {n - 1}")
        which[low : high + 1] = True
    return which


def number_ranges(numbers: np.ndarray) -> str:
    """Volumes in words, such as ``volumes 3, 21-41``, cut after six parts."""
    numbers = np.sort(np.asarray(numbers))
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    words = [f"{p[0]}-{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts]
    rest = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
    return f"volume{'s' if len(numbers) > 1 else ''} {', '.join(words[:6])}{rest}"


def option(numbers: np.ndarray) -> str:
    """The option that leaves volumes out."""
    return "--drop-volumes " + number_ranges(numbers).partition(" ")[2].replace(" ", "")


def _above(acquisition: Acquisition, bmax: float) -> np.ndarray:
    if acquisition.bval is None:
        raise InputError("--bmax limits b-values, which this signal does not use; leave it out")
    if bmax < SMALLEST_BMAX:
        such = f"{1000 * bmax:g}" if bmax > 0 else "1500, for one"
        raise InputError(f"--bmax is in s/mm2, and {bmax:g} leaves out nearly all; give --bmax {such}")
    return 1000 * acquisition.bval.numpy() > (1 + SLACK) * bmax


def left_out_record(scan: Scan, bmax: float | None) -> dict[str, Any]:
    """What was left out of a scan, for ``fit.json``: of how many volumes, which, and by which limit on b (s/mm2)."""
    if scan.whole is None:
        return {}
    n = len(scan.whole)
    return {"of": n, "volumes": sorted({*range(n)} - {*scan.numbers.tolist()}), "bmax": bmax}


def earlier_record(fit_dir: str | Path) -> dict[str, Any]:
    """What a saved fit was trained without; empty where it had every volume."""
    folder = Path(fit_dir)
    path = folder / "fit" / "fit.json" if (folder / "fit" / "fit.json").is_file() else folder / "fit.json"
    try:
        found = json.loads(path.read_text()).get("left_out", {})
        numbers = [int(i) for i in found.get("volumes", ())]
        bmax = None if found.get("bmax") is None else float(found["bmax"])
        if not all(0 <= i < int(found.get("of", 0)) for i in numbers):
            raise ValueError("volumes that there are not")
    except OSError:
        return {}  # whoever reads the fit says so
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: left_out is no record of volumes ({error}); restore the folder") from error
    return {"of": int(found["of"]), "volumes": numbers, "bmax": bmax} if found else {}
