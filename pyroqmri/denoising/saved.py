"""A denoiser on disk: recipe.toml, weights.safetensors, fit.json, as of any fit."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyroqmri.denoising.fit import DenoiserFit
from pyroqmri.io.fit_folder import fit_files
from pyroqmri.maps import package_versions, write_bytes


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
    for name, content in fit_files(denoiser_record(fit) | dict(extra or {}), fit.recipe, tensors).items():
        write_bytes(folder / name, content)
