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
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.left_out import LeaveOut, earlier_record, left_out_record
from pyroqmri.commands.noise import given_noise, settle_noise
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.fitting.load_denoiser import is_denoiser
from pyroqmri.fitting.scan_scale import rescaled
from pyroqmri.io import Scan
from pyroqmri.measurements.arguments import pick_device
from pyroqmri.protocol_checks.denoised import denoised_warnings


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
    pages: bool = True,
    rescale: bool = False,
    adapt: Callable[[Fit, Scan], Fit] | None = None,
) -> Path:
    """Map new data of the same protocol with a saved fit; no training.

    Gradient directions may differ from the training's, as they do from subject to subject.

    Parameters
    ----------
    fit_dir
        Folder of the fit, or the folder that :func:`fit_image` wrote.
    sigma
        Noise level: a number, a NIfTI map, ``estimate`` or ``field``. None does as the training
        did: the same number where it was given one, else an estimate on this image.
    trust
        As in :func:`pyroqmri.load_fit`.
    files, out, device, overwrite, progress
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
        When the input is wrong, or its protocol is not the one of the fit.
    """
    files = ScanFiles.of(files)
    if sigma == "learn":
        raise InputError("apply does not learn; give --sigma as a number, a map or estimate")
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
        found = on_scan(found, scan, earlier)
        found = rescaled(found, scan.y) if rescale else found
        scan.warnings.extend(denoised_warnings(scan.y, scan.acquisition, np.argwhere(scan.mask)))
        level = None
        if sigma is not None or found.noise.method != "given":
            level = given_noise(scan, "estimate" if sigma is None else sigma, files.resample, found.preparation.coils)
            found = replace(found, noise=settle_noise(found, scan, level))
            level = level if found.noise.field is None else found.noise
        found = found if adapt is None else adapt(found, scan)
        notes = [f"maps by a fit that learned from {found.n_voxels} other voxels; nothing was trained on this image"]
        found.seconds = {"read": time.monotonic() - begin}
        if found.model is not None and found.guide is not None:
            found.model.to(where)
            found.guide.to(where)
        left_out = left_out_record(scan, files.bmax if files.bmax is not None else earlier.get("bmax"))
        write_results(found, scan, folder, level=level, notes=notes, left_out=left_out, pages=pages, progress=progress)
    return Path(out)


def on_scan(fit: Fit, scan: Scan, earlier: Mapping[str, Any] | None = None) -> Fit:
    """The fit for a scan of its protocol, without the volumes that were left out of either.

    Parameters
    ----------
    earlier
        What the fit was trained without (:func:`pyroqmri.commands.left_out.left_out_record`).

    Raises
    ------
    InputError
        When the protocol is another, or the recipe's network wants every volume that it was trained on.
    """
    if scan.whole is None or len(scan.acquisition) == len(fit.acquisition):  # it was trained without them
        return fit.on(scan.acquisition)
    trained = ~LeaveOut(earlier=earlier or {})(scan.whole)
    used = torch.zeros(len(trained), dtype=torch.bool)
    used[torch.from_numpy(scan.numbers)] = True
    trained = torch.from_numpy(trained)
    return fit.on(scan.whole[trained], keep=used[trained])
