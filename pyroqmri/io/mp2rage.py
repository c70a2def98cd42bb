"""Timing of MP2RAGE from BIDS sidecars, of a uniform image or of the pair, and the sidecar of a simulated one."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.sidecars import Sidecar, read_sidecar
from pyroqmri.signals.mp2rage import UNIFORM, mp2rage_acquisition

_KEYS = ("InversionTime", "FlipAngle", "RepetitionTimePreparation", "RepetitionTimeExcitation", "NumberShots")
_LONGEST = 60.0  # s between inversions: more is in ms


def read_mp2rage(image: str | Path, json: str | Path | None, n_volumes: int) -> tuple[Acquisition, list[str]]:
    """Settings of a uniform image (one volume) or a pair (two), with notes.

    Its own sidecar states ``InversionTime`` and ``FlipAngle`` of both trains as lists; where that of a uniform image
    does not, those of ``inv-1_MP2RAGE`` and ``inv-2_MP2RAGE`` beside it are read. Times are in seconds, angles in
    degrees; ``NumberShots`` is one number, or those before and after the centre of k-space.

    Raises
    ------
    InputError
        When an entry is missing or cannot be, or the image has another number of volumes.
    """
    if n_volumes not in (1, 2):
        raise InputError(
            f"image {image} has {n_volumes} volumes; MP2RAGE is one uniform image or the pair, two volumes"
        )
    found, notes = read_sidecar(image, json), []
    if json is None and n_volumes == 1 and not all(_count(found, key) == 2 for key in _KEYS[:2]):
        both = [read_sidecar(path) for path in _pair_of(Path(image))]
        if both:
            found, notes = _merged(both), ["timing of both trains read from the sidecars of the pair"]
    missing = [key for key in _KEYS if key not in found.entries]
    if missing or any(_count(found, key) != 2 for key in _KEYS[:2]):
        what = f"no {' and no '.join(missing)}" if missing else "InversionTime or FlipAngle of one train only"
        raise InputError(
            f"image {image}: its sidecar states {what}; MP2RAGE needs {', '.join(_KEYS)}, the first two twice"
        )
    ti, flip, tr, spacing, shots = (found.numbers(key) for key in _KEYS)
    if tr.max() > _LONGEST:
        raise InputError(f"RepetitionTimePreparation is {tr.max():g} in the sidecar of {image}; BIDS has it in seconds")
    order = np.argsort(ti)
    made = mp2rage_acquisition(
        (1000 * ti[order]).tolist(), np.radians(flip[order]).tolist(), 1000 * float(tr[0]), 1000 * float(spacing[0]),
        shots.tolist() if len(shots) > 1 else float(shots[0]), uniform=n_volumes == 1,
    )  # fmt: skip
    if n_volumes == 2 and order[0] == 1:
        made = made[[1, 0]]
    return made, notes


def mp2rage_entries(acquisition: Acquisition) -> dict[str, Any]:
    """Entries of the sidecar that :func:`read_mp2rage` reads back."""
    settings = {name: float(value[0]) for name, value in acquisition.settings().items()}
    times, angles = ([settings[name], settings[f"{name}_other"]] for name in ("ti", "flip"))
    return {
        "InversionTime": [_round(t / 1000) for t in times], "FlipAngle": [_round(np.degrees(a)) for a in angles],
        "RepetitionTimePreparation": _round(settings["tr"] / 1000),
        "RepetitionTimeExcitation": _round(settings["tr_readout"] / 1000),
        "NumberShots": [_round(settings["shots_before"]), _round(settings["shots_after"])],
    }  # fmt: skip


def as_uniform(values: np.ndarray, acquisition: Acquisition) -> tuple[np.ndarray, list[str]]:
    """Uniform images between -0.5 and 0.5, from those as scanners store them, 0 to 4095; with notes."""
    if not bool((acquisition.readout == UNIFORM).all()) or np.nanmax(np.abs(values), initial=0) <= 1:  # type: ignore[union-attr]
        return values, []
    if np.nanmin(values) < -1 or np.nanmax(values) > 4096:
        low, high = np.nanmin(values), np.nanmax(values)
        raise InputError(
            f"the uniform image reaches from {low:g} to {high:g}; give it from -0.5 to 0.5, or from 0 to 4095 as stored"
        )
    return values / 4095 - 0.5, ["the uniform image, stored from 0 to 4095, is read as -0.5 to 0.5"]


def _round(x: float) -> float:
    return float(f"{x:.7g}")


def _count(sidecar: Sidecar, key: str) -> int:
    return len(sidecar.numbers(key)) if key in sidecar.entries else 0


def _pair_of(image: Path) -> list[Path]:
    """Names of the pair's first magnitude or real images beside a uniform image; none where one is missing."""
    own = re.sub(r"_UNIT1\.nii(\.gz)?$", "", image.name)
    found = [sorted(image.parent.glob(f"{own}_inv-{i}*_MP2RAGE.json")) for i in (1, 2)]
    return [paths[0].with_suffix(".nii.gz") for paths in found] if all(found) else []


def _merged(both: Sequence[Sidecar]) -> Sidecar:
    entries: dict[str, Any] = dict(both[0].entries)
    for key in _KEYS[:2]:
        if all(key in one.entries for one in both):
            entries[key] = [float(one.numbers(key)[0]) for one in both]
    files: Mapping[str, Path] = both[1].files | both[0].files
    return Sidecar(entries, dict(files))
