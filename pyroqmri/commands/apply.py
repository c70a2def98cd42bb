"""The command apply: a saved fit on new data."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri.commands.denoise import denoise_image
from pyroqmri.commands.fit_outputs import write_results
from pyroqmri.commands.inputs import ScanFiles, per_voxel, training_voxels
from pyroqmri.commands.left_out import LeaveOut, earlier_record, left_out_record
from pyroqmri.commands.noise import given_noise, settle_noise
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.fitting.load_denoiser import is_denoiser
from pyroqmri.fitting.scan_scale import rescaled
from pyroqmri.fitting.transfer import (
    at_settings,
    gain_warnings,
    is_other,
    judged,
    needs_training,
    reach_warnings,
    transfer_note,
)
from pyroqmri.io import Scan
from pyroqmri.measurements.arguments import pick_device
from pyroqmri.protocol_checks.denoised import denoised_warnings

JUDGED_VOXELS = 10_000  # by whose noise a protocol is judged


def apply_image(
    fit_dir: PathLike,
    files: ScanFiles | PathLike,
    *,
    out: PathLike,
    sigma: PathLike | float | None = None,
    device: str = "auto",
    trust: bool = False,
    retrain: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
    pages: bool = True,
    rescale: bool = False,
    adapt: Callable[[Fit, Scan], Fit] | None = None,
) -> Path:
    """Map new data with a saved fit, of its protocol or another one that its signal can use; no training.

    On another protocol the population is the one that was learned; notes state both protocols, and warnings name what
    the new one does not determine.

    Parameters
    ----------
    fit_dir
        Folder of the fit, or the folder that :func:`fit_image` wrote.
    sigma
        Noise level: a number, a NIfTI map, ``estimate`` or ``field``. None does as the training
        did: the same number where it was given one, else an estimate on this image.
    trust
        As in :func:`pyroqmri.load_fit`.
    retrain
        Train on the image's protocol what depends on it (a network; a guide by forward KL); refused otherwise.
    files, out, device, overwrite, jobs, progress
        As in :func:`fit_image`.
    pages
        Write ``report.html`` and ``posterior.nc``.
    rescale
        Take an inferred S0 in units of this image's own scale: for images of several scanners.
    adapt
        Called with the fit and the scan once its noise level is known; returns the fit to map with.

    Raises
    ------
    InputError
        When the input is wrong, or its protocol is one that the signal cannot use, or that the recipe has to be
        trained on.
    """
    files = ScanFiles.of(files)
    if sigma == "learn":
        raise InputError("apply cannot learn sigma; give --sigma as a number, a map or estimate")
    where = pick_device(device)
    if is_denoiser(fit_dir):
        if files.drop is not None or files.bmax is not None:
            raise InputError(f"{fit_dir} is a denoiser, which takes every volume of its protocol; leave none out")
        return denoise_image(
            files, out=out, fit_dir=fit_dir, sigma=sigma, device=device, overwrite=overwrite, progress=progress
        )
    found, earlier = load_fit(fit_dir, trust=trust), earlier_record(fit_dir)
    with output_folder(out, overwrite=overwrite, inputs=[*files.given, fit_dir]) as folder:
        begin = time.monotonic()
        scan = files.read(found.signal_name, earlier)
        scan.warnings.extend(denoised_warnings(scan.y, scan.acquisition, np.argwhere(scan.mask)))
        again = retrain and needs_training(found, scan.acquisition)
        found, level = _settled(found, scan, earlier, sigma, files.resample, again, rescale)
        scan.warnings.extend([*reach_warnings(found), *([] if rescale else gain_warnings(found, scan.y))])
        found = found if adapt is None else adapt(found, scan)
        what = "trained again on its protocol" if again else "nothing was trained on this image"
        learned = [note] if (note := transfer_note(found)) else []
        notes = [*learned, f"maps by a fit that learned from {found.n_voxels} other voxels; {what}"]
        found.seconds = {"read": time.monotonic() - begin}
        if found.model is not None and found.guide is not None:
            found.model.to(where)
            found.guide.to(where)
        left_out = left_out_record(scan, files.bmax if files.bmax is not None else earlier.get("bmax"))
        write_results(
            found, scan, folder, level=level, notes=notes, left_out=left_out, pages=pages, jobs=jobs, progress=progress
        )
    return Path(out)


def _settled(
    fit: Fit, scan: Scan, earlier: Mapping[str, Any], sigma: PathLike | float | None, resample: bool, again: bool,
    rescale: bool,
) -> tuple[Fit, Any]:  # fmt: skip
    """The fit at a scan's protocol and noise level, ``again`` trained, and the level where it is a map or a field."""
    found, level = at_settings(fit, scan.acquisition) if again else on_scan(fit, scan, earlier), None
    found = rescaled(found, scan.y) if rescale else found
    if sigma is not None or fit.noise.method != "given":
        level = given_noise(scan, "estimate" if sigma is None else sigma, resample, found.preparation.coils)
        found = replace(found, noise=settle_noise(found, scan, level))
        level = level if found.noise.field is None else found.noise
    if again:
        data = training_voxels(scan, level, fit.seed)
        own = per_voxel(data.level)
        trained = fit.on_protocol(
            data.y, scan.acquisition, found.noise.sigma if own is None else own, data.inputs, retrain=True
        )
        return replace(trained, noise=found.noise), level
    if found.learned_on is not None and is_other(fit, scan.acquisition):
        some = slice(None, None, max(1, len(scan.y) // JUDGED_VOXELS))
        inputs = {name: value[some] for name, value in scan.inputs.items()}
        found = judged(found, found.batch(scan.y[some], found.noise.sigma, inputs))
    return found, level


def on_scan(fit: Fit, scan: Scan, earlier: Mapping[str, Any] | None = None) -> Fit:
    """The fit for a scan of its protocol or another, without the volumes that were left out of either.

    Parameters
    ----------
    earlier
        What the fit was trained without (:func:`pyroqmri.commands.left_out.left_out_record`).

    Raises
    ------
    InputError
        When the signal cannot use the protocol, or the recipe's network wants the one that it was trained on.
    """
    if scan.whole is None or len(scan.acquisition) == len(fit.acquisition):  # it was trained without them
        return fit.on(scan.acquisition)
    trained = ~LeaveOut(earlier=earlier or {})(scan.whole)
    used = torch.zeros(len(trained), dtype=torch.bool)
    used[torch.from_numpy(scan.numbers)] = True
    trained = torch.from_numpy(trained)
    return fit.on(scan.whole[trained], keep=used[trained])
