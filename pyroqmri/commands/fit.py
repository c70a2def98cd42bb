"""The command fit: from an image to maps, a trained fit and a report."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.commands.fit_outputs import write_results
from pyroqmri.commands.inputs import ScanFiles, data_record, training_voxels
from pyroqmri.commands.left_out import left_out_record
from pyroqmri.commands.manifest import CHECKPOINT
from pyroqmri.commands.noise import air_coils, given_noise
from pyroqmri.commands.output_folder import output_folder, remember_call
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.coils import LEARN, coils_of, with_coils
from pyroqmri.fitting.parts import is_field
from pyroqmri.fitting.schema import load_recipe, refuse_denoiser, with_settings
from pyroqmri.fitting.train import fit
from pyroqmri.measurements.arguments import as_dict, pick_device
from pyroqmri.progress import say_phase
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS


def fit_image(
    files: ScanFiles | PathLike,
    *,
    signal: str,
    recipe: PathLike | Recipe,
    out: PathLike,
    likelihood: str | None = None,
    coils: float | str | None = None,
    sigma: PathLike | float = "estimate",
    s0: str | float = "measured",
    seed: int = 0,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    khat: bool = False,
    predictive: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> Path:
    """Train a recipe on an image and write maps, the fit and a report.

    Parameters
    ----------
    files
        The image with its files; a path is an image whose files lie beside it.
    signal, recipe, likelihood, coils, s0, seed, device, settings, fixed, tied
        As in :func:`pyroqmri.fit`.
    out
        Folder to write; it has its name only once everything is in it.
    sigma
        Noise level: a number, a NIfTI map, ``estimate``, ``field`` or ``learn``.
    khat
        Map the PSIS diagnostic; takes as long as all other maps or longer.
    predictive
        Keep a tenth of the volumes aside from the posteriors of 400 voxels and record how often 90 % predictive
        intervals contain them; maps still use all volumes.
    resume
        Go on from the checkpoint that the same call left when it was interrupted.
    overwrite
        Replace ``out``, if pyroqmri wrote it.
    jobs
        Processes that share the maps, each with one thread.
    progress
        Show bars.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        When the input or the call is wrong; nothing is left behind.
    TrainingError
        When training diverges.
    """
    files, plan = ScanFiles.of(files), plan_of(signal, recipe, likelihood, sigma, settings, coils)
    pick_device(device)
    # the device is left out, for a training may move
    call: dict[str, Any] = {
        "signal": signal, "recipe": plan.to_toml(), "sigma": str(sigma), "s0": s0, "seed": seed,
        "fixed": as_dict(fixed), "tied": as_dict(tied),
    }  # fmt: skip
    with output_folder(out, overwrite=overwrite, resume=resume, inputs=files.given) as folder:
        begin = time.monotonic()
        say_phase("reading the scan, measuring its noise", progress)
        scan = files.read(signal)
        coils = air_coils(scan) if coils == LEARN else coils
        level = given_noise(scan, sigma, files.resample, coils_of(plan) if coils is None else coils)
        data = training_voxels(scan, level, seed, together=is_field(plan))
        resumed = remember_call(folder, call | data_record(scan, data.y, data.inputs, data.level), resume)
        read = time.monotonic() - begin
        found = fit(
            data.y, scan.acquisition, signal=signal, recipe=plan, coils=coils, sigma=data.level, s0=s0, seed=seed,
            device=device, fixed=fixed, tied=tied, inputs=data.inputs, voxels=np.argwhere(scan.mask)[data.index],
            progress=progress, checkpoint=folder / CHECKPOINT, resume=resume,
            likelihood=as_dict(settings).get("likelihood.kind", likelihood), causes=False,
        )  # fmt: skip
        found.seconds = {"read": read, **found.seconds}
        notes = [*data.notes, *resumed]
        left_out = left_out_record(scan, files.bmax)
        level = level if found.noise.field is None else found.noise.at(np.argwhere(scan.mask))
        write_results(
            found, scan, folder, level=level, notes=notes, left_out=left_out, khat=khat, predictive=predictive,
            jobs=jobs, progress=progress,
        )  # fmt: skip
    return Path(out)


def plan_of(
    signal: str, recipe: PathLike | Recipe, likelihood: str | None, sigma: Any, settings: Mapping[str, Any] | None,
    coils: float | str | None = None,
) -> Recipe:  # fmt: skip
    """The recipe with every change that was asked for.

    Raises
    ------
    InputError
        For whatever can be refused before a scan is read.
    """
    if signal not in SIGNALS:
        raise InputError(f"there is no signal {signal!r}; there are {', '.join(SIGNALS)}")
    plan = load_recipe(recipe, settings)
    refuse_denoiser(plan)
    if likelihood is not None:
        plan = with_settings(plan, {"likelihood.kind": likelihood})
    if coils is not None and likelihood not in (None, "ncchi"):
        raise InputError(f"coils are of likelihood ncchi, and {likelihood} was asked for; leave one of them out")
    plan = with_coils(plan, coils)
    if sigma == "learn":
        if plan.estimator != "voxel_model":
            raise InputError(f"recipe {plan.name} fits voxel by voxel and cannot learn sigma; use --sigma estimate")
        plan = with_settings(plan, {"likelihood.learn": True})
    return plan
