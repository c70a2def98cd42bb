"""A denoiser on disk: recipe.toml, weights.safetensors, fit.json, as of any fit."""

import hashlib
import json
import tomllib
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from pyroqmri.acquisition import Acquisition
from pyroqmri.data import Preparation
from pyroqmri.denoising.fit import DenoiserFit, build_autoencoder
from pyroqmri.errors import InputError
from pyroqmri.estimators.denoise import DenoiserTrace
from pyroqmri.maps import write_bytes
from pyroqmri.recipe import Recipe
from pyroqmri.saved import package_versions
from pyroqmri.sigma import NoiseLevel


def denoiser_record(fit: DenoiserFit) -> dict[str, Any]:
    """What a denoiser was told and what it found, as plain values."""
    return {
        "pyroqmri": version("pyroqmri"),
        "versions": package_versions(),
        "estimator": "denoiser",
        "signal": fit.signal_name,
        "recipe": fit.recipe.name,
        "s0": fit.preparation.s0,
        "preparation": fit.preparation.record(),
        "seed": fit.seed,
        "protocol": {name: value.tolist() for name, value in fit.acquisition.settings().items()},
        "sigma": {"value": fit.noise.sigma, "method": fit.noise.method, "note": fit.noise.note},
        "seconds": fit.seconds,
        "trace": asdict(fit.trace),
        "n_voxels": fit.n_voxels,
        "notes": [],
        "warnings": [],
    }


def save_denoiser(fit: DenoiserFit, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """Write a denoiser; ``extra`` entries join ``fit.json``, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{k}": v for k, v in fit.network.state_dict().items()} | {"centre": fit.centre}
    weights = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    record = denoiser_record(fit) | {"weights_sha256": hashlib.sha256(weights).hexdigest()} | dict(extra or {})
    write_bytes(folder / "recipe.toml", fit.recipe.to_toml().encode())
    write_bytes(folder / "weights.safetensors", weights)
    write_bytes(folder / "fit.json", json.dumps(record, indent=1, allow_nan=False).encode())


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
        raise InputError(f"{folder} holds no denoiser that can be read: {error}") from error
    if record.get("estimator") != "denoiser":
        raise InputError(f"{folder} holds a fit of {record.get('recipe')}, which denoises nothing; give a denoiser's")
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
    recipe.check()
    acq = Acquisition(**{k: torch.tensor(v) for k, v in record["protocol"].items()})
    network = build_autoencoder(recipe, len(acq))
    centre = tensors.pop("centre")
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
    sigma = record["sigma"]
    return DenoiserFit(
        recipe, record["signal"], acq, Preparation(**record["preparation"]),
        NoiseLevel(sigma["value"], sigma["method"], sigma["note"]), network, centre, record["seed"],
        DenoiserTrace(**record["trace"]), record["seconds"], record["n_voxels"],
    )  # fmt: skip
