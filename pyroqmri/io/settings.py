"""Echo, inversion and repetition times, flip angles and saturation offsets: text files and BIDS sidecars."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.io.names import stem
from pyroqmri.io.text import read_vector

# BIDS has no name for the frequencies of saturation yet
BIDS_KEYS = {
    "te": "EchoTime",
    "ti": "InversionTime",
    "tr": "RepetitionTime",
    "flip": "FlipAngle",
    "offset": "SaturationOffset",
}
# a longest time at or below this is in seconds: no scan ends its echoes within 1.5 ms,
# its inversion times within 25 ms, or repeats faster than every millisecond
LONGEST_IN_SECONDS = {"te": 1.5, "ti": 25.0, "tr": 1.0}
# BIDS states seconds; a repetition time of 5 in a sidecar is one, where in a text file it may be a gradient echo's
LONGEST_IN_SIDECAR = {**LONGEST_IN_SECONDS, "tr": 25.0}


@dataclass(frozen=True)
class Settings:
    """Settings ``(M,)`` by name, times in ms, angles in rad, offsets in ppm; ``notes`` say what was assumed."""

    values: dict[str, np.ndarray]
    notes: list[str]


def read_settings(
    image_path: str | Path,
    *,
    te: str | Path | None = None,
    ti: str | Path | None = None,
    flip: str | Path | None = None,
    tr: str | Path | None = None,
    offset: str | Path | None = None,
    json: str | Path | None = None,
    n_volumes: int | None = None,
    names: Collection[str] = tuple(BIDS_KEYS),
    texts: bool = True,
) -> Settings:
    """Read the times, angles and offsets of a scan, from the files given or found beside the image.

    Files that are given are read; only those of ``names`` are looked for, and without ``texts`` in the sidecar alone.

    Text files (``X.te``, ``X_te.txt``, ``TE_ms.txt``, ``te.txt``) hold one number a volume; times
    in ms or s and angles in degrees or rad are recognised, and offsets are in ppm. A BIDS sidecar (``X.json``) holds
    seconds and degrees, one number or a list. A text file goes before the sidecar.

    Raises
    ------
    InputError
        For a missing or malformed file, a value that is not positive, or another number
        of entries than ``n_volumes``.
    """
    image_path = Path(image_path)
    values: dict[str, np.ndarray] = {}
    notes: list[str] = []
    sidecar, sidecar_path = _sidecar(image_path, json)
    for name, given in {"te": te, "ti": ti, "flip": flip, "tr": tr, "offset": offset}.items():
        if given is None and name not in names:
            continue
        path = Path(given) if given is not None else _beside(image_path, name) if texts else None
        if path is not None:
            raw, source, unit, longest = read_vector(path, name), path, _text_unit(name, path), LONGEST_IN_SECONDS
        elif BIDS_KEYS[name] in sidecar:
            raw = _numbers(sidecar[BIDS_KEYS[name]], BIDS_KEYS[name], sidecar_path)
            source, unit, longest = sidecar_path, "deg" if name == "flip" else None, LONGEST_IN_SIDECAR
        else:
            continue
        if name != "offset" and ((raw < 0).any() or (name != "ti" and (raw == 0).any())):
            raise InputError(f"{name} in {source} contains {raw.min():g}; give positive numbers")
        if n_volumes is not None and len(raw) == 1:
            raw = np.repeat(raw, n_volumes)
        if n_volumes is not None and len(raw) != n_volumes:
            raise InputError(f"{name} in {source} has {len(raw)} entries and the image has {n_volumes} volumes")
        values[name], said = _convert(name, raw, unit, longest)
        notes.append(f"{name} read as {said} from {source.name} (largest {raw.max():g})")
    return Settings(values, notes)


def _convert(name: str, raw: np.ndarray, unit: str | None, longest: dict[str, float]) -> tuple[np.ndarray, str]:
    """Values in ms, rad or ppm, and the unit they were read as; ``unit`` None asks to recognise it."""
    if name == "offset":
        return raw, "ppm"
    if name == "flip":
        # no protocol turns by less than 3.2 degrees throughout, none by more than half a turn
        in_rad = unit == "rad" or (unit is None and raw.max() <= 3.2)
        return (raw, "rad") if in_rad else (raw * math.pi / 180, "degrees")
    in_s = unit == "s" or (unit is None and raw.max() <= longest[name])
    return (raw * 1000, "s") if in_s else (raw, "ms")


def _text_unit(name: str, path: Path) -> str | None:
    """The unit that a file's own name states, such as TE_ms.txt."""
    last = path.stem.lower().rsplit("_", 1)[-1]
    units = {"deg": "deg", "rad": "rad"} if name == "flip" else {"ms": "ms", "s": "s"}
    return units.get(last)


def _beside(image_path: Path, name: str) -> Path | None:
    """The text file of one setting beside the image, under its usual names."""
    unit = {"flip": "_deg", "offset": "_ppm"}.get(name, "_ms")
    upper = {"flip": "FA", "offset": "offset"}.get(name, name.upper())
    own = stem(image_path)
    names = (f"{own}.{name}", f"{own}_{name}.txt", f"{upper}{unit}.txt", f"{upper}.txt", f"{name}.txt")
    return next((image_path.parent / n for n in names if (image_path.parent / n).is_file()), None)


def _sidecar(image_path: Path, given: str | Path | None) -> tuple[dict[str, Any], Path]:
    path = Path(given) if given is not None else image_path.parent / f"{stem(image_path)}.json"
    if given is None and not path.is_file():
        return {}, path
    return read_table(path, "sidecar"), path


def _numbers(entry: Any, key: str, path: Path) -> np.ndarray:
    try:
        values = np.atleast_1d(np.asarray(entry, dtype=float)).ravel()
    except (TypeError, ValueError):
        raise InputError(f"sidecar {path}: {key} is {entry!r}; expected a number or a list of numbers") from None
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"sidecar {path}: {key} is {entry!r}; expected finite numbers")
    return values
