"""What a recipe may hold: the classes and settings that each of its tables names."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.decoders import DECODERS
from pyroqmri.denoising.autoencoders import AUTOENCODERS
from pyroqmri.denoising.pairs import NoiseRange, Targets
from pyroqmri.denoising.training import Schedule
from pyroqmri.errors import InputError, brief
from pyroqmri.files import read_bytes
from pyroqmri.fitting.entries import check_entry, check_expected, check_pairs, check_weights
from pyroqmri.fitting.parts import REGISTRIES, Part, kind_of, part_of, swapped
from pyroqmri.guides import GUIDES
from pyroqmri.io.fit_folder import parse_toml
from pyroqmri.likelihoods import LIKELIHOODS
from pyroqmri.measurements.arguments import as_dict
from pyroqmri.networks.labels import LABELS
from pyroqmri.networks.network import Shape
from pyroqmri.networks.training import NetworkTraining
from pyroqmri.networks.training_truth import Simulation
from pyroqmri.posterior.importance import MIN_DRAWS, Reweighting
from pyroqmri.priors import PRIORS, Counted, Mixture
from pyroqmri.recipe import Recipe
from pyroqmri.svi import Training
from pyroqmri.voxelwise.search import Search

PACKAGE = Path(__file__).resolve().parents[1]
_MOST_PARTS = 3  # of ball_sticks, the one signal whose parts are counted
_DATA = {"average": "auto", "first_echo": 1}


# what the data decide, so no recipe states it
_FROM_DATA = {"self", "n_tissue", "n_direction", "model", "n_measurements", "n_average", "n_s0", "given", "countable"}


_FREE: dict[str, Any] = {}  # its keys are names of tissues or of the signal's parameters: checked where those are known


# what each table of an estimator holds: classes to pick one of by its kind, a class of settings, or free names
_TABLES: dict[str, dict[str, Mapping[str, type] | type]] = {
    "voxel_model": {
        "prior": PRIORS,
        "decoder": DECODERS,
        "guide": GUIDES,
        "likelihood": LIKELIHOODS,
        "training": Training,
        "given": _FREE,
        "expected": _FREE,
        "range": _FREE,
        "posterior": Reweighting,
    },
    "point": {"likelihood": LIKELIHOODS, "search": Search, "range": _FREE},
    "network": {
        "likelihood": LIKELIHOODS,
        "labels": LABELS,
        "network": Shape,
        "training": NetworkTraining,
        "truth": Simulation,
        "range": _FREE,
        "weights": _FREE,
    },
    "denoiser": {
        "autoencoder": AUTOENCODERS,
        "targets": Targets,
        "added_noise": NoiseRange,
        "schedule": Schedule,
    },
}


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with entries such as ``{"training.steps": 2000}`` changed.

    A new ``kind`` leaves behind what the recipe said of the old one and the new one does not know.

    Raises
    ------
    InputError
        When an entry is none of the recipe's.
    """
    _check_tables(recipe)
    if not isinstance(settings, Mapping):
        raise InputError(f"settings must be a table such as {{'training.steps': 2000}}, got {brief(settings)}")
    tables = {k: dict(v) for k, v in recipe.tables.items()}
    for key, value in settings.items():
        table, dot, entry = key.partition(".") if isinstance(key, str) else ("", "", "")
        if not dot or not entry:
            raise InputError(f"setting {key!r} must read TABLE.KEY, such as training.steps")
        tables.setdefault(table, {})[entry] = value.item() if isinstance(value, np.generic) else value
    kept_objects = {k: v for k, v in recipe.objects.items() if tables[k]["kind"] == kind_of(k, v)}
    changed = replace(recipe, tables=tables, objects=kept_objects)
    for table in [t for t in tables if f"{t}.kind" in settings and t in _TABLES.get(recipe.estimator, {})]:
        known, _ = _known(changed, table, _TABLES[recipe.estimator][table])
        kept = {k: v for k, v in tables[table].items() if k in known or f"{table}.{k}" in settings}
        changed.tables[table] = kept
    check_recipe(changed)
    return changed


def check_recipe(recipe: Recipe) -> None:
    """Raise InputError on an unknown estimator, table, kind or key, or a value of the wrong type."""
    if not isinstance(recipe.estimator, str) or recipe.estimator not in _TABLES:
        raise InputError(_unknown("estimator", recipe.estimator, _TABLES, recipe.name))
    _check_tables(recipe)
    allowed = {**_TABLES[recipe.estimator], "data": _FREE}
    for table, entries in recipe.tables.items():
        if table not in allowed:
            raise InputError(_unknown("table", table, allowed, recipe.name))
        _check_table(recipe, table, entries, allowed[table])
    for table, kinds in allowed.items():
        if isinstance(kinds, Mapping) and kinds and "kind" not in recipe.tables.get(table, {}):
            raise InputError(f"recipe {recipe.name}: table [{table}] needs a kind, one of {', '.join(kinds)}")
    reweighting(recipe)


def _check_tables(recipe: Recipe) -> None:
    for table, entries in recipe.tables.items():
        if not isinstance(entries, Mapping) or not all(isinstance(key, str) for key in entries):
            raise InputError(f"recipe {recipe.name}: [{table}] must be a table of names, got {brief(entries)}")


def _check_table(recipe: Recipe, table: str, entries: Mapping[str, Any], kinds: Mapping[str, type] | type) -> None:
    if table == "expected":
        return check_expected(recipe.name, entries)
    if table in ("given", "range"):
        return check_pairs(recipe.name, table, entries)
    if table == "weights":
        return check_weights(recipe.name, entries)
    known, made = _known(recipe, table, kinds)
    for key, value in entries.items():
        if key not in known:
            raise InputError(_unknown(f"key in [{table}]", key, known, recipe.name))
        check_entry(f"{table}.{key}", value, known[key], getattr(made, "__module__", "").startswith("pyroqmri."))


def _known(recipe: Recipe, table: str, kinds: Mapping[str, type] | type) -> tuple[dict[str, Any], Any]:
    """What a table may say, with the defaults, and the class that it says it of."""
    if table == "data":
        return dict(_DATA), Recipe
    if isinstance(kinds, type):
        return {f.name: f.default for f in fields(kinds)}, kinds
    if table in REGISTRIES:
        made = part_of(recipe, table)
    else:
        kind = recipe.tables[table].get("kind", "")
        if not isinstance(kind, str) or kind not in kinds:
            raise InputError(_unknown(f"kind of {table}", kind, kinds, recipe.name))
        made = kinds[kind]
    try:
        signature = inspect.signature(made).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f"{table} {brief(made)} has no arguments that can be looked at; give a class") from error
    return {"kind": ""} | {k: p.default for k, p in signature.items() if k not in _FROM_DATA}, made


def class_names(recipe: Recipe) -> tuple[str, ...] | None:
    """Names of a mixture's classes, learned ones first; None for a prior without classes."""
    made = part_of(recipe, "prior") if "prior" in recipe.tables else None
    if made is Counted:
        return tuple(map(str, range(_MOST_PARTS + 1)))
    if not (isinstance(made, type) and issubclass(made, Mixture)):
        return None
    default = inspect.signature(Mixture).parameters["classes"].default
    n = recipe.table("prior").get("classes", default)
    return (*(f"class {i + 1}" for i in range(n)), *recipe.tables.get("given", {}))


def reweighting(recipe: Recipe, draws: int | None = None, reweight: bool | None = None) -> Reweighting:
    """How a voxel model's posteriors are told; asked to reweight, it takes as many draws as that needs."""
    changes = {k: v for k, v in (("draws", draws), ("reweight", reweight)) if v is not None}
    for name, value, default in (("n_draws", draws, 256), ("reweight", reweight, False)):
        if value is not None:
            check_entry(name.replace("n_", ""), value, default, ours=True)
    entries: dict[str, Any] = recipe.table("posterior") | changes
    if reweight and draws is None:
        entries["draws"] = max(entries.get("draws", 0), 1024)
    if reweight is None and draws is not None and draws < MIN_DRAWS:
        entries["reweight"] = False
    if reweight is False:
        entries["loose_axes"] = False
    return Reweighting(**entries)


def weighted(recipe: Recipe) -> Recipe:
    """The recipe with importance weights in every voxel, unless it states whether to have them."""
    own = recipe.tables.get("posterior", {})
    if "reweight" in own:
        return recipe
    return with_settings(recipe, {"posterior.reweight": True, "posterior.draws": max(1024, own.get("draws", 0))})


def _unknown(what: str, found: str, known: Any, recipe: str) -> str:
    near = difflib.get_close_matches(found if isinstance(found, str) else "", list(known), 1)
    hint = f"did you mean {near[0]!r}" if near else f"there are {', '.join(known)}"
    return f"recipe {recipe}: unknown {what} {brief(found)}; {hint}"


def recipe_folder() -> Path:
    """Where recipes lie: inside the installed package, or beside it in a checkout."""
    packaged = PACKAGE / "recipes"
    return packaged if packaged.is_dir() else PACKAGE.parent / "models"


def list_recipes() -> list[Recipe]:
    """Every recipe that comes with the package, by name."""
    return [_read(path) for path in sorted(recipe_folder().glob("*.toml"))]


def load_recipe(name: str | Path | Recipe, settings: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name or by file, with settings changed.

    Raises
    ------
    InputError
        When there is none of that name, the file is not TOML, or an entry is unknown.
    """
    if isinstance(name, Recipe):
        recipe = name
    elif str(name).endswith(".toml"):
        recipe = _read(Path(name))
    else:
        path = recipe_folder() / f"{name}.toml"
        if not path.is_file():
            known = [p.stem for p in sorted(recipe_folder().glob("*.toml"))]
            raise InputError(f"there is no recipe {str(name)!r}; there are {', '.join(known)}")
        recipe = _read(path)
    return with_settings(recipe, {} if settings is None else settings)


def plan_recipe(
    recipe: str | Path | Recipe,
    settings: Mapping[str, Any] | None = None,
    parts: Mapping[str, str | Part | None] | None = None,
    sigma: Any = None,
    given: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Recipe:
    """The recipe with everything that a call of :func:`pyroqmri.fit` changes in it; fails before any data are read."""
    plain = load_recipe(recipe)
    refuse_denoiser(plain)
    objects, changes = swapped(plain, parts or {})
    for table in objects:
        if f"{table}.kind" in as_dict(settings, "settings"):
            raise InputError(f"{table} is given as an object and as the setting {table}.kind; give one of them")
    changes |= as_dict(settings, "settings")
    plain = replace(plain, objects=plain.objects | objects)
    if isinstance(sigma, str) and sigma == "learn":
        changes["likelihood.learn"] = True
    return with_settings(plain, changes | _given_settings(as_dict(given, "given")))


def _given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Tissue classes as recipe settings, ``[mean, sd]`` of each parameter by class."""
    try:
        return {f"given.{name}": {k: [float(x) for x in pair] for k, pair in t.items()} for name, t in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"given must have mean and sd of each parameter by class, {{'free_water': {{'D': (3.0, 0.1)}}}}, got "
            f"{brief(given)}"
        ) from error


def refuse_denoiser(recipe: Recipe) -> None:
    """Raise InputError for a recipe that answers measurements, where parameters are wanted."""
    if recipe.estimator == "denoiser":
        raise InputError(
            f"recipe {recipe.name} returns denoised measurements and no parameters; use pyroqmri denoise, or "
            "fit_denoiser in Python, and fit what it writes"
        )


def _read(path: Path) -> Recipe:
    recipe = Recipe.of(parse_toml(read_bytes(path, "recipe"), path), path)
    check_recipe(recipe)
    return recipe
