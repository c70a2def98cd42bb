"""Whether an entry of a recipe is a value that its place can have."""

import math
from collections.abc import Mapping
from typing import Any

from pyroqmri.errors import InputError, brief

# sizes of what is built, of which more only fills the memory
_MOST = {
    "width": 8192, "depth": 64, "classes": 1000, "components": 1000, "latents": 1000, "latent": 1000,
    "draws": 1_000_000, "points": 1_000_000,
}  # fmt: skip


def check_entry(name: str, value: Any, default: Any, ours: bool) -> None:
    """Raise InputError unless a setting is of its default's type, and a value that a part of ours can use.

    Parameters
    ----------
    name
        ``TABLE.KEY``, for messages.
    value, default
        The entry, and what it is without one; a default of None stands for a whole number.
    ours
        Whether it is an argument of a class of this package: none of their settings is negative.
    """
    number, wanted = isinstance(value, int | float) and not isinstance(value, bool), None
    whole = isinstance(value, int) and number
    if isinstance(default, bool):
        wanted = None if isinstance(value, bool) else "true or false"
    elif isinstance(default, int) or (default is None and ours):
        wanted = None if whole and abs(value) < 2**63 else "a whole number"
    elif isinstance(default, float):
        wanted = None if is_finite(value) else "a finite number" if number else "a number"
    elif isinstance(default, str):
        wanted = None if isinstance(value, str) and "\0" not in value else "a word"
    most = _MOST.get(name.rpartition(".")[2], math.inf) if ours else math.inf
    if wanted is None and ours and isinstance(value, int | float) and not 0 <= value <= most:
        wanted = "0 or more" if value < 0 else f"at most {most}"
    if wanted is not None:
        raise InputError(f"setting {name} must be {wanted}, got {brief(value)}")


def check_pairs(recipe: str, table: str, entries: Mapping[str, Any]) -> None:
    """Raise InputError unless a table of names, or of classes of them, has two finite numbers for each."""
    for name, value in entries.items():
        for key, pair in value.items() if isinstance(value, Mapping) and table == "given" else [(name, value)]:
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(is_finite(x) for x in pair)):
                what = f"{table}.{name}" if key == name else f"{table}.{name}.{key}"
                needs = "[mean, sd]" if table == "given" else "[lower, upper]"
                raise InputError(f"recipe {recipe}: {what} must be {needs}, two finite numbers, got {brief(pair)}")


def check_expected(recipe: str, entries: Mapping[str, Any]) -> None:
    """Raise InputError unless what is expected of each parameter is three finite numbers, sds above zero; or none."""
    for name, value in entries.items():
        if value in ([], ()):
            continue
        numbers = isinstance(value, list | tuple) and len(value) == 3 and all(is_finite(x) for x in value)
        if not (numbers and value[1] > 0 and value[2] > 0):
            raise InputError(
                f"recipe {recipe}: expected.{name} must be [mean, its uncertainty, sd between voxels], the last two "
                f"above zero, or [] for nothing expected, got {brief(value)}"
            )


def check_weights(recipe: str, entries: Mapping[str, Any]) -> None:
    """Raise InputError unless every parameter's weight is a finite number of zero or more."""
    for name, value in entries.items():
        if not (is_finite(value) and value >= 0):
            raise InputError(f"recipe {recipe}: weights.{name} must be a number of zero or more, got {brief(value)}")


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can be: no NaN, no infinity, none of 400 digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
