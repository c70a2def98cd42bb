"""Scans: the masked voxels of a 4-D image with the settings they were measured at."""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.geometry import doubts
from pyroqmri.io.masks import read_mask
from pyroqmri.io.mp2rage import as_uniform
from pyroqmri.io.names import mask_beside, prefix
from pyroqmri.io.nifti import Header, read_header, volumes
from pyroqmri.io.protocol import read_protocol
from pyroqmri.measurements.shells import shell_indices

N_BACKGROUND = 5000
_HALVED_ABOVE = 1_000_000  # voxels
_BLOCK = 8  # volumes transposed at a time: whole cache lines of y, little memory


@dataclass(frozen=True)
class ImageRef:
    """Where a scan came from and the grid that its maps are written on.

    ``header_zooms`` are voxel sizes in mm; ``prefix`` is what its maps' names begin with. ``oriented`` is False
    where the header does not say which way the body lies; ``qform`` is the second affine of a header that has two.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    header_zooms: tuple[float, ...]
    prefix: str
    oriented: bool = True
    qform: np.ndarray | None = None


@dataclass(frozen=True)
class Scan:
    """Masked measurements ``y`` (N, M) float32, in the order of ``image[mask]``, with their settings.

    ``mask`` is (X, Y, Z) bool; ``notes`` say what was assumed, ``warnings`` what may make the maps wrong;
    ``background`` holds up to 5000 values (K,) away from the mask, or None when there are too few; ``inputs`` are
    per-voxel inputs of the signal such as B1, each (N,). Where volumes were left out, ``volumes`` (M,) are the
    numbers in the file of those that are there, and ``whole`` the settings of all.
    """

    y: np.ndarray
    mask: np.ndarray
    acquisition: Acquisition
    ref: ImageRef
    notes: list[str]
    background: np.ndarray | None
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    volumes: np.ndarray | None = None
    whole: Acquisition | None = None

    @property
    def numbers(self) -> np.ndarray:
        """Number of each volume in the file ``(M,)``, from 0 on."""
        return np.arange(len(self.acquisition)) if self.volumes is None else self.volumes


def read_scan(
    image: str | Path,
    *,
    bval: str | Path | None = None,
    bvec: str | Path | None = None,
    mask: str | Path | None = None,
    te: str | Path | None = None,
    ti: str | Path | None = None,
    flip: str | Path | None = None,
    tr: str | Path | None = None,
    offset: str | Path | None = None,
    mt: str | Path | None = None,
    json: str | Path | None = None,
    need: tuple[str, ...] = ("bval", "bvec"),
    optional: tuple[str, ...] = (),
    resample: bool = False,
    leave_out: Callable[[Acquisition], np.ndarray] | None = None,
) -> Scan:
    """Read a 4-D NIfTI image inside a mask, holding one volume at a time beside the result.

    Parameters
    ----------
    bval, bvec, te, ti, flip, tr, offset, mt, json
        Files of the settings; those not given are looked for beside the image.
    mask
        NIfTI image, see :func:`read_mask`. Without it the mask that lies beside the image under one of the usual names
        is used; without that, dipy's ``median_otsu`` makes one from the mean of the volumes with the lowest b
        (Otsu 1979, doi:10.1109/TSMC.1979.4310076).
    need
        Names of the settings that the signal requires.
    optional
        Names of those that it uses where they are found.
    resample
        Interpolate a mask that lies on another grid, which is refused otherwise.
    leave_out
        Which of the volumes ``(M,)``, given the settings of all, are left out before anything is judged.

    Raises
    ------
    InputError
        When a file is missing, damaged or does not fit the others, or a needed setting is absent.
    """
    if os.path.isdir(image):  # false of a name too long
        raise InputError(f"image {image} is a folder; give one image, or map a BIDS data set with `pyroqmri cohort`")
    header = read_header(image)
    if header.n_volumes is None and "readout" in need:
        header = replace(header, n_volumes=1)  # a uniform image is the only measurement
    if header.n_volumes is None:
        shape = " x ".join(map(str, header.shape))
        raise InputError(
            f"image {image} is 3-D ({shape}); expected a 4-D image with one volume per measurement: make one of the "
            "images of a series with `pyroqmri join`"
        )
    times = {"te": te, "ti": ti, "flip": flip, "tr": tr, "offset": offset, "mt": mt}
    whole, notes, warned = read_protocol(header, bval, bvec, times, json, need, optional)
    kept = np.arange(len(whole)) if leave_out is None else np.flatnonzero(~leave_out(whole))
    all_kept = len(kept) == len(whole)
    acquisition = whole if all_kept else whole[torch.from_numpy(kept)]
    warned += doubts(header)
    inside = _mask(header, acquisition, kept, mask, resample, notes, warned)
    y, background = _scatter(header, inside, kept, notes)
    if "readout" in need:
        y, said = as_uniform(y, acquisition)
        notes += said
    ref = ImageRef(
        header.path, header.shape, header.affine, header.zooms, prefix(header.path), header.oriented, header.qform
    )
    left = {} if all_kept else {"volumes": kept, "whole": whole}
    return Scan(y, inside, acquisition, ref, notes, background, warnings=warned, **left)


def _mask(
    header: Header,
    acquisition: Acquisition,
    kept: np.ndarray,
    path: str | Path | None,
    resample: bool,
    notes: list[str],
    warned: list[str],
) -> np.ndarray:
    """The mask that was given, else the one beside the image, else one that is made; adds to notes and warnings."""
    beside = mask_beside(header.path) if path is None else None
    chosen = path if beside is None else beside
    if chosen is not None:
        try:
            inside, said, doubted = read_mask(chosen, header, resample=resample)
            found = f"no mask given: {Path(chosen).name} beside the image was used, {inside.sum()} voxels"
            notes += [*([found] if beside is not None else []), *said]
            warned += doubted
            return inside
        except InputError as error:
            if beside is None:
                raise
            warned.append(f"the mask beside the image was not used, and one was made from the image instead: {error}")
    inside, said = _make_mask(header, acquisition, kept)
    notes += said
    return inside


def _kept_volumes(header: Header, kept: np.ndarray, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """Stored volumes of the numbers ``kept``, in file order; the file is read to its end."""
    wanted = set(kept.tolist())
    return (stored for number, stored in enumerate(volumes(header, notes)) if number in wanted)


def _make_mask(header: Header, acquisition: Acquisition, kept: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Brain mask ``(X, Y, Z)`` from the volumes with the least weighting; reads the file once for it."""
    which, words = np.ones(len(acquisition), dtype=bool), "all volumes"
    if acquisition.bval is not None:
        which[:] = False
        which[shell_indices(acquisition.bval)[0]] = True
        words = f"{which.sum()} volume{'s' if which.sum() > 1 else ''} with the lowest b"
    mean = np.zeros(np.prod(header.shape))
    for used, stored in zip(which[: np.flatnonzero(which)[-1] + 1], _kept_volumes(header, kept), strict=False):
        if used:
            mean += np.nan_to_num(np.abs(header.scaled(stored)), nan=0.0, posinf=0.0) / which.sum()
    advice = "give one with --mask"
    if not mean.max() > mean.min():
        raise InputError(f"image {header.path} is constant in {words}, so no mask can be made; {advice}")
    inside = _median_otsu(mean.reshape(header.shape, order="F"))
    if not inside.any():
        raise InputError(f"image {header.path}: median_otsu finds no tissue in the mean of {words}; {advice}")
    return inside, [f"no mask given: made with dipy median_otsu from the mean of {words}, {inside.sum()} voxels"]


def _median_otsu(volume: np.ndarray) -> np.ndarray:
    """Tissue in ``volume`` (X, Y, Z), with a filter that suits its size: dipy's own takes minutes on a whole brain."""
    from dipy.segment.mask import median_otsu

    halved = volume.size > _HALVED_ABOVE and min(volume.shape) > 1
    seen = volume[::2, ::2, ::2] if halved else volume
    # the filter eats what is thinner than itself, except across slabs of a few slices, where it is mirrored
    radius = int(np.clip(min((n for n in seen.shape if n >= 9), default=0) // 20, 1, 4))
    radius = min(radius, 2) if seen.size > 100_000 else radius
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0/0 in Otsu's histogram, which it survives
        inside = np.asarray(median_otsu(seen, median_radius=radius)[1], dtype=bool)
    if not halved:
        return inside
    x, y, z = volume.shape
    return inside.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:x, :y, :z]


def _scatter(
    header: Header, mask: np.ndarray, kept: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Masked measurements ``(N, M)`` and sampled background values, in one pass over the file."""
    n_volumes = len(kept)
    inside = np.ravel_multi_index(np.nonzero(mask), header.shape, order="F")
    near = np.asarray(ndimage.binary_dilation(mask, iterations=3), dtype=bool)
    outside = np.flatnonzero(~near.ravel(order="F"))
    rng = np.random.default_rng(0)
    per_volume = min(-(-N_BACKGROUND // n_volumes), len(outside))
    y = np.empty((len(inside), n_volumes), np.float32)
    block = np.empty((min(_BLOCK, n_volumes), len(inside)), np.float32)
    background = []
    with np.errstate(over="ignore", invalid="ignore"):
        for m, stored in enumerate(_kept_volumes(header, kept, notes)):
            block[m % _BLOCK] = header.scaled(stored[inside])
            if per_volume:
                background.append(header.scaled(stored[rng.choice(outside, per_volume)]).astype(np.float32))
            if m % _BLOCK == _BLOCK - 1 or m == n_volumes - 1:
                y[:, m - m % _BLOCK : m + 1] = block[: m % _BLOCK + 1].T
    return y, np.concatenate(background)[:N_BACKGROUND] if len(outside) >= 100 else None
