"""``fit/fit.json`` as pages read it: whatever is there has to be of its type."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from pyroqmri.errors import InputError
from pyroqmri.fitting.record import acquisition_in
from pyroqmri.io.entries import as_kind
from pyroqmri.measurements.preparation import Preparation


@dataclass
class _Noise:
    loose: ClassVar[bool] = True
    value: float | None = None
    method: str | None = None
    note: str | None = None
    learned_factor: float | None = None


@dataclass
class _Curve:
    loose: ClassVar[bool] = True
    step: list[int] | None = None
    train: list[float | None] | None = None
    held_out: list[float | None] | None = None


@dataclass
class _KeptAside:
    loose: ClassVar[bool] = True
    volumes: list[int] | None = None
    inside: float | None = None


@dataclass
class _LeftOut:
    loose: ClassVar[bool] = True
    volumes: list[int] | None = None
    of: int | None = None


@dataclass
class PageRecord:
    """Types of the entries that pages show; an older fit may lack any, and others are left alone."""

    loose: ClassVar[bool] = True
    pyroqmri: str | None = None
    versions: dict[str, str] | None = None
    signal: str | None = None
    recipe: str | None = None
    likelihood: str | None = None
    s0: str | float | None = None
    preparation: Preparation | None = None
    uninformed: list[str] | None = None
    fixed: dict[str, float] | None = None
    tied: dict[str, str] | None = None
    seed: int | None = None
    device: str | None = None
    protocol: dict[str, list] | None = None
    learned_on: dict[str, list] | None = None
    sigma: _Noise | None = None
    seconds: dict[str, float] | None = None
    elbo: _Curve | None = None
    trace: _Curve | None = None
    n_voxels: int | None = None
    population: dict[str, Any] | None = None
    causes: list[dict] | None = None
    weights_sha256: str | None = None
    notes: list[str] | None = None
    warnings: list[str] | None = None
    sources: list[str] | None = None
    left_out: _LeftOut | None = None
    at_bound: dict[str, float | None] | None = None
    beyond_bound: dict[str, float | None] | None = None
    predictive: _KeptAside | None = None


def check_record(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record of a fit without its empty entries.

    Raises
    ------
    InputError
        When an entry that pages show is of another type than a fit writes; names it.
    """
    found = {name: value for name, value in record.items() if value is not None}
    try:
        as_kind(PageRecord, found)
        for entry in ("protocol", "learned_on"):
            if found.get(entry):
                acquisition_in(entry, found[entry])
        for name, value in found.get("population", {}).items():
            _check_population(name, value)
    except InputError as error:
        raise InputError(f"{path} is no record of a fit: {error}; restore it or remove it") from error
    known = {f.name for f in fields(PageRecord)}
    # entries inside a table may be empty as well
    return {k: _full(v) if k in known and k not in _MAY_BE_EMPTY and isinstance(v, dict) else v
            for k, v in found.items()}  # fmt: skip


_MAY_BE_EMPTY = ("at_bound", "beyond_bound", "population")


def _full(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}


def _check_population(name: str, value: Any) -> None:
    """A list of numbers, or a table with three numbers a class."""
    where, spread = f"population.{name}", "median_and_68%"
    if not isinstance(value, dict):
        as_kind(list[float], value, where)
    elif any(len(triple) != 3 for triple in as_kind(list[list[float]], value.get(spread, []), f"{where}.{spread}")):
        raise InputError(f"entry '{where}.{spread}' must have three numbers for each class")
