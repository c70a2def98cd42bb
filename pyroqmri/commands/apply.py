"""The command apply: a saved fit on new data."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from pyroqmri.commands.denoise import denoise_image
from pyroqmri.commands.fit_outputs import write_results
from pyroqmri.commands.inputs import ScanFiles, given_noise, settle_noise
from pyroqmri.commands.outlier_volumes import outlier_note, unwanted_volumes, without
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.fitting.load_denoiser import is_denoiser
from pyroqmri.io import Scan
from pyroqmri.measurements.arguments import pick_device


def apply_image(
    fit_dir: PathLike,
    files: ScanFiles | PathLike,
    *,
    out: PathLike,
    sigma: PathLike | float | None = None,
    device: str = "auto",
    trust: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Map new data of the same protocol with a saved fit; no training.

    Gradient directions may differ from the training's, as they do from subject to subject.

    Parameters
    ----------
    fit_dir
        Folder of the fit, or the folder that :func:`fit_image` wrote.
    sigma
        Noise level: a number, a NIfTI map or ``estimate``. None does as the training
        did: the same number where it was given one, else an estimate on this image.
    trust
        As in :func:`pyroqmri.load_fit`.
    files, out, device, overwrite, progress
        As in :func:`fit_image`.

    Raises
    ------
    InputError
        When the input is wrong, or its protocol is not the one of the fit.
    """
    files = ScanFiles.of(files)
    if sigma == "learn":
        raise InputError("apply does not learn; give --sigma as a number, a map or estimate")
    where = pick_device(device)
    if is_denoiser(fit_dir):
        if files.drop is not None:
            raise InputError(f"{fit_dir} is a denoiser, which takes every volume of its protocol; leave none out")
        return denoise_image(
            files, out=out, fit_dir=fit_dir, sigma=sigma, device=device, overwrite=overwrite, progress=progress
        )
    found = load_fit(fit_dir, trust=trust)
    with output_folder(out, overwrite=overwrite, inputs=[*files.given, fit_dir]) as folder:
        begin = time.monotonic()
        whole = replace(files, drop=None).read(found.signal_name)
        found, scan = on_scan(found, whole, files.drop)
        level = None
        if sigma is not None or found.noise.method != "given":
            level = given_noise(scan, "estimate" if sigma is None else sigma, files.resample)
            found = replace(found, noise=settle_noise(found, scan, level))
        notes = [f"maps by a fit that learned from {found.n_voxels} other voxels; nothing was trained on this image"]
        found.seconds = {"read": time.monotonic() - begin}
        if found.model is not None and found.guide is not None:
            found.model.to(where)
            found.guide.to(where)
        alarms = [] if files.drop is not None else outlier_note(scan, found.signal_name)
        write_results(found, scan, folder, level=level, notes=notes, alarms=alarms, progress=progress)
    return Path(out)


def on_scan(fit: Fit, scan: Scan, drop: str | None) -> tuple[Fit, Scan]:
    """The fit for a scan of its protocol, both without the volumes to leave out, if any.

    Raises
    ------
    InputError
        When the protocol is another, or the recipe's network wants every volume that it was trained on.
    """
    if drop is None:
        return fit.on(scan.acquisition), scan
    which = unwanted_volumes(scan, fit.signal_name, drop)
    kept = without(scan, which, drop)
    if len(kept.acquisition) == len(fit.acquisition):  # it was trained without them
        return fit.on(kept.acquisition), kept
    return fit.on(scan.acquisition, keep=torch.from_numpy(~which)), kept
