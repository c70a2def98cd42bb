"""The command fit: from an image to maps, a trained fit and a report."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.commands.fit_outputs import write_results
from pyroqmri.commands.inputs import PathLike, ScanFiles, digest, given_noise, training_voxels
from pyroqmri.commands.outlier_volumes import outlier_note
from pyroqmri.commands.output_folder import CHECKPOINT, output_folder, remember_call
from pyroqmri.errors import InputError
from pyroqmri.fitting.schema import load_recipe, refuse_denoiser, with_settings
from pyroqmri.fitting.train import fit
from pyroqmri.measurements.arguments import pick_device
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS


def fit_image(
    image: PathLike,
    *,
    signal: str,
    recipe: PathLike | Recipe,
    out: PathLike,
    bval: PathLike | None = None,
    bvec: PathLike | None = None,
    te: PathLike | None = None,
    ti: PathLike | None = None,
    tr: PathLike | None = None,
    flip: PathLike | None = None,
    json: PathLike | None = None,
    mask: PathLike | None = None,
    offset: PathLike | None = None,
    inputs: Mapping[str, PathLike] | None = None,
    likelihood: str | None = None,
    sigma: PathLike | float = "estimate",
    s0: str | float = "measured",
    seed: int = 0,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    drop: str | None = None,
    khat: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Train a recipe on an image and write maps, the fit and a report.

    Parameters
    ----------
    image, bval, bvec, te, ti, tr, flip, offset, json, mask
        As in :func:`pyroqmri.io.read_scan`.
    inputs
        NIfTI maps of the signal's per-voxel inputs, such as ``{"B1": "b1.nii.gz"}``.
    signal, recipe, likelihood, s0, seed, device, settings, fixed, tied
        As in :func:`pyroqmri.fit`.
    out
        Folder to write; it has its name only once everything is in it.
    sigma
        Noise level: a number, a NIfTI map, ``estimate`` or ``learn``.
    drop
        Volumes to leave out: ``outliers``, or numbers from 0 on such as ``12,40``.
    khat
        Map the PSIS diagnostic; takes as long as all other maps or longer.
    resume
        Go on from the checkpoint that the same call left when it was interrupted.
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
    maps = {} if inputs is None else dict(inputs)
    files = ScanFiles(image, bval, bvec, te, ti, tr, flip, json, mask, offset, maps, drop)
    plan = plan_of(signal, recipe, likelihood, sigma, settings)
    pick_device(device)
    held = dict({} if fixed is None else fixed), dict({} if tied is None else tied)
    training = TrainingJob(signal, plan, sigma, s0, seed, device, *held, khat)
    with output_folder(out, overwrite=overwrite, resume=resume, inputs=files.given) as folder:
        training.run(files, folder, resume, progress)
    return Path(out)


@dataclass(frozen=True)
class TrainingJob:
    """What a training is asked for, as :func:`pyroqmri.fit` takes it."""

    signal: str
    plan: Recipe
    sigma: PathLike | float
    s0: str | float
    seed: int
    device: str
    fixed: dict[str, float]
    tied: dict[str, str]
    khat: bool = False

    def run(self, files: ScanFiles, folder: Path, resume: bool, progress: bool) -> None:
        """Read, train and write everything into ``folder``."""
        begin = time.monotonic()
        scan = files.read(self.signal, self.s0)
        level = given_noise(scan, self.sigma)
        index, said = training_voxels(scan.y, self.seed)
        spoiled = [] if files.drop is not None else outlier_note(scan, self.signal)
        y = scan.y if index is None else scan.y[index]
        inputs = {k: v if index is None else v[index] for k, v in scan.inputs.items()}
        prints = {"data": digest(y), "inputs": {k: digest(v) for k, v in inputs.items()}}
        remember_call(folder, self.record() | prints, resume)
        if resume and (folder / CHECKPOINT).exists():
            said = [*said, "training was interrupted, and went on from its checkpoint"]
        read = time.monotonic() - begin
        found = fit(
            y, scan.acquisition, signal=self.signal, recipe=self.plan,
            sigma=level[index] if index is not None and isinstance(level, np.ndarray) else level,
            s0=self.s0, seed=self.seed, device=self.device, fixed=self.fixed, tied=self.tied, progress=progress,
            inputs=inputs, checkpoint=folder / CHECKPOINT, resume=resume,
        )  # fmt: skip
        found.seconds = {"read": read, **found.seconds}
        write_results(found, scan, folder, level=level, notes=said, doubts=spoiled, khat=self.khat, progress=progress)

    def record(self) -> dict[str, Any]:
        """As plain values; the device is left out, for a training may move."""
        return {
            "signal": self.signal, "recipe": self.plan.to_toml(), "sigma": str(self.sigma), "s0": self.s0,
            "seed": self.seed, "fixed": self.fixed, "tied": self.tied,
        }  # fmt: skip


def plan_of(
    signal: str, recipe: PathLike | Recipe, likelihood: str | None, sigma: Any, settings: Mapping[str, Any] | None
) -> Recipe:
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
    if sigma == "learn":
        if plan.estimator != "voxel_model":
            raise InputError(f"recipe {plan.name} fits voxel by voxel and cannot learn sigma; use --sigma estimate")
        plan = with_settings(plan, {"likelihood.learn": True})
    return plan
