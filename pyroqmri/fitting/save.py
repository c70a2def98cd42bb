"""A fit on disk: recipe.toml, weights.safetensors, fit.json; no pickle anywhere."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.rebuild import weights_of
from pyroqmri.fitting.record import bounds_of
from pyroqmri.io.fit_folder import fit_files
from pyroqmri.maps import package_versions
from pyroqmri.measurements.noise_field import FIELD
from pyroqmri.whole_files import write_bytes


def fit_record(fit: Fit) -> dict[str, Any]:
    """What a fit was told and what it found, as plain values."""
    trace = asdict(fit.trace)
    # no voxel kept aside has no loss, and NaN is no JSON
    trace["held_out"] = [None if x != x else x for x in trace["held_out"]]
    looks = len(trace["step"]) - len(fit.elbo)  # that come before the loss is a bound
    return {
        "pyroqmri": version("pyroqmri"),
        "versions": package_versions(),
        "signal": fit.signal_name,
        "recipe": fit.recipe.name,
        "likelihood": fit.recipe.kind("likelihood"),
        "s0": fit.preparation.s0,
        "preparation": fit.preparation.record(),
        "inputs": list(fit.inputs),
        "covariates": list(fit.covariates),
        "own_protocol": list(fit.own_protocol),
        "uninformed": list(fit.uninformed),
        "rests_on_shape": fit.rests_on_shape,
        "bounds": bounds_of(fit.signal_name),
        "fixed": fit.fixed,
        "tied": fit.tied,
        "seed": fit.seed,
        "device": str(next(iter(fit.model.buffers())).device) if fit.model is not None else "cpu",
        "protocol": _settings(fit.acquisition),
        "learned_on": None if fit.learned_on is None else _settings(fit.learned_on),
        "sigma": fit.sigma_record,
        "seconds": fit.seconds,
        "elbo": {
            "step": trace["step"][looks:],
            "train": fit.elbo,
            "held_out": [None if x is None else -x for x in trace["held_out"][looks:]],
        },
        "trace": trace,
        "n_voxels": fit.n_voxels,
        "population": population_record(fit),
        "warnings": fit.warnings,
        "causes": [cause.record() for cause in fit.causes],
        "residual_noise": None if fit.residual_noise is None else asdict(fit.residual_noise),
        "recalibration": None if fit.recalibration is None else fit.recalibration.record(),
    }


def _settings(acquisition: Acquisition) -> dict[str, Any]:
    return {name: value.tolist() for name, value in acquisition.settings().items()}


def population_record(fit: Fit) -> dict[str, Any]:
    """The learned population in physical units: the value at its mean, and at one sd either side of it."""
    if fit.model is None or not fit.model.is_identity or not any(True for _ in fit.model.prior.parameters()):
        return {}
    with torch.no_grad():
        classes = fit.model.prior.classes()
        sd = classes.scale_tril.square().sum(-1).sqrt()
        record: dict[str, Any] = {"weights": classes.log_weights.softmax(-1).tolist()}
        for i, p in enumerate(fit.signal.tissue):
            steps = torch.zeros(3, *classes.loc.shape).to(classes.loc)
            steps[0, :, i], steps[2, :, i] = -sd[:, i], sd[:, i]
            moved = (classes.loc + steps)[..., : fit.signal.n_tissue]
            spread = fit.signal.constrain_tissue(moved)[p.name] * _unit_of(fit, p.name)
            record[p.name] = {"unit": p.unit, "median_and_68%": spread[[1, 0, 2]].T.tolist()}
        if fit.model.prior.follows_draws:
            for name, medians in population_draws(fit).items():
                levels = torch.tensor([0.5, 0.05, 0.95])
                record[name]["median's_median_and_90%"] = medians.quantile(levels).tolist()
    return record


def population_draws(fit: Fit, n: int = 1000, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws ``(n,)`` of the population's median of each parameter, from a population with a posterior of its own.

    Raises
    ------
    InputError
        When the fit's population is a point: train with ``prior.kind = "full_hierarchical"``.
    """
    if fit.model is None or not fit.model.prior.follows_draws:
        raise InputError(
            f"recipe {fit.recipe.name} estimates its population as a point; set prior.kind to full_hierarchical"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loc, _ = fit.model.prior.draws(n)  # type: ignore[operator]
    physical = fit.signal.constrain_tissue(loc)
    return {p.name: physical[p.name].cpu() * _unit_of(fit, p.name) for p in fit.signal.tissue}


def _unit_of(fit: Fit, name: str) -> float:
    """What a parameter is multiplied by to be in its unit: the scan's scale for S0 and amplitudes."""
    return fit.preparation.scale if name in fit.signal.in_scan_units else 1.0


def save_fit(fit: Fit, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """Write a fit; ``extra`` entries join ``fit.json``, which is written last and has everything's checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = weights_of(fit)
    if isinstance(fit.noise.level, torch.Tensor):
        tensors["noise.level"] = fit.noise.level
    if fit.noise.field is not None:
        tensors |= {f"{FIELD}{name}": value for name, value in vars(fit.noise.field).items()}
    for name, content in fit_files(fit_record(fit) | dict(extra or {}), fit.recipe, tensors).items():
        write_bytes(folder / name, content)
