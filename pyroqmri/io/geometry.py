"""Where the voxels of two images lie: on one grid, on one that is turned, or on two that differ."""

from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
from nibabel import aff2axcodes
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray
from scipy import ndimage

from pyroqmri.errors import InputError

_CLOSE = 0.1  # of a voxel, where two grids lie farthest apart
_ROUNDED, _HALF = 1e-3, 0.5  # mm by which headers round an entry; of a voxel, up to which such a rounding is harmless
_APART = 1.0  # of a voxel, up to which sform and qform may differ
_CHUNK = 1 << 20  # voxels interpolated at a time


class Placed(Protocol):
    """An image as far as places go: a :class:`pyroqmri.io.nifti.Header` or an :class:`pyroqmri.io.ImageRef`."""

    @property
    def path(self) -> Path:
        """Its file."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        ...

    @property
    def affine(self) -> NDArray:
        """From voxels to mm ``(4, 4)``."""
        ...

    @property
    def oriented(self) -> bool:
        """Whether its header says which way the body lies."""
        ...

    @property
    def qform(self) -> NDArray | None:
        """The second affine of a header that has two."""
        ...


def turn(own: NDArray, shape: tuple[int, int, int], ref: NDArray, ref_shape: tuple[int, int, int]) -> NDArray | None:
    """How the axes of a grid are permuted and flipped to be those of another; None where its voxels are others.

    Parameters
    ----------
    own, ref
        Affines ``(4, 4)`` from voxels to mm.
    shape, ref_shape
        Voxels along each axis.

    Returns
    -------
    ndarray
        For each axis, the axis of the other grid and its sign ``(3, 2)``, as :mod:`nibabel.orientations` has it.
    """
    order = io_orientation(np.linalg.solve(ref, own))
    if np.isnan(order).any() or tuple(shape[int(i)] for i in np.argsort(order[:, 0])) != tuple(ref_shape):
        return None
    turned = own @ inv_ornt_aff(order, shape)
    off = _apart(turned, ref, ref_shape)
    rounded = np.abs(turned - ref)[:3, :3].max() <= _ROUNDED and off.min() <= _CLOSE and off.max() <= _HALF
    return order if off.max() <= _CLOSE or rounded else None


def _apart(one: NDArray, other: NDArray, shape: tuple[int, int, int]) -> NDArray:
    """Distances in voxels between the corners ``(8,)`` of a grid under two affines."""
    return np.linalg.norm(np.linalg.solve(other, (one - other) @ _corners(shape))[:3], axis=0)


def _corners(shape: tuple[int, int, int]) -> NDArray:
    return np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape))]).T


def placed_on(
    values: NDArray, own: Placed, ref: Placed, what: str, *, resample: bool = False, order: int = 1
) -> tuple[NDArray, list[str], list[str]]:
    """Values of an image on the grid of another one.

    Parameters
    ----------
    values
        Volume ``(X, Y, Z)`` of ``own``.
    what
        What the image is, for messages: "mask", "input B1".
    resample
        Interpolate where the grids differ, NaN where ``own`` does not reach; else that is refused.
    order
        1 interpolates linearly, 0 takes the nearest voxel.

    Returns
    -------
    ndarray
        ``(X, Y, Z)`` on the grid of ``ref``.
    list of str
        Notes: what was turned, resampled or taken voxel by voxel.
    list of str
        Warnings, where the headers contradict one another.

    Raises
    ------
    InputError
        When the grids differ and ``resample`` is False, or nothing tells how they lie.
    """
    if not (own.oriented and ref.oriented):
        return values, [_without_orientation(own, ref, what)], []
    axes = turn(own.affine, own.shape, ref.affine, ref.shape)
    if axes is not None:
        return np.asarray(apply_orientation(values, axes)), _turned(axes, own, ref, what), []
    if own.qform is not None and ref.qform is not None and own.shape == ref.shape:
        axes = turn(own.qform, own.shape, ref.qform, ref.shape)
        if axes is not None and _is_same(axes):
            text = "lies on the image's grid by its qform and not by its sform; taken voxel by voxel, by the qform"
            return values, [], [f"{what} {own.path.name} {text}"]
    found = difference(own, ref)
    if not resample:
        hint = ", or correct its header (an identity affine)" if np.array_equal(own.affine, np.eye(4)) else ""
        raise InputError(
            f"{what} {own.path} does not lie on the grid of image {ref.path.name}: {found}; "
            f"give one on its grid{hint}, or --resample to interpolate it"
        )
    how = "linear interpolation" if order else "the nearest voxel"
    note = f"{what} {own.path.name} does not lie on the image's grid ({found}) and was resampled to it by {how}"
    return _resampled(values, own.affine, ref, order), [note], []


def _without_orientation(own: Placed, ref: Placed, what: str) -> str:
    lacks = "the image" if own.oriented else f"{what} {own.path.name}"
    if own.shape != ref.shape:
        raise InputError(
            f"{what} {own.path} has shape {own.shape} and image {ref.path.name} {ref.shape}, and {lacks} has no "
            "orientation in its header (sform and qform codes are 0); give one on its grid"
        )
    return f"{lacks} has no orientation in its header (sform and qform codes are 0): {what} taken voxel by voxel"


def _is_same(axes: NDArray) -> bool:
    return bool((axes == [[0, 1], [1, 1], [2, 1]]).all())


def _turned(axes: NDArray, own: Placed, ref: Placed, what: str) -> list[str]:
    if _is_same(axes):
        return []
    codes = ["".join(aff2axcodes(image.affine)) for image in (own, ref)]  # type: ignore[arg-type]
    text = "stored {} and the image {}: its axes were turned by its affine, voxel by voxel"
    return [f"{what} {own.path.name} is {text.format(*codes)}"]


def difference(own: Placed, ref: Placed) -> str:
    """How two grids differ, in numbers."""
    order = io_orientation(np.linalg.solve(ref.affine, own.affine))
    shape = tuple(own.shape[int(i)] for i in np.argsort(order[:, 0]))
    turned = own.affine @ inv_ornt_aff(order, own.shape)
    sizes, others = voxel_sizes(turned), voxel_sizes(ref.affine)
    parts = []
    if shape != tuple(ref.shape):
        parts.append(f"it has shape {tuple(own.shape)} where the image has {tuple(ref.shape)}")
    if not np.allclose(sizes, others, rtol=1e-2):
        parts.append(f"voxels of {_times(sizes)} mm where the image has {_times(others)} mm")
    angle = _angle(turned[:3, :3] / sizes, ref.affine[:3, :3] / others)
    if angle > 0.05:
        parts.append(f"rotated by {angle:.2g} degrees")
    middles = [apply_affine(a, (np.array(n) - 1) / 2) for a, n in ((turned, shape), (ref.affine, ref.shape))]
    shift = middles[0] - middles[1]
    if np.linalg.norm(shift) > 0.02 * others.min() or not parts:
        parts.append(f"its middle is {_signed(shift)} mm (x, y, z) away")
    return ", ".join(parts)


def _times(numbers: object) -> str:
    return " x ".join(f"{x:.3g}" for x in np.atleast_1d(np.asarray(numbers)).tolist())


def _signed(numbers: NDArray) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in (np.round(numbers, 3) + 0.0).tolist()) + ")"


def _angle(one: NDArray, other: NDArray) -> float:
    """Angle in degrees of the rotation between two sets of unit axes ``(3, 3)``."""
    u, _, v = np.linalg.svd(np.linalg.solve(other, one))
    return float(np.degrees(np.arccos(np.clip((np.trace(u @ v) - 1) / 2, -1, 1))))


def _resampled(values: NDArray, affine: NDArray, ref: Placed, order: int) -> NDArray:
    """Values ``(X, Y, Z)`` at the voxels of ``ref``, from those voxels that have one; NaN elsewhere."""
    between = np.linalg.solve(affine, ref.affine)
    size = np.array(values.shape)
    known = np.isfinite(values)
    clean, weight = np.where(known, values, 0.0).astype(float), known.astype(float)
    found = np.full(int(np.prod(ref.shape)), np.nan)
    for i in range(0, len(found), _CHUNK):
        index = np.arange(i, min(i + _CHUNK, len(found)))
        at = apply_affine(between, np.stack(np.unravel_index(index, ref.shape), -1))
        # up to the faces of the outer voxels
        inside = ((at >= -_HALF - 1e-6) & (at <= size - _HALF + 1e-6)).all(-1)
        place = np.clip(at[inside], 0, size - 1).T
        total = ndimage.map_coordinates(clean, place, order=order, prefilter=False)
        share = ndimage.map_coordinates(weight, place, order=order, prefilter=False)
        found[index[inside]] = np.divide(total, share, out=np.full_like(total, np.nan), where=share >= _HALF)
    return found.reshape(ref.shape)


def doubts(image: Placed) -> list[str]:
    """What an image's own header leaves in doubt: an sform and a qform of different places."""
    if image.qform is None or _apart(image.affine, image.qform, image.shape).max() <= _APART:
        return []
    codes = ["".join(aff2axcodes(a)) for a in (image.affine, image.qform)]  # type: ignore[arg-type]
    off = float(np.linalg.norm(((image.affine - image.qform) @ _corners(image.shape))[:3], axis=0).max())
    how = f"{codes[0]} and {codes[1]}" if codes[0] != codes[1] else f"up to {off:.3g} mm apart"
    return [
        f"sform and qform of image {image.path.name} disagree ({how}): the sform was used; programs that prefer the "
        "qform place image and maps elsewhere"
    ]
