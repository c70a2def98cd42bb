"""The classes that a recipe's parts are made of: shipped, registered, given as objects, or named in a module."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from pyroqmri.decoders import DECODERS, Decoder
from pyroqmri.errors import InputError, brief
from pyroqmri.guides import GUIDES, Guide
from pyroqmri.likelihoods import LIKELIHOODS, Likelihood
from pyroqmri.priors import PRIORS, Prior
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS, SignalModel

Part = Callable[..., Any]  # a class, or a factory with the arguments of one

REGISTRIES: dict[str, dict[str, Any]] = {
    "prior": PRIORS,
    "decoder": DECODERS,
    "guide": GUIDES,
    "likelihood": LIKELIHOODS,
}
BASES: dict[str, type] = {"prior": Prior, "decoder": Decoder, "guide": Guide, "likelihood": Likelihood}


def register(
    *,
    prior: Mapping[str, Part] | None = None,
    decoder: Mapping[str, Part] | None = None,
    guide: Mapping[str, Part] | None = None,
    likelihood: Mapping[str, Part] | None = None,
    signal: Mapping[str, type[SignalModel]] | None = None,
) -> None:
    """Let recipes name your own parts: ``register(prior={"student": Student})``, then ``kind = "student"``.

    Holds in this process; another one that reads the recipe, or a fit made with it, registers the name again.

    Parameters
    ----------
    prior, decoder, guide, likelihood
        Classes by name, or factories with the arguments of one: ``(n_tissue, n_direction, ...)`` for a prior and a
        decoder, ``(model, n_measurements, ...)`` for a guide, ``(n_average, n_s0, ...)`` for a likelihood.
    signal
        Signal models by name.

    Raises
    ------
    InputError
        When a name is taken by another class, is no plain name, or what it names is no such part.
    """
    wanted = {"prior": prior, "decoder": decoder, "guide": guide, "likelihood": likelihood, "signal": signal}
    wrong = [table for table, parts in wanted.items() if not (parts is None or isinstance(parts, Mapping))]
    if wrong:
        raise InputError(
            f"register takes classes by name, {wrong[0]}={{'mine': MyClass}}, got {brief(wanted[wrong[0]])}"
        )
    new = [(table, name, part) for table, parts in wanted.items() for name, part in (parts or {}).items()]
    for table, name, part in new:
        taken = (SIGNALS if table == "signal" else REGISTRIES[table]).get(name)
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"register takes plain names such as student, got {table} {brief(name)}")
        if taken is not None and taken is not part:
            raise InputError(f"{table} {name!r} is there already; register yours under another name")
        if table == "signal" and not (isinstance(part, type) and issubclass(part, SignalModel)):
            raise InputError(f"signal {name!r} must be a subclass of SignalModel, got {part!r}")
        if table != "signal":
            check_part(table, part)
    for table, name, part in new:
        (SIGNALS if table == "signal" else REGISTRIES[table])[name] = part


def check_part(table: str, part: Any) -> None:
    """Raise InputError unless ``part`` is a class of the table's kind, or a function that may make one."""
    if isinstance(part, type) and not issubclass(part, BASES[table]):
        raise InputError(f"{table} {part.__name__} must be a subclass of pyroqmri's {BASES[table].__name__}")
    if isinstance(part, BASES[table]):  # a module is callable, but makes no part
        raise InputError(
            f"{table} must be a class or a factory, got an object made by one; give {type(part).__name__} itself, or "
            f"{table}=lambda *sizes: {type(part).__name__}(*sizes, ...) with what is to be set"
        )
    if not callable(part):
        raise InputError(f"{table} must be a class or a factory with its arguments, got {part!r}")


def kind_of(table: str, part: Part) -> str:
    """What a recipe's file calls a part: its registered name, else ``module:Class``."""
    names = [name for name, known in REGISTRIES[table].items() if known is part]
    return names[0] if names else _qualified(part)


def _qualified(part: Part) -> str:
    return f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', type(part).__name__)}"


def is_same_kind(table: str, part: Part, kind: Any) -> bool:
    """Whether a part may be what a saved recipe calls ``kind``.

    A class of the same name from another module is taken for it: a notebook's ``__main__:Mine`` is ``my_module:Mine``
    later. A name that nobody registered here may be anybody's, but not that of a part registered under another.
    """
    own = kind_of(table, part)
    if kind in (own, _qualified(part)):
        return True
    if not isinstance(kind, str) or kind in REGISTRIES[table] or own in REGISTRIES[table]:
        return False
    return not is_dotted(kind) or _last_word(own) == _last_word(kind)


def _last_word(kind: str) -> str:
    return kind.rpartition(":")[2].rpartition(".")[2]


def is_dotted(kind: Any) -> bool:
    """Whether a kind names a class of a module from outside the package, ``my_module:MyPrior``."""
    return isinstance(kind, str) and ":" in kind


def part_of(recipe: Recipe, table: str) -> Part:
    """The class, or factory, behind a table of a recipe.

    Raises
    ------
    InputError
        When the name is unknown, or its module or class is not there.
    """
    if table in recipe.objects:
        return recipe.objects[table]
    kind = recipe.tables[table].get("kind", "")
    if isinstance(kind, str) and kind in REGISTRIES[table]:
        return REGISTRIES[table][kind]
    if is_dotted(kind):
        return _imported(recipe.name, table, kind)
    near = difflib.get_close_matches(kind if isinstance(kind, str) else "", REGISTRIES[table], 1)
    hint = f"did you mean {near[0]!r}" if near else f"there are {', '.join(REGISTRIES[table])}"
    raise InputError(
        f"recipe {recipe.name}: unknown kind of {table} {brief(kind)}; {hint}, or register your own with "
        f"pyroqmri.register({table}={{...}})"
    )


def _imported(recipe: str, table: str, kind: str) -> Part:
    """The class that ``module:Class`` names; nothing but a subclass of the table's base is ever called."""
    module, _, name = kind.partition(":")
    what = f"recipe {recipe}: {table} {kind!r}"
    remedy = "put it on PYTHONPATH, or give the class itself"
    if not all(word.isidentifier() for word in module.split(".")):
        raise InputError(f"{what} must read my_module:MyClass")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # a module of the user's may raise anything
        raise InputError(f"{what} cannot be imported ({type(error).__name__}: {error}); {remedy}") from error
    for word in name.split("."):
        found = getattr(found, word, None)
    if found is None:
        raise InputError(f"{what}: module {module} has no {name}; {remedy}")
    if not (isinstance(found, type) and issubclass(found, BASES[table])):
        raise InputError(
            f"{what} is no subclass of pyroqmri's {BASES[table].__name__}; a factory has to be given as an object or "
            f"registered, pyroqmri.register({table}={{...}})"
        )
    return found


def swapped(recipe: Recipe, parts: Mapping[str, str | Part | None]) -> tuple[dict[str, Part], dict[str, Any]]:
    """Objects by table, and the recipe settings that name them, of parts given in place of the recipe's.

    Raises
    ------
    InputError
        When a part is none of its table's, or the recipe has no such table.
    """
    objects, settings = dict[str, Part](), dict[str, Any]()
    for table, part in parts.items():
        if part is None:
            continue
        if table not in recipe.tables:
            raise InputError(f"recipe {recipe.name} has no {table} to swap; it is no voxel model")
        if isinstance(part, str):
            settings[f"{table}.kind"] = part
            continue
        check_part(table, part)
        settings[f"{table}.kind"] = kind_of(table, part)
        objects[table] = part
    return objects, settings


def refuse_unnamed_code(recipe: Recipe, where: Any) -> None:
    """Raise InputError for a recipe out of a file that would import a class the caller has not named."""
    for table in REGISTRIES:
        kind = recipe.tables.get(table, {}).get("kind")
        if kind is not None and is_dotted(kind) and table not in recipe.objects:
            name = _last_word(kind)
            raise InputError(
                f"{where} was trained with {table} {kind!r}, which is code from outside pyroqmri: give the class, "
                f"load_fit(folder, {table}={name}), or let it be imported, load_fit(folder, trust=True)"
            )


def is_field(recipe: Recipe) -> bool:
    """Whether the recipe's prior makes neighbouring voxels depend on each other."""
    return "prior" in recipe.tables and bool(getattr(part_of(recipe, "prior"), "is_field", False))
