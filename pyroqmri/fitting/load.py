"""A fit read back from disk."""

import hashlib
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.rebuild import build_parts
from pyroqmri.fitting.schema import check_recipe
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.posterior.recalibration import Recalibration
from pyroqmri.recipe import Recipe
from pyroqmri.svi import Trace


def load_fit(folder: str | Path) -> Fit:
    """Read a fit that was saved.

    Raises
    ------
    InputError
        When the folder holds none, or its weights are not the ones that were written.
    """
    return read_fit(Path(folder))


def read_fit(folder: Path) -> Fit:
    """Read a fit back; see :func:`pyroqmri.load_fit`."""
    folder = folder / "fit" if (folder / "fit" / "fit.json").is_file() else folder
    try:
        record = json.loads((folder / "fit.json").read_text())
        content = tomllib.loads((folder / "recipe.toml").read_text())
        weights = (folder / "weights.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no fit that can be read: {error}") from error
    if hashlib.sha256(weights).hexdigest() != record.get("weights_sha256"):
        raise InputError(f"{folder / 'weights.safetensors'} is damaged: its checksum is not the one in fit.json")
    if record.get("estimator") == "denoiser":
        raise InputError(f"{folder} holds a denoiser, which answers no parameters; read it with pyroqmri.load_denoiser")
    try:
        return _fit_of(record, content, load(weights))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{folder / 'fit.json'} is no record of a fit, or of another version: {error!r}") from error


def _fit_of(record: dict[str, Any], content: dict[str, Any], tensors: dict[str, Tensor]) -> Fit:
    head = {k: content.pop(k) for k in ("name", "doc", "estimator")}
    recipe = Recipe(**head, tables=content)
    check_recipe(recipe)
    acq = Acquisition(**{k: torch.tensor(v) for k, v in record["protocol"].items()})
    preparation = Preparation(**record["preparation"])
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
    )  # fmt: skip


def _trace(record: dict[str, Any]) -> Trace:
    trace = Trace(**record)
    trace.held_out = [math.nan if x is None else x for x in record["held_out"]]
    return trace
