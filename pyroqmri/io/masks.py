"""Masks and maps that come with a scan, on its grid, and what their values mean."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyroqmri.errors import InputError
from pyroqmri.io.geometry import Placed, placed_on
from pyroqmri.io.nifti import read_header, volumes

_THRESHOLD = 0.5
_LOW, _HIGH, _MATTERS = 0.1, 0.9, 1.5  # thresholds that would leave so many times more voxels, or fewer: it matters
_WHOLE = 1e-4  # of a mask's largest value, that stored fractions may be off
_MANY_LABELS, _NAMED = 20, 8
_FULL = ((0.5, 1.0), (50.0, 100.0), (200.0, 255.0))  # where the largest value of a probability lies, and what is 1
_MISSING = 0.05  # of the mask's voxels that may be without a value before it is a warning


class Read(NamedTuple):
    """A mask ``(X, Y, Z)`` bool or the values of a map in a mask ``(N,)`` float32, with notes and warnings."""

    values: NDArray
    notes: list[str]
    warnings: list[str]


def read_mask(path: str | Path, image: Placed, *, resample: bool = False) -> Read:
    """A mask for an image: true where above zero, or at least one half where it holds probabilities.

    Parameters
    ----------
    path
        NIfTI image of 0 and 1, of labels, or of probabilities (up to 1, 100 or 255).
    image
        What it belongs to. Axes that are permuted or flipped are turned by affine.
    resample
        Interpolate one that lies on another grid.

    Raises
    ------
    InputError
        When it cannot be read, lies on another grid, is empty, or holds what is no mask.
    """
    values, own, tail = _read(path, image, "mask")
    inside, notes, warned = _inside(values, Path(path))
    if not inside.any():
        raise InputError(f"mask {path} is empty; give one that is above zero inside the tissue")
    placed, said, doubted = placed_on(inside.astype(np.float32), own, image, "mask", resample=resample, order=0)
    inside = np.nan_to_num(placed) >= _THRESHOLD
    if not inside.any():
        raise InputError(f"mask {path} is empty where image {image.path.name} lies; give one of its body part")
    if inside.all():
        notes.append(f"mask {Path(path).name} is the whole field of view: whatever is air in it is fitted too")
    return Read(inside, [*tail, *said, *notes], [*doubted, *warned])


def read_map(
    path: str | Path,
    image: Placed,
    mask: NDArray[np.bool_],
    what: str = "map",
    *,
    resample: bool = False,
    positive: bool = False,
) -> Read:
    """Values ``(N,)`` of a 3-D map inside a mask, such as a noise or B1 map; NaN where it has none.

    Parameters
    ----------
    image
        What it belongs to. Axes that are permuted or flipped are turned by affine.
    mask
        Of the image, ``(X, Y, Z)``.
    what
        What it is, for messages.
    resample
        Interpolate one that lies on another grid, linearly, NaN outside its field of view.
    positive
        Zero and less is no value either.

    Raises
    ------
    InputError
        When it cannot be read, lies on another grid, or has no value in the mask.
    """
    values, own, tail = _read(path, image, what)
    values = np.where(np.isfinite(values) & ((values > 0) | (not positive)), values, np.nan)
    placed, said, warned = placed_on(values, own, image, what, resample=resample)
    notes = [*tail, *said]
    found = placed[mask].astype(np.float32)
    missing = int(np.isnan(found).sum())
    kind = "NaN, or not above zero" if positive else "NaN"
    if missing == len(found):
        raise InputError(f"{what} {path} has no value ({kind}) in any voxel of the mask ({missing}); give another")
    if missing:
        text = (
            f"{what} {Path(path).name} has no value ({kind}, or outside its field of view) in {missing} of "
            f"{len(found)} voxels of the mask; these are not fitted (status 10)"
        )
        (warned if missing > _MISSING * len(found) else notes).append(text)
    return Read(found, notes, warned)


def read_volumes(
    path: str | Path, image: Placed, mask: NDArray[np.bool_], what: str, *, resample: bool = False, order: int = 1
) -> Read:
    """Values ``(N, V)`` of a 4-D image of V volumes inside a mask, float32; NaN where it has none.

    Parameters
    ----------
    image, mask, what, resample
        As in :func:`read_map`.
    order
        Of the interpolation, 0 for the nearest voxel.

    Raises
    ------
    InputError
        When it cannot be read, or lies on another grid.
    """
    own, notes, warned = read_header(path), list[str](), list[str]()
    columns = []
    for stored in volumes(own, notes):
        values = own.scaled(stored).reshape(own.shape, order="F")
        values = np.where(np.isfinite(values), values, np.nan)
        placed, said, doubted = placed_on(values, own, image, what, resample=resample, order=order)
        columns.append(placed[mask].astype(np.float32))
    notes, warned = [*notes, *said], [*warned, *doubted]  # of each volume the same
    return Read(np.stack(columns, 1), notes, warned)


def _read(path: str | Path, image: Placed, what: str) -> tuple[NDArray, Placed, list[str]]:
    own, notes = read_header(path), list[str]()
    if own.n_volumes not in (None, 1):
        raise InputError(f"{what} {path} has {own.n_volumes} volumes; give one volume on the grid of {image.path.name}")
    (values,) = volumes(own, notes)
    return own.scaled(values).reshape(own.shape, order="F"), own, notes


def _inside(values: NDArray, path: Path) -> Read:
    """Which voxels of a mask count, whatever it holds."""
    notes, warned = list[str](), list[str]()
    negative = int((values < 0).sum())
    if negative and not (values > 0).any():
        raise InputError(f"mask {path} is not above zero anywhere and below it in {negative} voxels; give 0 and 1")
    if negative:
        warned.append(f"mask {path.name} is below zero in {negative} voxels, which were taken to be outside")
    lost = int((~np.isfinite(values)).sum())
    if lost:
        notes.append(f"mask {path.name} is NaN or Inf in {lost} voxels, which were taken to be outside")
    with np.errstate(invalid="ignore"):
        clean = np.where(np.isfinite(values) & (values > 0), values, 0).astype(float)
    above = clean[clean > 0]
    top = float(above.max(initial=0.0))
    if not len(above) or top - above.min() <= _WHOLE * top:  # one value beside zero
        return Read(clean > 0, notes, warned)
    levels = np.unique(above)
    whole = np.abs(levels - levels.round()).max() <= _WHOLE * max(1.0, top)
    if whole and not _is_graded(clean, top):
        notes.append(f"mask {path.name} has labels ({_named(levels.round())}): every voxel above 0 counts")
        return Read(clean > 0.5, notes, warned)
    return _thresholded(clean, top, path, notes, warned)


def _is_graded(clean: NDArray, top: float) -> bool:
    """Whether whole numbers are steps of a probability: unlike labels, neighbours mostly differ."""
    if len(np.unique(clean)) <= _MANY_LABELS:
        return False
    pairs = np.stack([clean[:-1].ravel(), clean[1:].ravel()])
    within = pairs[:, ((pairs > 0) & (pairs < top)).all(0)]
    return bool(within.shape[1]) and float((within[0] == within[1]).mean()) < 0.5


def _named(labels: NDArray) -> str:
    shown = [f"{x:g}" for x in labels]
    return ", ".join(shown) if len(shown) <= _NAMED else f"{len(shown)} of them from {shown[0]} to {shown[-1]}"


def _thresholded(clean: NDArray, top: float, path: Path, notes: list[str], warned: list[str]) -> Read:
    full = next((full for low, full in _FULL if top <= full * (1 + 1e-3) and top > low), None)
    if full is None and top > 1:
        raise InputError(
            f"mask {path} has values up to {top:.4g} that are neither 0 and 1, labels nor probabilities; "
            "threshold it to 0 and 1 first"
        )
    full = 1.0 if full is None else full
    inside = clean >= _THRESHOLD * full
    n, n_any = int(inside.sum()), int((clean > 0).sum())
    if n == 0:
        raise InputError(
            f"mask {path} has values up to {top:.3g} and none reaches {_THRESHOLD * full:g}; threshold it to 0 and 1 "
            "first"
        )
    text = (
        f"mask {path.name} is a probability map: voxels of at least {_THRESHOLD * full:g} count, "
        f"{n} of the {n_any} above 0"
    )
    more, fewer = (int((clean >= share * full).sum()) for share in (_LOW, _HIGH))
    if more > _MATTERS * n or n > _MATTERS * fewer:
        text += f" ({more} at {_LOW * full:g}, {fewer} at {_HIGH * full:g}); threshold it yourself to have others"
        return Read(inside, notes, [*warned, text])
    return Read(inside, [*notes, text], warned)
