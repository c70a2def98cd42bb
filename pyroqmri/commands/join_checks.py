"""What does not belong into one series: found by names and sidecars, and refused by name."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.io.names import stem, suffix
from pyroqmri.io.sidecars import Sidecar

# what an index in a file's name counts, and the setting that then differs from file to file
_INDEXED = {"echo": "te", "inv": "ti", "flip": "flip"}
_DCM2NIIX_ECHO = re.compile(r"_e(\d+)(?=_|$)")
_DCM2NIIX_PHASE = re.compile(r"_ph(?=_|$)")
_IMAGE_TYPES = {
    "phase": {"P", "PHASE", "PHASE MAP"},
    "imaginary": {"I", "IMAGINARY"},
    "real": {"R", "REAL"},
    "magnitude": {"M", "MAGNITUDE"},
}
_PARTS = {"mag": "magnitude", "phase": "phase", "real": "real", "imag": "imaginary"}
_TRANSFER = ("MPM", "MTS", "MTR")  # series with and without magnetisation transfer
# entries that scale intensities or change the contrast, and that no setting of a signal stands for
_SCALING = (
    "MagneticFieldStrength", "ReceiverGain", "ReceiveCoilName", "PhilipsScaleSlope", "PhilipsRescaleSlope",
    "RescaleSlope", "PhaseEncodingDirection", "Units",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One image of a series: its file, what its sidecars state, and its settings ``(M,)`` each."""

    path: Path
    sidecar: Sidecar
    settings: dict[str, np.ndarray]

    @property
    def entities(self) -> dict[str, str]:
        """The key-value pairs of its BIDS name; dcm2niix' ``_e2`` is an echo."""
        pairs = dict(word.split("-", 1) for word in stem(self.path).split("_") if "-" in word)
        found = _DCM2NIIX_ECHO.search(stem(self.path))
        return pairs if found is None or "echo" in pairs else {**pairs, "echo": found[1]}

    def entry(self, key: str) -> Any:
        """What its sidecars state, or None."""
        return self.sidecar.entries.get(key)


def check_series(members: Sequence[Member]) -> list[str]:
    """Refuse images that are no measurement of one series; warnings name what may be none.

    Raises
    ------
    InputError
        When an image is a phase, of another subject, suffix or contrast, or states settings copied from another.
    """
    _check_parts(members)
    _check_alike(members, "suffix", lambda m: suffix(m.path) or None)
    for entity in ("sub", "desc", "rec"):
        _check_alike(
            members, f"entity {entity}-", lambda m, e=entity: m.entities.get(e, "none") if m.entities else None
        )
    if suffix(members[0].path) not in _TRANSFER:
        _check_alike(members, "magnetisation transfer (mt-, MTState)", _mt)
    _check_copies(members)
    return [*_falling(members), *_scalings(members)]


def _named(members: Sequence[Member]) -> str:
    names = [member.path.name for member in members]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _part(member: Member) -> str | None:
    """Magnitude, phase, real or imaginary; None where nothing states it."""
    named = _PARTS.get(member.entities.get("part", ""))
    if named is not None:
        return named
    if suffix(member.path) == "phase" or _DCM2NIIX_PHASE.search(stem(member.path)) or member.entry("Units") == "rad":
        return "phase"
    types = member.entry("ImageType")
    words = {str(word).upper() for word in types} if isinstance(types, list) else set()
    return next((part for part, codes in _IMAGE_TYPES.items() if words & codes), None)


def _check_parts(members: Sequence[Member]) -> None:
    parts = [_part(member) for member in members]
    phases = [m for m, part in zip(members, parts, strict=True) if part in ("phase", "imaginary")]
    if phases:
        raise InputError(f"no magnitude by name or sidecar (part-, ImageType, Units): {_named(phases)}; leave them out")
    _check_alike(members, "part (part-, ImageType)", _part)


def _mt(member: Member) -> str | None:
    state = member.entities.get("mt")
    if state is None and isinstance(member.entry("MTState"), bool):
        state = "on" if member.entry("MTState") else "off"
    return state


def _check_alike(members: Sequence[Member], what: str, of: Callable[[Member], str | None]) -> None:
    """Refuse a series whose members state different values; the rarer ones are named."""
    values = [of(member) for member in members]
    counts = Counter(value for value in values if value is not None)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    others = [m for m, value in zip(members, values, strict=True) if value not in (usual, None)]
    stated = ", ".join(f"{n} x {value}" for value, n in counts.most_common(6))
    raise InputError(
        f"the {what} differs ({stated}) and no signal describes both: join {_named(others)} apart from the others"
    )


def _check_copies(members: Sequence[Member]) -> None:
    """Refuse files whose names count echoes, inversions or angles and whose settings do not differ."""
    for entity, name in _INDEXED.items():
        seen: dict[tuple[Any, ...], Member] = {}
        for member in members:
            if entity not in member.entities or name not in member.settings:
                continue
            rest = {k: v for k, v in member.entities.items() if k != entity}
            if name != "flip":  # the second angle's echoes are a train of their own
                rest["settings"] = str([np.round(v, 6).tolist() for k, v in member.settings.items() if k != name])
            key = (*sorted(rest.items()), tuple(np.round(member.settings[name], 6)))
            twin = seen.setdefault(key, member)
            if twin.entities[entity] != member.entities[entity]:
                value = np.degrees(member.settings[name][0]) if name == "flip" else member.settings[name][0]
                unit = "degrees" if name == "flip" else "ms"
                count = f"{entity}-{twin.entities[entity]} and {entity}-{member.entities[entity]}"
                raise InputError(
                    f"{twin.path.name} and {member.path.name} both state {name} {value:g} {unit}, and their names "
                    f"count {count}: was a sidecar copied? correct it"
                )


def _falling(members: Sequence[Member]) -> list[str]:
    """A warning where a later echo has the shorter echo time."""
    groups: dict[str, list[tuple[int, float, Member]]] = {}
    for m in members:
        index = m.entities.get("echo", "")
        if index.isdecimal() and "te" in m.settings:
            rest = str(sorted((k, v) for k, v in m.entities.items() if k != "echo"))
            groups.setdefault(rest, []).append((int(index), float(m.settings["te"][0]), m))
    for group in groups.values():
        group.sort(key=lambda entry: entry[0])
        for (_, te, first), (_, later, second) in pairwise(group):
            if later < te:
                return [
                    f"{second.path.name} states te {later:g} ms and {first.path.name}, an earlier echo, {te:g} ms: "
                    "are the sidecars those of these images?"
                ]
    return []


def _scalings(members: Sequence[Member]) -> list[str]:
    """A warning for each entry that differs and may scale the intensities of some images."""
    said = []
    for key in _SCALING:
        stated = {str(m.entry(key)) for m in members if m.entry(key) is not None}
        if len(stated) > 1:
            said.append(f"{key} differs between the images ({', '.join(sorted(stated)[:4])}): intensities may differ")
    settings = [str({k: np.round(v, 6).tolist() for k, v in m.settings.items()}) for m in members]
    if len(set(settings)) == 1 and len({m.entities.get("run") for m in members}) == 1:
        said.append("all images have the same settings: they are repeats of one measurement, or sidecars were copied")
    return said
