"""The command denoise: from an image to a denoised one, what was taken away, and whether that looks like noise."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.commands.denoise_outputs import write_denoised
from pyroqmri.commands.inputs import ScanFiles, data_record, per_voxel, training_voxels
from pyroqmri.commands.left_out import earlier_record, left_out_record
from pyroqmri.commands.manifest import CHECKPOINT
from pyroqmri.commands.noise import given_noise
from pyroqmri.commands.output_folder import output_folder, remember_call
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.denoising import DenoiserFit, check_residual
from pyroqmri.denoising.saved import save_denoiser
from pyroqmri.errors import InputError
from pyroqmri.fitting.denoiser import fit_denoiser, plan_denoiser
from pyroqmri.fitting.load_denoiser import load_denoiser
from pyroqmri.fitting.protocol import check_denoiser_protocol
from pyroqmri.io import Scan
from pyroqmri.measurements.arguments import as_dict, pick_device
from pyroqmri.protocol_checks.denoised import denoised_warnings
from pyroqmri.recipe import Recipe
from pyroqmri.report.denoising import write_denoising_report


def denoise_image(
    files: ScanFiles | PathLike,
    *,
    recipe: PathLike | Recipe = "denoise_vae",
    out: PathLike,
    signal: str = "dti",
    fit_dir: PathLike | None = None,
    sigma: PathLike | float | None = None,
    s0: str | float = "measured",
    seed: int = 0,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Denoise an image; write it, the residual, tensor maps before and after, the denoiser and a report.

    Parameters
    ----------
    files
        As in :func:`pyroqmri.commands.fit_image`.
    signal, recipe, s0, seed, device, settings, fixed, tied
        As in :func:`pyroqmri.denoising.fit_denoiser`.
    out
        Folder to write; it has its name only once everything is in it.
    fit_dir
        A denoiser that was saved, to use again in place of training one; signal, recipe, s0, seed and settings
        are then its own.
    sigma
        Noise level: a number, a NIfTI map or ``estimate``. None estimates it.
    resume
        Go on from the last whole epoch of the same call that was interrupted.
    overwrite
        Replace ``out``, if pyroqmri wrote it.
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
    files = ScanFiles.of(files)
    if sigma == "learn":
        raise InputError("a denoiser does not learn sigma; give --sigma as a number, a map or estimate")
    if files.averages is not None:
        raise InputError("a denoiser assumes single magnitudes; leave out --averages and give --sigma")
    files.refuse_own_protocol("denoise")
    pick_device(device)
    level = "estimate" if sigma is None else sigma
    if fit_dir is not None:
        job: DenoiserJob | DenoiserFit = load_denoiser(fit_dir)
    else:
        held = as_dict(fixed), as_dict(tied)
        job = DenoiserJob(signal, plan_denoiser(signal, recipe, s0, settings), str(level), s0, seed, device, *held)
    given = files.given if fit_dir is None else [*files.given, fit_dir]
    with output_folder(out, overwrite=overwrite, resume=resume, inputs=given) as folder:
        begin = time.monotonic()
        name = job.signal if isinstance(job, DenoiserJob) else job.signal_name
        scan = files.read(name, {} if fit_dir is None else earlier_record(fit_dir))
        scan.warnings.extend(denoised_warnings(scan.y, scan.acquisition, np.argwhere(scan.mask)))
        noise = given_noise(scan, level, files.resample)
        noise = noise if per_voxel(noise) is None else per_voxel(noise)
        read = time.monotonic() - begin
        if isinstance(job, DenoiserJob):
            fit, notes = job.run(scan, noise, folder, resume, progress)
        else:
            fit, notes = _again(job, scan, device)
        fit.seconds = {"read": read, **fit.seconds}
        _write(fit, scan, noise, notes, left_out_record(scan, files.bmax), folder, progress)
    return Path(out)


@dataclass(frozen=True)
class DenoiserJob:
    """What a training is asked for, as :func:`pyroqmri.denoising.fit_denoiser` takes it."""

    signal: str
    plan: Recipe
    sigma: str
    s0: str | float
    seed: int
    device: str
    fixed: dict[str, float]
    tied: dict[str, str]

    def run(self, scan: Scan, noise: Any, folder: Path, resume: bool, progress: bool) -> tuple[DenoiserFit, list[str]]:
        """Train on a scan, with checkpoints in ``folder``; the denoiser, and what is to be noted of it."""
        data = training_voxels(scan, noise, self.seed)
        call = {
            "signal": self.signal, "recipe": self.plan.to_toml(), "sigma": self.sigma, "s0": self.s0,
            "seed": self.seed, "fixed": self.fixed, "tied": self.tied,
        }  # fmt: skip
        resumed = remember_call(folder, call | data_record(scan, data.y, data.inputs, data.level), resume)
        fit = fit_denoiser(
            data.y, scan.acquisition, signal=self.signal, recipe=self.plan, sigma=data.level, s0=self.s0,
            fixed=self.fixed, tied=self.tied, inputs=data.inputs,
            seed=self.seed, device=self.device, progress=progress, checkpoint=folder / CHECKPOINT, resume=resume,
        )  # fmt: skip
        return fit, [_lesson(fit), *resumed]


def _lesson(fit: DenoiserFit) -> str:
    if fit.is_self_supervised:
        return (
            f"trained on {min(fit.n_voxels, fit.targets.voxels)} voxels of this scan, some measurements of each hidden"
        )
    what = {"uniform": "uniform parameters", "tissue": "typical tissue", "fitted": "parameters fitted to this scan"}
    added = fit.noise_range
    levels = (
        "the scan's noise levels" if added.levels == "scan" else f"noise between {added.low:g} and {added.high:g} of S0"
    )
    return (
        f"trained on {fit.targets.voxels} simulated {fit.signal_name} signals of {what[fit.targets.source]}, with "
        f"{added.kind} noise at {levels}"
    )


def _again(fit: DenoiserFit, scan: Scan, device: str) -> tuple[DenoiserFit, list[str]]:
    """A saved denoiser on a scan of its protocol."""
    check_denoiser_protocol(fit.acquisition, scan.acquisition, fit.signal_name)
    fit.network.to(pick_device(device))
    fit.seconds = {}
    return fit, ["denoised by a network that was trained before; nothing was trained on this image"]


def _write(
    fit: DenoiserFit, scan: Scan, noise: Any, notes: list[str], left_out: dict[str, Any], folder: Path, progress: bool
) -> None:
    begin = time.monotonic()
    level = noise if isinstance(noise, np.ndarray) else getattr(noise, "sigma", noise)
    denoised = fit.denoise(scan.y, level, progress)
    check = check_residual(denoised, scan.acquisition, fit.noise_range.kind, scan.mask, fit.seed)
    latents = fit.latents(scan.y)
    fit.seconds = {**fit.seconds, "denoise": time.monotonic() - begin}
    write_denoised(fit, scan, denoised, check, latents, folder)
    found = [f"the residual does not look like noise: {finding}" for finding in check.findings]
    extra = {
        "notes": [*scan.notes, fit.preparation.note(fit.acquisition), *notes],
        "warnings": [*scan.warnings, *fit.noise.warnings, *found], "sources": [scan.ref.path.name],
        "left_out": left_out,
    }  # fmt: skip
    save_denoiser(fit, folder / "fit", extra)
    write_denoising_report(folder)
