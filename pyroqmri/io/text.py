"""Tables of numbers in text files."""

from pathlib import Path

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.files import read_text


def read_rows(path: str | Path, what: str) -> list[list[float]]:
    """Rows of numbers, separated by blanks or commas; empty lines are left out.

    Raises
    ------
    InputError
        When the file is missing, empty, no text, or holds a word that is no finite number.
    """
    path = Path(path)
    text = read_text(path, f"{what} file")
    rows = [[_number(word, path, what) for word in line.replace(",", " ").split()] for line in text.splitlines()]
    rows = [row for row in rows if row]
    if not rows:
        raise InputError(f"{what} file {path} is empty; give one entry per volume")
    return rows


def _number(word: str, path: Path, what: str) -> float:
    try:
        return float(word)
    except ValueError:
        shown = word if len(word) <= 20 else word[:20] + "..."
        raise InputError(f"{what} file {path} contains {shown!r} where only numbers belong") from None


def read_vector(path: str | Path, what: str) -> np.ndarray:
    """One row or one column of finite numbers ``(M,)``, float64.

    Raises
    ------
    InputError
        As `read_rows`, and for a table of several rows and columns or a value that is not finite.
    """
    rows = read_rows(path, what)
    if len(rows) > 1 and any(len(row) > 1 for row in rows):
        shape = f"{len(rows)} rows of up to {max(map(len, rows))}"
        raise InputError(f"{what} file {path} contains {shape} numbers; expected one row or one column")
    values = np.array([number for row in rows for number in row])
    if not np.isfinite(values).all():
        raise InputError(f"{what} file {path} contains NaN or Inf for {name_volumes(~np.isfinite(values))}")
    return values


def name_volumes(which: np.ndarray) -> str:
    """The volumes where ``which`` is true, in words, counted from 0 and cut after ten."""
    found = np.flatnonzero(which)
    listed = ", ".join(str(i) for i in found[:10])
    rest = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"volume{'s' if len(found) > 1 else ''} {listed}{rest} (counted from 0)"
