"""A declared estimator: names and numbers only; what they may be is in :mod:`pyroqmri.fitting.schema`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tomli_w

from pyroqmri.errors import InputError, brief

_HEAD = ("name", "doc", "estimator")


@dataclass(frozen=True)
class Recipe:
    """A declared estimator: names and numbers only.

    Parameters
    ----------
    name, doc
        What it is called, and one sentence.
    estimator
        ``voxel_model``, ``point``, ``network`` or ``denoiser``.
    tables
        Settings by table; ``kind`` picks a class, the rest are its arguments.
    objects
        Classes or factories by table, given in place of what a kind names; they live in this process alone.
    """

    name: str
    doc: str
    estimator: str
    tables: dict[str, dict[str, Any]]
    objects: dict[str, Callable[..., Any]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, content: Mapping[str, Any], where: Any) -> "Recipe":
        """The recipe that the content of a file states.

        Raises
        ------
        InputError
            When its name, doc or estimator is no plain text, or something else stands outside a table.
        """
        head = {key: content.get(key, "") for key in _HEAD}
        for key, text in head.items():
            if not isinstance(text, str) or not all(c.isprintable() or (c in "\n\t" and key == "doc") for c in text):
                raise InputError(f"recipe {where}: {key} must be plain text, got {brief(text)}")
        tables = {key: value for key, value in content.items() if key not in _HEAD}
        stray = [key for key, value in tables.items() if not isinstance(value, dict)]
        if stray:
            raise InputError(f"recipe {where}: unknown entry {brief(stray[0])} outside a table")
        return cls(**head, tables=tables)

    def table(self, name: str) -> dict[str, Any]:
        """A table without its kind; empty when the recipe leaves it out."""
        return {k: v for k, v in self.tables.get(name, {}).items() if k != "kind"}

    def kind(self, name: str) -> str:
        """The class a table picks."""
        return self.tables[name]["kind"]

    @property
    def ranges(self) -> dict[str, Any]:
        """Narrower bounds of a fit's parameters, lower and upper by name; a network's are those of its simulations."""
        return self.table("range") if self.estimator in ("voxel_model", "point") else {}

    def to_toml(self) -> str:
        """The recipe as a file's text."""
        return tomli_w.dumps({"name": self.name, "doc": self.doc, "estimator": self.estimator, **self.tables})
