"""Scans: the masked voxels of a 4-D image with the settings they were measured at."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.gradients import read_gradients
from pyroqmri.io.names import gradient_files, mask_beside, prefix
from pyroqmri.io.nifti import Header, read_header, volumes
from pyroqmri.io.settings import BIDS_KEYS, read_settings
from pyroqmri.measurements.shells import B0_BELOW

N_BACKGROUND = 5000
_HALVED_ABOVE = 1_000_000  # voxels
_BLOCK = 8  # volumes transposed at a time: whole cache lines of y, little memory


@dataclass(frozen=True)
class ImageRef:
    """Where a scan came from and the grid that its maps are written on.

    ``header_zooms`` are voxel sizes in mm; ``prefix`` is what its maps' names begin with.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    header_zooms: tuple[float, ...]
    prefix: str


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
    json: str | Path | None = None,
    need: tuple[str, ...] = ("bval", "bvec"),
    optional: tuple[str, ...] = (),
    need_b0: bool = True,
    leave_out: Callable[[Acquisition], np.ndarray] | None = None,
) -> Scan:
    """Read a 4-D NIfTI image inside a mask, holding one volume at a time beside the result.

    Parameters
    ----------
    bval, bvec, te, ti, flip, tr, offset, json
        Files of the settings; those not given are looked for beside the image.
    mask
        NIfTI image of the same shape, true where not zero. Without it dipy's ``median_otsu``
        makes one from the mean b0 volume (Otsu 1979, doi:10.1109/TSMC.1979.4310076).
    need
        Names of the settings that the signal requires.
    optional
        Names of those that it uses where they are found.
    need_b0
        Whether each voxel is divided by its own b0 mean.
    leave_out
        Which of the volumes ``(M,)``, given the settings of all, are left out before anything is judged.

    Raises
    ------
    InputError
        When a file is missing, damaged or does not fit the others, or a needed setting is absent.
    """
    header = read_header(image)
    if header.n_volumes is None:
        shape = " x ".join(map(str, header.shape))
        raise InputError(f"image {image} is 3-D ({shape}); expected a 4-D image with one volume per measurement")
    times = {"te": te, "ti": ti, "flip": flip, "tr": tr, "offset": offset}
    whole, notes = _read_acquisition(header, bval, bvec, times, json, need, optional)
    kept = np.arange(len(whole)) if leave_out is None else np.flatnonzero(~leave_out(whole))
    all_kept = len(kept) == len(whole)
    acquisition = whole if all_kept else whole[torch.from_numpy(kept)]
    _check_b0(acquisition, need_b0 and "bval" in need, header.path)
    if mask is not None:
        inside, said = read_mask(mask, header)
    else:
        inside, said = _make_mask(header, acquisition, kept)
    notes += said
    y, background = _scatter(header, inside, kept, notes)
    ref = ImageRef(header.path, header.shape, header.affine, header.zooms, prefix(header.path))
    left = {} if all_kept else {"volumes": kept, "whole": whole}
    return Scan(y, inside, acquisition, ref, notes, background, **left)


def read_mask(path: str | Path, header: Header | ImageRef) -> tuple[np.ndarray, list[str]]:
    """A mask ``(X, Y, Z)`` for the image of ``header``, true where finite and not zero, with notes.

    Raises
    ------
    InputError
        When it cannot be read, has another shape, or is empty.
    """
    values, notes = _read_volume(path, header, "mask")
    inside = np.isfinite(values) & (values != 0)
    if not inside.any():
        raise InputError(f"mask {path} is empty; give one that is not zero inside the tissue")
    if len(np.unique(values[inside][:100_000])) > 1:
        notes.append(f"mask {Path(path).name} is not just 0 and 1: every voxel that is not zero counts")
    return inside, notes


def read_map(path: str | Path, ref: ImageRef, mask: np.ndarray, what: str = "map") -> tuple[np.ndarray, list[str]]:
    """Values ``(N,)`` float32 of a 3-D map inside a mask, such as a noise or B1 map, with notes.

    Raises
    ------
    InputError
        When it cannot be read or has another shape than the image.
    """
    values, notes = _read_volume(path, ref, what)
    return values[mask].astype(np.float32), notes


def _read_volume(path: str | Path, ref: Header | ImageRef, what: str) -> tuple[np.ndarray, list[str]]:
    own, notes = read_header(path), []
    if own.shape != ref.shape or own.n_volumes not in (None, 1):
        found = (*own.shape, *(() if own.n_volumes is None else (own.n_volumes,)))
        raise InputError(f"{what} {path} has shape {found} and image {ref.path.name} {ref.shape}; give one on its grid")
    if not np.allclose(own.affine, ref.affine, atol=1e-2 * np.abs(ref.affine[:3, :3]).max(), rtol=0):
        notes.append(f"{what} {own.path.name} has another affine than the image; taken voxel by voxel all the same")
    (values,) = volumes(own, notes)
    return own.scaled(values).reshape(own.shape, order="F"), notes


def _read_acquisition(
    header: Header,
    bval: str | Path | None,
    bvec: str | Path | None,
    given: dict[str, str | Path | None],
    json: str | Path | None,
    need: tuple[str, ...],
    optional: tuple[str, ...],
) -> tuple[Acquisition, list[str]]:
    settings, notes = {}, []
    found_bval, found_bvec = gradient_files(header.path)
    used_bval = bval if bval is not None else found_bval
    used_bvec = bvec if bvec is not None else found_bvec
    if used_bval is not None and ("bval" in need or "bvec" in need or bval is not None):
        gradients = read_gradients(used_bval, used_bvec, n_volumes=header.n_volumes)
        settings |= gradients.acquisition.settings()
        found = [Path(p).name for p in (used_bval, used_bvec) if p is not None and p not in (bval, bvec)]
        notes += ([f"{' and '.join(found)} found beside the image"] if found else []) + gradients.notes
    used = (*need, *optional)
    if any(name in used or given[name] is not None for name in BIDS_KEYS):
        times = read_settings(header.path, json=json, n_volumes=header.n_volumes, names=used, **given)  # type: ignore[arg-type]
        settings |= {name: torch.as_tensor(v, dtype=torch.float32) for name, v in times.values.items()}
        notes += times.notes
    for name in need:
        if name not in settings:
            raise InputError(
                f"image {header.path} has no {name} file beside it and this signal needs one; give it with --{name}"
            )
    notes += [f"no {name} was found, and the signal goes without" for name in optional if name not in settings]
    return Acquisition(**settings), notes


def _check_b0(acquisition: Acquisition, needed: bool, path: Path) -> None:
    if needed and not acquisition.b0.any():
        lowest = float(acquisition.bval.min()) * 1000  # type: ignore[union-attr]
        raise InputError(
            f"image {path} has no b0 volume (the lowest b is {lowest:g} s/mm2, and b0 is below {B0_BELOW:g}) to "
            "measure S0 with; use --s0 inferred or --s0 VALUE"
        )


def _kept_volumes(header: Header, kept: np.ndarray, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """Stored volumes of the numbers ``kept``, in file order; the file is read to its end."""
    wanted = set(kept.tolist())
    return (stored for number, stored in enumerate(volumes(header, notes)) if number in wanted)


def _make_mask(header: Header, acquisition: Acquisition, kept: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Brain mask ``(X, Y, Z)`` from the volumes with the least weighting; reads the file once for it."""
    if acquisition.bval is None:
        which, words = np.ones(len(acquisition), dtype=bool), "all volumes"
    else:
        bval = acquisition.bval.numpy()
        which = bval < bval.min() + B0_BELOW / 1000
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
    notes = [f"no mask given: made with dipy median_otsu from the mean of {words}, {inside.sum()} voxels"]
    unused = mask_beside(header.path)
    if unused is not None:
        notes.append(f"{unused.name} lies beside the image and was not used; name it with --mask to use it")
    return inside, notes


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
