"""Tables of numbers in text files, in the punctuation of whatever program wrote them."""

import re
from pathlib import Path

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.files import read_text

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_COMMENT = re.compile(r"(?:#|%|//).*")
_BRACKETS = str.maketrans("[](){}", "      ")


def read_rows(path: str | Path, what: str) -> list[list[float]]:
    """Rows of numbers, separated by blanks, commas or semicolons; empty lines, comments and brackets are left out.

    ``0,5 1000,0`` are numbers with decimal commas; a semicolon ends a row where the whole table stands on one line.

    Raises
    ------
    InputError
        When the file is missing, empty, no text, or holds a word that is no number.
    """
    path = Path(path)
    lines = [_COMMENT.sub("", line).translate(_BRACKETS) for line in read_text(path, f"{what} file").splitlines()]
    lines = [line for line in lines if line.strip()]
    if len(lines) == 1:
        lines = lines[0].split(";")
    words = [line.replace(";", " ").split() for line in lines]
    decimal = _has_decimal_commas([word for line in words for word in line])
    rows = [
        [_number(part, path, what) for word in line for part in (word.replace(",", "." if decimal else " ").split())]
        for line in words
    ]
    rows = [row for row in rows if row]
    if not rows:
        raise InputError(f"{what} file {path} is empty; give one entry per volume")
    return rows


def _has_decimal_commas(words: list[str]) -> bool:
    """Whether commas stand for decimal points: each inside a number of its own, and no point anywhere."""
    with_comma = [word for word in words if "," in word]
    if not with_comma or len(words) == 1 or any("." in word for word in words):
        return False
    return all(_DECIMAL_COMMA.fullmatch(word) for word in with_comma)


def _number(word: str, path: Path, what: str) -> float:
    if not _NUMBER.fullmatch(word):
        shown = word if len(word) <= 20 else word[:20] + "..."
        raise InputError(f"{what} file {path} contains {shown!r} where only numbers belong")
    return float(word)


def read_vector(path: str | Path, what: str, n: int | None = None) -> np.ndarray:
    """One row or one column of finite numbers ``(M,)``, float64; one row may be wrapped over several lines.

    Parameters
    ----------
    n
        How many there have to be, where that is known: a table of so many numbers in all is a wrapped row.

    Raises
    ------
    InputError
        As `read_rows`, and for a table of several rows and columns or a value that is not finite.
    """
    rows = read_rows(path, what)
    values = np.array([number for row in rows for number in row])
    if len(rows) > 1 and any(len(row) > 1 for row in rows) and not _wrapped(rows, n):
        shape = f"{len(rows)} rows of up to {max(map(len, rows))}"
        number = "" if n is None else f" of {n}"
        raise InputError(
            f"{what} file {path} contains {shape} numbers, {len(values)} in all; expected one row or one column{number}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{what} file {path} contains NaN or Inf for {name_volumes(~np.isfinite(values))}")
    return values


def _wrapped(rows: list[list[float]], n: int | None) -> bool:
    lengths = [len(row) for row in rows]
    if n is not None:
        return sum(lengths) == n
    # full lines and a shorter last one; three full lines are directions
    return len(set(lengths[:-1])) == 1 and lengths[-1] <= lengths[0] and lengths != [lengths[0]] * 3


def name_volumes(which: np.ndarray) -> str:
    """The volumes where ``which`` is true, in words, counted from 0 and cut after ten."""
    found = np.flatnonzero(which)
    listed = ", ".join(str(i) for i in found[:10])
    rest = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"volume{'s' if len(found) > 1 else ''} {listed}{rest} (counted from 0)"
