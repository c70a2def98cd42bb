"""What a sidecar states for each volume: runs of other phase encodings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.commands.left_out import number_ranges
from pyroqmri.io import Scan
from pyroqmri.io.sidecars import stated_beside


def run_sentences(scan: Scan, sidecar: str | Path | None, disagree: bool) -> tuple[list[str], list[str]]:
    """Notes and warnings on entries that differ between volumes; ``disagree`` says whether the S0 volumes do."""
    content = stated_beside(scan.ref.path, sidecar)
    notes, warnings = [], []
    directions = _by_value(content.get("PhaseEncodingDirection"), scan)
    if len(directions) > 1:
        text = f"the sidecar has PhaseEncodingDirection {_listed(directions)}"
        if disagree:
            warnings.append(f"{text}: correct with topup first, or fit one of them")
        else:
            notes.append(f"{text}; their S0 volumes agree, so they are taken as corrected")
    return notes, warnings


def _by_value(entry: Any, scan: Scan) -> dict[str, Sequence[int]]:
    """Volumes of the scan by what a list of one entry a volume of the file says of them."""
    n = len(scan.acquisition) if scan.whole is None else len(scan.whole)
    if not isinstance(entry, list) or len(entry) != n:
        return {}
    words = [str(x) if isinstance(x, str) else f"{x:.4g}" if isinstance(x, int | float) else "" for x in entry]
    found: dict[str, list[int]] = {}
    for number in scan.numbers.tolist():
        found.setdefault(words[number], []).append(number)
    return dict(found) if "" not in found else {}


def _listed(volumes: dict[str, Sequence[int]]) -> str:
    shown = [f"{value} in {number_ranges(np.array(which))}" for value, which in list(volumes.items())[:4]]
    return ", ".join(shown) + (f" and {len(volumes) - 4} more" if len(volumes) > 4 else "")
