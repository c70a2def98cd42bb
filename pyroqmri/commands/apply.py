"""The command apply: a saved fit on new data."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.fit_outputs import write_results
from pyroqmri.commands.inputs import PathLike, ScanFiles, given_noise, settle_noise
from pyroqmri.commands.outlier_volumes import outlier_note, unwanted_volumes, without
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_pair, build_signal
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.fitting.load_denoiser import is_denoiser
from pyroqmri.io import Scan
from pyroqmri.io.text import name_volumes
from pyroqmri.measurements.arguments import pick_device
from pyroqmri.signals import SIGNALS

B_TOLERANCE = 0.05  # of a setting, or ms/um2: within it two scans have one protocol
SAME_DIRECTION = 0.01


def apply_image(
    fit_dir: PathLike,
    image: PathLike,
    *,
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
    sigma: PathLike | float | None = None,
    drop: str | None = None,
    device: str = "auto",
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
    image, bval, bvec, te, ti, tr, flip, offset, json, mask, inputs, drop, out, device, overwrite, progress
        As in :func:`fit_image`.

    Raises
    ------
    InputError
        When the input is wrong, or its protocol is not the one of the fit.
    """
    maps = {} if inputs is None else dict(inputs)
    files = ScanFiles(image, bval, bvec, te, ti, tr, flip, json, mask, offset, maps)
    if sigma == "learn":
        raise InputError("apply does not learn; give --sigma as a number, a map or estimate")
    where = pick_device(device)
    if is_denoiser(fit_dir):
        if drop is not None:
            raise InputError(f"{fit_dir} is a denoiser, which takes every volume of its protocol; leave none out")
        return _denoised(fit_dir, files, out, sigma, device, overwrite, progress)
    found = load_fit(fit_dir)
    with output_folder(out, overwrite=overwrite, inputs=[*files.given, fit_dir]) as folder:
        begin = time.monotonic()
        scan = files.read(found.signal_name, found.preparation.s0)
        found, scan = matched(found, scan, drop)
        level = None
        if sigma is not None or found.noise.method != "given":
            level = given_noise(scan, "estimate" if sigma is None else sigma)
            found = replace(found, noise=settle_noise(found, scan, level))
        notes = [f"maps by a fit that learned from {found.n_voxels} other voxels; nothing was trained on this image"]
        found.seconds = {"read": time.monotonic() - begin}
        if found.model is not None and found.guide is not None:
            found.model.to(where)
            found.guide.to(where)
        spoiled = [] if drop is not None else outlier_note(scan, found.signal_name)
        write_results(found, scan, folder, level=level, notes=notes, doubts=spoiled, progress=progress)
    return Path(out)


def _denoised(
    fit_dir: PathLike, files: ScanFiles, out: PathLike, sigma: PathLike | float | None, device: str, overwrite: bool,
    progress: bool,
) -> Path:  # fmt: skip
    """A saved denoiser on new data."""
    from pyroqmri.commands.denoise import denoise_image

    return denoise_image(
        files.image, out=out, fit_dir=fit_dir, bval=files.bval, bvec=files.bvec, te=files.te, json=files.json,
        mask=files.mask, sigma=sigma, device=device, overwrite=overwrite, progress=progress,
    )  # fmt: skip


def matched(fit: Fit, scan: Scan, drop: str | None) -> tuple[Fit, Scan]:
    """The fit on a scan of its protocol, both without the volumes to leave out, if any.

    Raises
    ------
    InputError
        When the protocol is another, or the recipe's network wants every volume that it was trained on.
    """
    if drop is None:
        return with_acquisition(fit, scan.acquisition), scan
    which = unwanted_volumes(scan, fit.signal_name, drop)
    kept = without(scan, which, drop)
    if not which.any() or len(kept.acquisition) == len(fit.acquisition):
        return with_acquisition(fit, kept.acquisition), kept
    whole = with_acquisition(fit, scan.acquisition)
    try:
        return _rebuilt(whole, whole.acquisition[torch.from_numpy(np.flatnonzero(~which))]), kept
    except RuntimeError as error:  # weights of another size
        raise InputError(
            f"recipe {fit.recipe.name} has a network of all {len(fit.acquisition)} volumes, and without "
            f"{name_volumes(which)} there are {len(kept.acquisition)}; fit this image with the same option"
        ) from error


def with_acquisition(fit: Fit, acquisition: Acquisition) -> Fit:
    """The fit on a scan of its protocol; its signal takes over the scan's gradient directions.

    Raises
    ------
    InputError
        When the number of volumes or a setting differs from the training's by more than a tolerance.
    """
    mine, its = fit.acquisition.settings(), acquisition.settings()
    n, m = len(fit.acquisition), len(acquisition)
    if n != m:
        raise InputError(f"the image has {m} volumes and the fit was trained on {n}; give a scan of its protocol")
    model = SIGNALS[fit.signal_name]
    for name in model.optional:
        if (name in mine) != (name in its):
            having, lacking = ("fit", "image") if name in mine else ("image", "fit")
            raise InputError(f"the {having} has {name} and the {lacking} has not; give a scan of its protocol")
    needed = (*model.requires, *(name for name in model.optional if name in mine))
    for name in needed:
        off = (mine[name] - its[name]).abs() > B_TOLERANCE * mine[name].abs().clamp_min(1)
        if name != "bvec" and off.any():
            i = int(off.nonzero()[0])
            raise InputError(
                f"{name} of the image differs from the fit's in {int(off.sum())} volumes, the first is volume {i} with "
                f"{float(its[name][i]):g} instead of {float(mine[name][i]):g}; give a scan of its protocol"
            )
    if "bvec" not in needed or (mine["bvec"] - its["bvec"]).abs().max() <= SAME_DIRECTION:
        return fit
    return _turned(fit, Acquisition(**(mine | {"bvec": its["bvec"]})))


def _turned(fit: Fit, acquisition: Acquisition) -> Fit:
    """The fit with other gradient directions: guides see a direction in the voxel's own frame only."""
    if fit.network is not None:
        raise InputError(
            f"recipe {fit.recipe.name} is a network of its own gradient directions, and this scan has others; train it "
            "on this scan's protocol with pyroqmri fit"
        )
    return _rebuilt(fit, acquisition)


def _rebuilt(fit: Fit, acquisition: Acquisition) -> Fit:
    """The fit's weights in parts made for another acquisition; RuntimeError where they do not go in."""
    if fit.network is not None:
        raise RuntimeError("a network takes the measurements themselves")
    signal = build_signal(fit.signal_name, acquisition, fit.preparation, fit.fixed, fit.tied, fit.recipe.ranges)
    likelihood = build_likelihood(fit.recipe, acquisition, fit.preparation)
    likelihood.load_state_dict(fit.likelihood.state_dict())
    model = guide = None
    if fit.model is not None and fit.guide is not None:
        model, guide = build_pair(fit.recipe, signal, likelihood, 1.0)
        model.load_state_dict(fit.model.state_dict())
        guide.load_state_dict(fit.guide.state_dict())
    return replace(fit, acquisition=acquisition, signal=signal, likelihood=likelihood, model=model, guide=guide)
