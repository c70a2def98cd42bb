"""Slices of a volume as a reader expects them: anterior up, the patient's left on the left."""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

_PLANES = {
    0: ("sagittal", "left-right", "PASI"),
    1: ("coronal", "posterior-anterior", "LRSI"),
    2: ("axial", "inferior-superior", "LRAP"),
}
_AXES = ("first", "second", "third")
_MARGIN = 3  # voxels of background kept around the mask


@dataclass(frozen=True)
class View:
    """Which slices of a canonical (RAS+) volume are shown, and how.

    Parameters
    ----------
    axis
        Array axis that is looked along: 2 for axial slices.
    slices
        Indices along it.
    window
        Rows and columns that hold the mask, in the displayed image.
    aspect
        Height over width of a displayed pixel.
    oriented
        Whether it is known which way the body lies.
    """

    axis: int
    slices: tuple[int, ...]
    window: tuple[slice, slice]
    aspect: float
    oriented: bool = True

    @property
    def plane(self) -> str:
        """axial, coronal or sagittal; in a volume without orientation, the axis that the slices lie across."""
        return _PLANES[self.axis][0] if self.oriented else f"across the {_AXES[self.axis]} axis"

    @property
    def along(self) -> str:
        """The direction in which the slice index grows, in words."""
        return _PLANES[self.axis][1] if self.oriented else f"the {_AXES[self.axis]} axis"

    @property
    def letters(self) -> str:
        """Body directions at the left, right, top and bottom edge; none where they are not known."""
        return _PLANES[self.axis][2] if self.oriented else ""

    def images(self, volume: NDArray) -> list[NDArray]:
        """The slices, each ``(H, W)`` or ``(H, W, K)``, first row on top."""
        return [_upright(volume, self.axis, i)[self.window] for i in self.slices]

    def pixels(self, index: NDArray[np.integer], shape: Sequence[int]) -> NDArray[np.integer]:
        """Row and column ``(V, 2)`` in the displayed image of voxels ``(V, 3)`` of a canonical volume of ``shape``."""
        across, up = (a for a in range(3) if a != self.axis)
        rows = shape[up] - 1 - index[:, up] - self.window[0].start
        return np.stack([rows, index[:, across] - self.window[1].start], -1)


def canonical(volume: NDArray, affine: NDArray) -> tuple[NDArray, NDArray]:
    """The volume with axes permuted and flipped so that they run to the right, front and top; and its affine."""
    image = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    return np.asarray(image.dataobj), image.affine


def orientation(image: nib.Nifti1Image) -> tuple[NDArray, bool]:
    """The affine of a map, and whether its header says which way the body lies; without, axes stay as they are."""
    if int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0:
        assert image.affine is not None
        return image.affine, True
    return np.diag([*(float(z) for z in image.header.get_zooms()[:3]), 1.0]), False


def canonical_axes(affine: NDArray) -> tuple[int, int, int]:
    """For each axis of the image, the canonical axis that it becomes."""
    return tuple(int(axis) for axis in nib.io_orientation(affine)[:, 0])  # type: ignore[return-value]


def canonical_index(index: NDArray[np.integer], shape: Sequence[int], affine: NDArray) -> NDArray[np.integer]:
    """Where voxels ``(V, 3)`` of the image lie in its canonical volume, which has ``shape``."""
    found = np.empty_like(index)
    for a, (axis, flip) in enumerate(nib.io_orientation(affine)):
        axis = int(axis)
        found[:, axis] = index[:, a] if flip > 0 else shape[axis] - 1 - index[:, a]
    return found


def best_view(mask: NDArray[np.bool_], affine: NDArray, n_slices: int = 3, oriented: bool = True) -> View:
    """The slices with the most mask, kept apart so that a whole brain shows more than one level.

    Slices are axial, unless the scan is a thin slab in another plane.
    """
    shape = mask.shape
    thin = int(np.argmin(shape))
    axis = thin if 4 * shape[thin] < sorted(shape)[1] else 2
    area = mask.sum(tuple(a for a in range(3) if a != axis))
    apart = max(1, int((area > 0).sum()) // (n_slices + 1))
    chosen: list[int] = []
    for i in np.argsort(-area, kind="stable"):
        if area[i] > 0 and all(abs(int(i) - j) >= apart for j in chosen):
            chosen.append(int(i))
        if len(chosen) == n_slices:
            break
    return view_at(mask, affine, axis, sorted(chosen) if chosen else [shape[axis] // 2], oriented)


def view_at(mask: NDArray[np.bool_], affine: NDArray, axis: int, slices: Sequence[int], oriented: bool = True) -> View:
    """These slices along ``axis``, in a window that holds the mask in all of them."""
    shown = np.any([_upright(mask, axis, i) for i in slices], axis=0)
    zooms = [float(z) for a, z in enumerate(voxel_sizes(affine)) if a != axis]
    window = _extent(shown.any(1)), _extent(shown.any(0))
    return View(axis, tuple(slices), window, zooms[1] / zooms[0], oriented)


def _upright(volume: NDArray, axis: int, index: int) -> NDArray:
    plane = np.take(volume, index, axis)
    return np.flip(np.swapaxes(plane, 0, 1), 0)


def _extent(occupied: NDArray[np.bool_]) -> slice:
    where = np.flatnonzero(occupied)
    if len(where) == 0:
        return slice(0, len(occupied))
    return slice(max(0, int(where[0]) - _MARGIN), min(len(occupied), int(where[-1]) + 1 + _MARGIN))
