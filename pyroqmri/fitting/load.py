"""A fit read back from disk."""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.parts import REGISTRIES, Part, check_part, kind_of, refuse_unnamed_code
from pyroqmri.fitting.rebuild import build_parts
from pyroqmri.fitting.schema import check_recipe
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.posterior.recalibration import Recalibration
from pyroqmri.recipe import Recipe
from pyroqmri.svi import Trace


def load_fit(
    folder: str | Path,
    *,
    trust: bool = False,
    prior: Part | None = None,
    decoder: Part | None = None,
    guide: Part | None = None,
    likelihood: Part | None = None,
) -> Fit:
    """Read a fit that was saved.

    Parameters
    ----------
    folder
        Where it lies, or the folder of maps with the fit in it.
    trust
        Import the classes from outside the package that the fit names (``my_module:MyPrior``); runs their modules.
    prior, decoder, guide, likelihood
        The classes, or factories, that the fit was trained with in place of the package's own.

    Raises
    ------
    InputError
        When the folder holds no fit, its weights are not the ones that were written, or it needs a class from outside
        the package that was neither given nor trusted.
    """
    parts = {"prior": prior, "decoder": decoder, "guide": guide, "likelihood": likelihood}
    return read_fit(Path(folder), trust, {table: part for table, part in parts.items() if part is not None})


def read_fit(folder: Path, trust: bool = False, objects: Mapping[str, Part] | None = None) -> Fit:
    """Read a fit back; see :func:`pyroqmri.load_fit`."""
    folder = folder / "fit" if (folder / "fit" / "fit.json").is_file() else folder
    try:
        record = json.loads((folder / "fit.json").read_text())
        content = tomllib.loads((folder / "recipe.toml").read_text())
        weights = (folder / "weights.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} contains no readable fit: {error}") from error
    if hashlib.sha256(weights).hexdigest() != record.get("weights_sha256"):
        raise InputError(f"{folder / 'weights.safetensors'} is damaged: its checksum is not the one in fit.json")
    if record.get("estimator") == "denoiser":
        raise InputError(f"{folder} contains a denoiser, which has no parameters; read it with pyroqmri.load_denoiser")
    try:
        recipe = _recipe(content, dict(objects or {}))
        if not trust:
            refuse_unnamed_code(recipe, folder)
        check_recipe(recipe)
        return _fit_of(record, recipe, load(weights))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{folder / 'fit.json'} is no record of a fit, or of another version: {error!r}") from error


def _recipe(content: dict[str, Any], objects: dict[str, Part]) -> Recipe:
    head = {k: content.pop(k) for k in ("name", "doc", "estimator")}
    for table, part in objects.items():
        check_part(table, part)
        if table not in content:
            raise InputError(f"the fit by {head['name']} has no {table}, and one was given")
        kind = content[table].get("kind")
        if kind in REGISTRIES[table] and REGISTRIES[table][kind] is not part:
            raise InputError(f"the fit was trained with {table} {kind!r}, and {kind_of(table, part)} was given")
        content[table]["kind"] = kind_of(table, part)  # what a fit saved again is to name
    return Recipe(**head, tables=content, objects=objects)


def _fit_of(record: dict[str, Any], recipe: Recipe, tensors: dict[str, Tensor]) -> Fit:
    acq = Acquisition(**{k: torch.tensor(v) for k, v in record["protocol"].items()})
    preparation = Preparation.of(record["preparation"], acq)
    sigma = record["sigma"]
    factor = 1.0 if sigma["learned_factor"] is None else sigma["learned_factor"]
    level = tensors.pop("noise.level", sigma["value"] / factor)
    ours = [w for w in record["warnings"] if w not in record.get("alarms", ())]  # alarms are of one image
    parts = build_parts(recipe, record["signal"], acq, preparation, record["fixed"], record["tied"], tensors)
    return Fit(
        recipe, record["signal"], acq, preparation, NoiseLevel(level, sigma["method"], sigma["note"]), parts.signal,
        parts.likelihood, parts.model, parts.guide, record["fixed"], record["tied"], record["seed"],
        _trace(record["trace"]), record["seconds"], record["n_voxels"], ours,
        Recalibration.of(record.get("recalibration")), parts.network, tuple(record.get("inputs", ())),
        tuple(record.get("covariates", ())), tuple(record.get("uninformed", ())),
    )  # fmt: skip


def _trace(record: dict[str, Any]) -> Trace:
    trace = Trace(**record)
    trace.held_out = [math.nan if x is None else x for x in record["held_out"]]
    return trace
