"""Entries of a JSON file as the types that they have to have."""

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from pyroqmri.errors import InputError, brief

_WORDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def as_kind(kind: Any, value: Any, where: str = "") -> Any:
    """A value of JSON as a type: a dataclass, a list or a table of a type, one of several types, a plain value.

    Parameters
    ----------
    kind
        The type. A dataclass with ``loose = True`` leaves out entries that it does not have.
    value
        What a file has.
    where
        Its name, for messages.

    Raises
    ------
    InputError
        When the value is of another type, or an entry of it is missing or unknown; names the entry.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _as_dataclass(kind, value, where)
    elif origin in (typing.Union, types.UnionType):
        return _as_one_of(inner, value, where)
    elif origin in (list, dict) or kind in (list, dict):
        return _as_container(origin or kind, inner, value, where)
    elif kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
        found = float(value) if good else value
    else:
        found, good = value, type(value) is kind and (kind is not int or abs(value) < 2**63)
    if not good:
        raise InputError(f"entry {where!r} must be {_WORDS[kind]}, got {brief(value)}")
    return found


def _as_one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return as_kind(kinds[0], value, where)
    for kind in kinds:
        try:
            return as_kind(kind, value, where)
        except InputError:
            continue
    raise InputError(f"entry {where!r} must be {' or '.join(_WORDS[kind] for kind in kinds)}, got {brief(value)}")


def _as_container(kind: type, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"entry {where!r} must be a {'list' if kind is list else 'table'}, got {brief(value)}")
    if not inner:
        return value
    if kind is list:
        return [as_kind(inner[0], entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    return {key: as_kind(inner[1], entry, f"{where}.{key}") for key, entry in value.items()}


def _as_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"entry {where!r} must be a table, got {brief(value)}")
    hints, prefix = typing.get_type_hints(kind), f"{where}." if where else ""
    known = {f.name: f for f in fields(kind)}
    if getattr(kind, "loose", False):
        value = {name: entry for name, entry in value.items() if name in known}
    for name in value:
        if name not in known:
            raise InputError(f"entry {prefix + name!r} is unknown")
    for name, f in known.items():
        if name not in value and f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"entry {prefix + name!r} is missing")
    return kind(**{name: as_kind(hints[name], entry, prefix + name) for name, entry in value.items()})
