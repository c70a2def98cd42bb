"""The command compare: several recipes on one image, ranked, with a map of where each wins."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pyroqmri import __version__
from pyroqmri.commands.fit import plan_of
from pyroqmri.commands.inputs import ScanFiles, data_record, per_voxel
from pyroqmri.commands.manifest import CHECKPOINT
from pyroqmri.commands.noise import given_noise
from pyroqmri.commands.output_folder import output_folder, remember_call
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.comparison import Candidate, Plan, Results, compare_recipes
from pyroqmri.comparison.cross_fit import check
from pyroqmri.comparison.ranking import Comparison
from pyroqmri.errors import InputError
from pyroqmri.fitting.coils import coils_of
from pyroqmri.fitting.schema import with_settings
from pyroqmri.io import Scan
from pyroqmri.maps import map_name, scatter, write_bids, write_json, write_volume
from pyroqmri.measurements.arguments import as_dict, pick_device
from pyroqmri.protocol_checks.denoised import denoised_warnings
from pyroqmri.report.comparison import COMPARISON, write_comparison
from pyroqmri.whole_files import write_bytes


@dataclass(frozen=True)
class Choice:
    """A recipe to compare, and how it differs from the others in more than its name.

    Parameters
    ----------
    recipe
        Name or file.
    signal, likelihood, s0
        In place of those of the comparison.
    settings, fixed, tied
        As in :func:`pyroqmri.fit`.
    """

    recipe: PathLike
    signal: str | None = None
    likelihood: str | None = None
    s0: str | float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)


def compare_image(
    files: ScanFiles | PathLike,
    *,
    signal: str,
    recipes: Mapping[str, Choice],
    out: PathLike,
    likelihood: str | None = None,
    coils: float | None = None,
    sigma: PathLike | float = "estimate",
    s0: str | float = "measured",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    plan: Plan | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[Path, Comparison]:
    """Compare recipes on an image and write rankings, maps of where each wins and one HTML page.

    Parameters
    ----------
    files, signal, likelihood, coils, sigma, s0, device, out, overwrite, progress
        As in :func:`pyroqmri.commands.fit_image`.
    recipes
        By the name that they go by here.
    settings, fixed, tied
        As in :func:`pyroqmri.fit`, of every recipe; what a recipe's own :class:`Choice` says goes before.
    plan
        What is left out.
    resume
        Go on after the last training that the same call finished before it was interrupted.

    Returns
    -------
    Path, Comparison
        The folder, and what was found.

    Raises
    ------
    InputError
        When the input or the call is wrong; nothing is left behind.
    """
    files, plan = ScanFiles.of(files), Plan() if plan is None else plan
    files.refuse_own_protocol("compare")
    pick_device(device)
    own = as_dict(settings)
    if coils is not None:
        likelihood, own = "ncchi" if likelihood is None else likelihood, {"likelihood.coils": coils} | own
    every = Choice("", signal, likelihood, s0, own, as_dict(fixed), as_dict(tied))
    candidates = {
        name: candidate_of(_completed(choice, every), sigma, plan.seed, device) for name, choice in recipes.items()
    }
    call = {name: _record(c) for name, c in candidates.items()}
    call |= {"recipes": list(candidates), "plan": vars(plan), "sigma": str(sigma)}
    with output_folder(out, overwrite=overwrite, resume=resume, inputs=files.given) as folder:
        begin = time.monotonic()
        scan = files.read([c.signal for c in candidates.values()])
        inputs = {name: torch.from_numpy(value) for name, value in scan.inputs.items()}
        place = torch.from_numpy(np.argwhere(scan.mask))
        check(candidates, scan.acquisition, plan, place)
        scan.warnings.extend(denoised_warnings(scan.y, scan.acquisition, np.argwhere(scan.mask)))
        noise = given_noise(scan, sigma, files.resample, coils_of(next(iter(candidates.values())).recipe))
        remember_call(folder, call | data_record(scan, scan.y, scan.inputs, noise), resume)
        level = per_voxel(noise)
        level = noise if level is None else torch.as_tensor(level, dtype=torch.float32)
        checkpoint = folder / CHECKPOINT
        results = Results()
        if resume and checkpoint.exists():
            results.arrays = _kept(checkpoint)
        found = compare_recipes(
            candidates, torch.from_numpy(scan.y), scan.acquisition, level, plan, inputs=inputs, voxels=place,
            results=results, keep=lambda done: _keep(done, checkpoint), progress=progress,
        )  # fmt: skip
        warnings = (*scan.warnings, *getattr(noise, "warnings", ()))
        found = replace(found, notes=(*found.notes, *scan.notes), warnings=warnings)
        said = {"candidates": call, "seconds": time.monotonic() - begin, "noise": str(getattr(noise, "note", sigma))}
        write_found(found, scan, candidates, folder, said)
    return Path(out), found


def _completed(choice: Choice, every: Choice) -> Choice:
    """A choice with what it leaves open taken from what is said of every recipe."""
    return Choice(
        choice.recipe,
        every.signal if choice.signal is None else choice.signal,
        every.likelihood if choice.likelihood is None else choice.likelihood,
        every.s0 if choice.s0 is None else choice.s0,
        {**every.settings, **choice.settings}, {**every.fixed, **choice.fixed}, {**every.tied, **choice.tied},
    )  # fmt: skip


def candidate_of(choice: Choice, sigma: Any, seed: int, device: str) -> Candidate:
    """The candidate of a choice that leaves nothing open."""
    assert choice.signal is not None and choice.s0 is not None
    learned = sigma if sigma != "learn" else "estimate"
    plan = plan_of(choice.signal, choice.recipe, choice.likelihood, learned, choice.settings)
    if sigma == "learn" and plan.estimator == "voxel_model":
        plan = with_settings(plan, {"likelihood.learn": True})
    if plan.estimator == "denoiser":
        raise InputError(f"recipe {plan.name} denoises and predicts nothing; leave it out of the comparison")
    return Candidate(choice.signal, plan, choice.s0, seed, dict(choice.fixed), dict(choice.tied), device)


def _record(candidate: Candidate) -> dict[str, Any]:
    return {
        "signal": candidate.signal, "recipe": candidate.recipe.to_toml(), "s0": candidate.s0,
        "fixed": candidate.fixed, "tied": candidate.tied,
    }  # fmt: skip


def _keep(results: Results, path: Path) -> None:
    write_bytes(path, save({k: v.contiguous() for k, v in results.arrays.items()}))


def _kept(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is no checkpoint that can be read ({error}); start afresh without --resume"
        ) from error


def write_found(
    found: Comparison, scan: Scan, candidates: Mapping[str, Candidate], folder: Path, said: Mapping[str, Any]
) -> None:
    """Write rankings, maps and the page of a comparison into a folder; ``said`` goes into its record."""
    signals = {c.signal for c in candidates.values()}
    model = signals.pop() if len(signals) == 1 else "several"
    if found.evidence:
        _write_maps(found, scan, folder, model)
    generated = [{"Name": "pyroqmri", "Version": __version__}]
    record = {
        **found.record(), **said, "image": scan.ref.path.name, "prefix": scan.ref.prefix, "model": model,
        "warnings": scan.warnings, "GeneratedBy": generated,
    }  # fmt: skip
    write_json(folder / COMPARISON, json.loads(json.dumps(record, default=str)))
    write_bids(folder)
    write_comparison(folder)


def _write_maps(found: Comparison, scan: Scan, folder: Path, model: str) -> None:
    names = [name for name in found.groups[0] if name in found.evidence]
    winners = found.winners
    fitted = np.isfinite(winners).all(-1)
    best = np.where(fitted, np.nan_to_num(winners).argmax(-1) + 1, 0).astype(np.uint8)
    evidence = np.stack([found.evidence[name] for name in names], -1).astype(np.float32)
    levels = {"0": "outside the mask, or not fitted"} | {str(i + 1): name for i, name in enumerate(names)}
    maps: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
        ("desc-winner", best, {"Description": "recipe with the largest evidence", "Levels": levels}),
        ("desc-winnerprob", winners.astype(np.float32),
         {"Description": "probability of each recipe, one volume each, equally likely before the data", "Units": "1",
          "Recipes": names}),
        ("desc-evidence", evidence,
         {"Description": "log density of the voxel's measurements given the population of each recipe, one volume each",
          "Units": "nats", "Recipes": names}),
    )  # fmt: skip
    for entity, values, sidecar in maps:
        name = map_name(scan.ref.prefix, model, entity, "dwimap")
        volume = scatter(values, scan.mask, values.dtype)
        write_volume(folder / f"{name}.nii.gz", volume, np.asarray(scan.ref.affine), scan.ref.oriented)
        write_json(folder / f"{name}.json", sidecar)
