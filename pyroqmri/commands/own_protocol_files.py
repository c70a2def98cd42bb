"""Files that make the protocol a voxel's own: weights of single measurements, and deviations of the gradients."""

from pathlib import Path

import numpy as np

from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.io import Scan
from pyroqmri.io.masks import read_volumes
from pyroqmri.measurements.own_protocol import GRAD_DEV
from pyroqmri.measurements.shells import alike

_SLACK = 1e-3  # that stored weights may be beyond 0 and 1


def read_weights(path: PathLike, scan: Scan, resample: bool) -> np.ndarray:
    """Weights of all volumes of the file ``(N, M)``, whether they were left out or not; adds notes to the scan.

    Raises
    ------
    InputError
        When the file has another number of volumes than the image, or values beside 0 to 1.
    """
    found = read_volumes(path, scan.ref, scan.mask, "weights", resample=resample, order=0)
    n = len(scan.acquisition) if scan.whole is None else len(scan.whole)
    values, name = found.values, Path(path).name
    if values.shape[1] != n:
        raise InputError(f"weights {path} have {values.shape[1]} volumes and the image {n}; give one weight each")
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if np.isnan(values).any() or low < -_SLACK or high > 1 + _SLACK:
        what = "NaN" if np.isnan(values).any() else f"{low:.4g} to {high:.4g}"
        raise InputError(
            f"weights {path} are {what} inside the mask; give 0 to 1 for each voxel and volume, 0 for none"
        )
    values = values.clip(0, 1)
    lost, part = float((values == 0).mean()), float(((values > 0) & (values < 1)).mean())
    said = f"weights read from {name}: {lost:.1%} of the measurements do not count, {part:.1%} count in part"
    scan.notes.extend([said, *found.notes])
    scan.warnings.extend(found.warnings)
    return values


def plausible(scan: Scan, weights: np.ndarray) -> np.ndarray:
    """Measurements ``(N, M)`` of which those that do not count are the mean of others of their setting.

    For whatever compares volumes with one another; fits leave them out.
    """
    y = np.where(weights > 0, scan.y, 0.0)
    for group in alike(scan.acquisition):
        w = weights[:, group]
        mean = (w * y[:, group]).sum(1) / np.maximum(w.sum(1), 1e-6)
        y[:, group] = np.where(w > 0, y[:, group], mean[:, None])
    return y.astype(scan.y.dtype)


def read_grad_dev(path: PathLike, scan: Scan, resample: bool) -> None:
    """Put deviations L ``(N, 3, 3)`` of a file of nine volumes among the scan's inputs, with a note.

    The volumes are those of the Human Connectome Project as FSL reads them: the three components of what the x
    gradient adds, then of y, then of z, so that they fill L column by column.

    Raises
    ------
    InputError
        When the file has not nine volumes.
    """
    found = read_volumes(path, scan.ref, scan.mask, "grad_dev", resample=resample)
    if found.values.shape[1] != 9:
        raise InputError(f"grad_dev {path} has {found.values.shape[1]} volumes, and a tensor per voxel has nine")
    tensors = found.values.reshape(-1, 3, 3).transpose(0, 2, 1)
    scan.inputs[GRAD_DEV] = np.ascontiguousarray(tensors)
    seen = np.square(tensors + np.eye(3, dtype=np.float32)).sum((1, 2)) / 3
    low, high = np.nanquantile(seen, [0.05, 0.95])
    scan.notes.extend([
        f"gradient deviations read from {Path(path).name}: b-values are {low:.3f} to {high:.3f} of the nominal ones in "
        "90 % of the voxels", *found.notes,
    ])  # fmt: skip
    scan.warnings.extend(found.warnings)
