"""A denoiser read back from disk."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from pyroqmri.acquisition import Acquisition
from pyroqmri.denoising.autoencoders import build_autoencoder
from pyroqmri.denoising.fit import DenoiserFit
from pyroqmri.denoising.training import DenoiserTrace
from pyroqmri.errors import InputError
from pyroqmri.fitting.schema import check_recipe
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.recipe import Recipe


def is_denoiser(folder: str | Path) -> bool:
    """Whether a folder holds a saved denoiser."""
    for path in (Path(folder) / "fit" / "fit.json", Path(folder) / "fit.json"):
        try:
            return json.loads(path.read_text()).get("estimator") == "denoiser"
        except (OSError, ValueError, AttributeError):
            continue
    return False


def load_denoiser(folder: str | Path) -> DenoiserFit:
    """Read a denoiser that was saved.

    Raises
    ------
    InputError
        When the folder holds none, or its weights are not the ones that were written.
    """
    folder = Path(folder)
    folder = folder / "fit" if (folder / "fit" / "fit.json").is_file() else folder
    try:
        record = json.loads((folder / "fit.json").read_text())
        content = tomllib.loads((folder / "recipe.toml").read_text())
        weights = (folder / "weights.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} contains no readable denoiser: {error}") from error
    if record.get("estimator") != "denoiser":
        raise InputError(f"{folder} is a fit of {record.get('recipe')}, which denoises nothing; give a denoiser's")
    if hashlib.sha256(weights).hexdigest() != record.get("weights_sha256"):
        raise InputError(f"{folder / 'weights.safetensors'} is damaged: its checksum is not the one in fit.json")
    try:
        return _rebuilt(record, content, load(weights))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{folder / 'fit.json'} is no record of a denoiser, or of another version: {error!r}"
        ) from error


def _rebuilt(record: dict[str, Any], content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> DenoiserFit:
    head = {k: content.pop(k) for k in ("name", "doc", "estimator")}
    recipe = Recipe(**head, tables=content)
    if recipe.estimator != "denoiser":  # before it is checked: parts of other estimators may name modules to import
        raise InputError(f"the recipe of this denoiser is one of a {recipe.estimator}; its folder was changed by hand")
    check_recipe(recipe)
    acq = Acquisition(**{k: torch.tensor(v) for k, v in record["protocol"].items()})
    network = build_autoencoder(recipe, len(acq))
    centre = tensors.pop("centre")
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
    sigma = record["sigma"]
    return DenoiserFit(
        recipe, record["signal"], acq, Preparation.of(record["preparation"], acq),
        NoiseLevel(sigma["value"], sigma["method"], sigma["note"]), network, centre, record["seed"],
        DenoiserTrace(**record["trace"]), record["seconds"], record["n_voxels"],
    )  # fmt: skip
