"""Echo, inversion and repetition times, flip angles and saturation offsets: text files and BIDS sidecars."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.io.names import is_ultrashort, setting_texts, suffix
from pyroqmri.io.sidecars import BIDS_KEYS, Sidecar, read_sidecar
from pyroqmri.io.text import name_volumes, read_vector
from pyroqmri.io.times import ULTRASHORT, decide
from pyroqmri.io.units import TO_OURS, Stated, offset_unit, span, spelled

__all__ = ["BIDS_KEYS", "Found", "Settings", "convert", "find_settings", "read_settings"]

# units that the end of a text file's name may state
UNITS = {
    "te": ("ms", "s"),
    "ti": ("ms", "s"),
    "tr": ("ms", "s"),
    "flip": ("deg", "rad"),
    "offset": ("ppm", "hz"),
    "mt": (),
}
_ORDER = ("te", "ti", "flip", "offset", "mt", "tr")  # which repetition time is meant depends on the others


@dataclass(frozen=True)
class Settings:
    """Settings ``(M,)`` by name, times in ms, angles in rad, offsets in ppm.

    ``notes`` say what was assumed and ``warnings`` what contradicts it; ``others`` are settings that were not asked
    for and that vary.
    """

    values: dict[str, np.ndarray]
    notes: list[str]
    warnings: list[str] = field(default_factory=list)
    others: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Settings of one image as its files state them, before their units are decided."""

    stated: dict[str, Stated]
    sidecar: Sidecar
    notes: list[str]
    warnings: list[str]


def read_settings(
    image_path: str | Path,
    *,
    te: str | Path | None = None,
    ti: str | Path | None = None,
    flip: str | Path | None = None,
    tr: str | Path | None = None,
    offset: str | Path | None = None,
    mt: str | Path | None = None,
    json: str | Path | None = None,
    n_volumes: int | None = None,
    names: Collection[str] = tuple(BIDS_KEYS),
    others: bool = False,
) -> Settings:
    """Read the times, angles and offsets of a scan, from the files given or found beside the image.

    Files that are given are read; only those of ``names`` are looked for, and with ``others`` those that vary as well.

    Text files (``X.te``, ``X_te_ms.txt``, ``TE_ms.txt``, ``te.txt``) contain one number per volume, and the end of a
    name may state the unit. BIDS sidecars (``X.json`` and those that it inherits from) contain seconds and degrees,
    one number or a list. A text file goes before the sidecar. Units are decided over all settings together
    (:func:`pyroqmri.io.times.decide`).

    Raises
    ------
    InputError
        For a missing or malformed file, a value that is not positive, a unit that cannot be decided, or another
        number of entries than ``n_volumes``.
    """
    given = {"te": te, "ti": ti, "flip": flip, "tr": tr, "offset": offset, "mt": mt}
    needed = {name for name in BIDS_KEYS if name in names or given[name] is not None}
    found = find_settings(image_path, given, json, n_volumes, needed, others=others)
    kind = ULTRASHORT if is_ultrashort(image_path) else suffix(image_path)
    return convert(found.stated, found, needed, kind)


def find_settings(
    image_path: str | Path,
    given: Mapping[str, str | Path | None],
    json: str | Path | None = None,
    n_volumes: int | None = None,
    needed: Collection[str] = tuple(BIDS_KEYS),
    *,
    others: bool = False,
    texts: bool = True,
) -> Found:
    """What the files of one image state of its settings; those that are not ``needed`` may be wrong.

    Raises
    ------
    InputError
        For a missing or malformed file of a needed setting, or another number of entries than ``n_volumes``.
    """
    found = Found({}, read_sidecar(image_path, json), [], [])
    for name in _ORDER:
        if name not in needed and not others:
            continue
        try:
            stated = _find(name, Path(image_path), given.get(name), found, n_volumes, texts)
        except InputError:
            if name in needed:
                raise
            continue  # it may belong to another image of the folder, and nothing depends on it
        if stated is not None:
            found.stated[name] = stated
    return found


def _find(name: str, image: Path, given: str | Path | None, found: Found, n: int | None, texts: bool) -> Stated | None:
    path = Path(given) if given is not None else setting_texts(image, name, UNITS[name])[0] if texts else None
    key = _key(name, found)
    if path is not None:
        unit = _unit_in_name(name, path)
        stated = Stated(name, read_vector(path, name, n), unit, path.name, "text" if unit is None else "name")
        if given is None and key is not None:
            _compare(stated, found, key)
    elif key is not None:
        ours = found.sidecar.ours(key)
        unit = {"flip": "deg", "offset": "ppm" if ours else None, "mt": None}.get(name, "s")
        kind = "name" if ours else "sidecar"
        stated = Stated(name, found.sidecar.numbers(key), unit, found.sidecar.source(key), kind)
    elif name == "mt" and ("_mt-on_" in image.name or "_mt-off_" in image.name):
        stated = Stated(name, np.array([float("_mt-on_" in image.name)]), None, image.name, "name")
    else:
        return None
    values, source = stated.values, path if path is not None else found.sidecar.files.get(str(key), image)
    wrong = _wrong(name, values)
    if wrong.any():
        wanted = "give 1 for on and 0 for off" if name == "mt" else "give positive numbers"
        raise InputError(f"{name} in {source} contains {values[wrong][0]:g} for {name_volumes(wrong)}; {wanted}")
    if n is not None and len(values) not in (1, n):
        raise InputError(f"{name} in {source} has {len(values)} entries and the image has {n} volumes")
    whole = np.repeat(values, n) if n is not None and len(values) == 1 else values
    return Stated(name, whole, stated.unit, stated.source, stated.kind)


def _wrong(name: str, values: np.ndarray) -> np.ndarray:
    """Which values ``(M,)`` a setting cannot have."""
    if name == "mt":
        return (values != 0) & (values != 1)
    return (values < 0) | ((values == 0) & (name != "ti")) if name != "offset" else np.zeros(len(values), bool)


def _key(name: str, found: Found) -> str | None:
    """The entry of the sidecar for a setting, or None where there is none."""
    if name != "tr":
        return BIDS_KEYS[name] if BIDS_KEYS[name] in found.sidecar.entries else None
    ti, flip = found.stated.get("ti"), found.stated.get("flip")
    key = found.sidecar.tr_key(ti is not None, flip is not None and np.ptp(flip.values) > 0)
    if key == "RepetitionTimeExcitation" and ti is not None:
        longest = ti.values.max() * (1 if ti.values.max() > 25 else 1000)
        if found.sidecar.numbers(key).max() * 1000 < 0.2 * longest:
            found.notes.append(f"{key} in {found.sidecar.source(key)} is that of the readout, and TR is not known")
            return None
    return key


def _compare(text: Stated, found: Found, key: str) -> None:
    """Warn where the sidecar has other values than the text file that goes before it."""
    try:
        theirs = found.sidecar.numbers(key)
    except InputError:
        return
    same = len(theirs) in (1, len(text.values))
    readings = [text.read_in(unit) / (TO_OURS["deg"] if text.name == "flip" else 1000) for unit in UNITS[text.name]]
    if text.name == "mt":
        return
    if text.name != "offset" and not (same and any(np.allclose(r, theirs, rtol=0.02) for r in readings)):
        found.warnings.append(
            f"{text.name} is taken from {text.source} ({span(text.values)}), and {key} in "
            f"{found.sidecar.source(key)} is {span(theirs)}; take away the one that is wrong"
        )


def _unit_in_name(name: str, path: Path) -> str | None:
    """The unit that a file's own name states, such as TE_ms.txt."""
    last = path.stem.lower().rsplit("_", 1)[-1]
    return last if last in UNITS[name] else None


def convert(stated: Mapping[str, Stated], found: Found, needed: Collection[str], kind: str = "") -> Settings:
    """Settings in ms, rad and ppm; ``kind`` is the suffix of the image, or ``ULTRASHORT``.

    Raises
    ------
    InputError
        When the unit of a needed setting cannot be decided.
    """
    timed = {name: s for name, s in stated.items() if name not in ("offset", "mt")}
    asked = {name: s for name, s in timed.items() if name in needed}
    settings = Settings({}, list(found.notes), [*found.warnings])
    try:
        units, warnings = decide(timed, kind)
    except InputError as error:
        if len(asked) == len(timed):
            raise
        units, warnings = decide(asked, kind)
        settings.notes.append(f"not used: {error}")
    for name, s in stated.items():
        if name not in needed and (np.ptp(s.values) == 0 or (name not in units and name != "mt")):
            continue
        if name == "mt":
            (settings.values if name in needed else settings.others)[name] = s.values
            settings.notes.append(f"mt is on in {int(s.values.sum())} of {len(s.values)} volumes ({s.source})")
            continue
        if name == "offset":
            values, unit, how = _offsets(s, found.sidecar)
        else:
            values, unit, how = s.read_in(units[name]), units[name], ""
            settings.warnings.extend(w for w in warnings if w.startswith(f"{name} in "))
        (settings.values if name in needed else settings.others)[name] = values
        settings.notes.append(f"{name} read as {spelled(unit)} from {s.source} ({span(s.values)}){how}")
    return settings


def _offsets(s: Stated, sidecar: Sidecar) -> tuple[np.ndarray, str, str]:
    """Offsets in ppm, the unit they are in, and how they were converted."""
    unit = offset_unit(s)
    if unit == "ppm":
        return s.values, unit, ""
    water = sidecar.water_mhz()
    if water is None:
        raise InputError(
            f"offset in {s.source} is {span(s.values)}: in Hz, because in ppm half of them would be beyond 120, and no "
            "sidecar has the ImagingFrequency or MagneticFieldStrength to convert it with; give a "
            "sidecar with one (--json), or the offsets in ppm (name the file offset_ppm.txt if they are)"
        )
    return s.values / water[0], unit, f", converted at {water[0]:.5g} MHz ({water[1]})"
