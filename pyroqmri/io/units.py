"""Units that numbers come in: what files state of them, and the settings and maps that are recognised alone."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pyroqmri.errors import InputError

TO_OURS = {"ms": 1.0, "s": 1000.0, "rad": 1.0, "deg": math.pi / 180, "ppm": 1.0, "hz": 1.0}
SPELLED = {"deg": "degrees", "hz": "Hz"}


@dataclass(frozen=True)
class Stated:
    """Numbers of one setting ``(M,)`` as a file has them.

    Parameters
    ----------
    unit
        What its file states: the end of a text file's name, or seconds and degrees for a sidecar; None is unstated.
    source
        The file, as messages name it.
    kind
        ``text``, ``name`` (a text file whose name states the unit, or what this package wrote) or ``sidecar``.
    """

    name: str
    values: np.ndarray
    unit: str | None
    source: str
    kind: str

    def read_in(self, unit: str) -> np.ndarray:
        """Values ``(M,)`` in ms, rad or ppm when the numbers are in ``unit``."""
        with np.errstate(over="ignore"):
            return self.values * TO_OURS[unit]


def span(values: np.ndarray) -> str:
    """The range of values in words."""
    low, high = _plain(values.min()), _plain(values.max())
    return high if high == low else f"{low} to {high}"


def _plain(x: float) -> str:
    """Four digits, without an exponent where that is readable."""
    if 1e4 <= abs(x) < 1e7:
        return np.format_float_positional(x, 4, fractional=False, trim="-")
    return f"{x:.4g}"


def spelled(unit: str) -> str:
    """A unit as people write it."""
    return SPELLED.get(unit, unit)


def offset_unit(s: Stated) -> str:
    """Whether saturation offsets are in ``ppm`` or ``hz``.

    Within a Z-spectrum most offsets are within 15 ppm of water, and references (M0) lie hundreds of ppm off; in Hz
    half of the spectrum is beyond 120.

    Raises
    ------
    InputError
        When both are possible.
    """
    if s.unit is not None:
        return s.unit
    size = np.abs(np.unique(s.values[s.values != 0]))
    if not len(size) or np.mean(size <= 15) >= 0.4:
        return "ppm"
    if np.median(size) >= 120:
        return "hz"
    raise InputError(
        f"offset in {s.source} is {span(s.values)}: in ppm or in Hz, and both are possible; state the unit in the "
        "file's name, offset_ppm.txt or offset_hz.txt"
    )


_PER_CENT = re.compile("%|pct|perc|per_cent|per cent")

B_UNITS = {"s/mm2": 1.0, "ms/um2": 1000.0, "s/m2": 1e-6}
# largest b-value of a protocol in each unit: usual, possible
_LARGEST_B = {
    "s/mm2": ((100.0, 20_000.0), (30.0, 1e5)),
    "ms/um2": ((0.1, 30.0), (0.03, 100.0)),
    "s/m2": ((1e8, 2e10), (3e7, 1e11)),
}


def b_unit(values: np.ndarray, source: str) -> str:
    """Whether b-values ``(M,)`` are in ``s/mm2``, ``ms/um2`` or ``s/m2``, by the largest.

    Raises
    ------
    InputError
        When none of them, or more than one, is possible.
    """
    largest = values.max()
    for which in (0, 1):
        units = [u for u, limits in _LARGEST_B.items() if limits[which][0] < largest <= limits[which][1]]
        if len(units) == 1:
            return units[0]
        if units:
            raise InputError(
                f"bval file {source} reaches {largest:g}: in {' or in '.join(units)}, and both are possible; multiply "
                "values in ms/um2 by 1000, or divide values in s/mm2 by 1000"
            )
    raise InputError(
        f"bval file {source} reaches {largest:g}: neither s/mm2 nor ms/um2 nor s/m2 is possible; convert it to s/mm2"
    )


def relative_b1(values: np.ndarray, source: str) -> tuple[np.ndarray, list[str]]:
    """B1 as the actual over the nominal flip angle, from a map of it or of per cent.

    Parameters
    ----------
    values
        Values of the map in tissue, any shape; NaN and zeros, where nothing was measured, do not count.
    source
        The map, as messages name it.

    Returns
    -------
    tuple
        Values over the nominal ones, of the same shape, and notes.

    Raises
    ------
    InputError
        When the map is in neither; the scales that it may be in are named.
    """
    measured = values[np.isfinite(values) & (values > 0)]
    if not measured.size:
        return values, []  # nothing to recognise a scale by: refused where inputs are checked
    middle = float(np.median(measured))
    if 0.3 <= middle <= 2.0:
        return values, []
    if 65 <= middle <= 150:
        return values / 100, [f"B1 in {source} read as per cent of the nominal flip angle (median {middle:.3g})"]
    guesses = "ten times the flip angle in degrees (Siemens) or Hz" if middle > 150 else "T, degrees or a difference"
    raise InputError(
        f"B1 map {source} has a median of {middle:.3g}: neither relative (about 1) nor per cent (about 100), perhaps "
        f"{guesses}; divide it by its nominal value"
    )


def field_in_ppm(values: np.ndarray, source: str) -> tuple[np.ndarray, list[str]]:
    """A map of the field, any shape, which has to be in ppm of the water frequency; no notes.

    Raises
    ------
    InputError
        When a twentieth of the values that are not zero lie beyond 5 ppm, as those of a map in Hz do.
    """
    measured = np.abs(values[np.isfinite(values) & (values != 0)])
    if measured.size and (largest := float(np.quantile(measured, 0.95))) > _WIDEST_FIELD:
        raise InputError(
            f"B0 map {source} reaches {largest:.3g} (95 % quantile), and no field is off by more than "
            f"{_WIDEST_FIELD:g} ppm: it may be in Hz; divide it by the scanner's frequency in MHz (127.7 at 3 T)"
        )
    return values, []


_WIDEST_FIELD = 5.0  # ppm
# inputs of signals whose maps come in more than one unit, and what brings them into the signal's
INPUT_UNITS: dict[str, Callable[[np.ndarray, str], tuple[np.ndarray, list[str]]]] = {
    "B1": relative_b1,
    "B0": field_in_ppm,
}


def input_in_unit(
    name: str, values: np.ndarray, source: str, unit: str = ""
) -> tuple[np.ndarray, list[str], list[str]]:
    """A per-voxel input of a signal in the signal's own unit, with notes and warnings; as it is without a rule.

    A conversion is a note where the file's name or its sidecar's ``unit`` states it, and a warning otherwise.

    Raises
    ------
    InputError
        When its unit cannot be recognised.
    """
    rule = INPUT_UNITS.get(name)
    if rule is None:
        return values, [], []
    values, said = rule(values, source)
    if _PER_CENT.search(f"{source.lower()} {unit.lower()}"):
        return values, said, []
    return values, [], [f"{text}; in degrees it would be wrong by its nominal angle: divide by that" for text in said]
