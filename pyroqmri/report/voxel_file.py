"""The file ``voxels.npz``: voxels whose measurements, fit and posterior a page shows on a click."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyroqmri.maps import write_bytes
from pyroqmri.posterior.voxel_sample import VoxelSample

VOXELS = "voxels.npz"
_PER_MEASUREMENT = ("y", "fitted", "low", "high")


@dataclass(frozen=True)
class ShownVoxels:
    """What the file has.

    Parameters
    ----------
    ijk
        Indices of the voxels in the image ``(V, 3)``.
    sample
        The voxels in full.
    settings
        Settings of the M measurements that the model sees, each ``(M,)``, directions ``(M, 3)``.
    """

    ijk: NDArray[np.integer]
    sample: VoxelSample
    settings: dict[str, NDArray]


def write_voxels(path: Path, sample: VoxelSample, places: NDArray[np.integer], settings: Mapping[str, NDArray]) -> Path:
    """Write voxels; ``places`` ``(N, 3)`` are the indices in the image of all voxels that the sample was taken of."""
    arrays: dict[str, Any] = {key: getattr(sample, key) for key in (*_PER_MEASUREMENT, "reference")}
    arrays |= {"ijk": places[sample.index].astype(np.int32)}
    arrays |= {f"draws {name}": np.asarray(values, np.float32) for name, values in sample.draws.items()}
    arrays |= {f"setting {name}": np.asarray(values, np.float32) for name, values in settings.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return write_bytes(path, stream.getvalue())


def read_voxels(path: Path, shape: tuple[int, ...]) -> ShownVoxels | None:
    """Read voxels of an image of this ``shape``; None without the file, or where it is of another image or broken."""
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
        ijk, y = arrays["ijk"], arrays["y"]
        sample = VoxelSample(
            np.arange(len(ijk)), *(arrays[key] for key in _PER_MEASUREMENT), reference=arrays["reference"],
            draws=_named(arrays, "draws "),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a page is made of what is there
    settings = _named(arrays, "setting ")
    fits = ijk.shape == (len(y), 3) and bool(((ijk >= 0) & (ijk < shape)).all()) and y.ndim == 2
    fits = fits and all(arrays[key].shape == y.shape and np.isfinite(arrays[key]).all() for key in _PER_MEASUREMENT)
    fits = fits and sample.reference.shape == y.shape[:1] and all(len(v) == y.shape[1] for v in settings.values())
    fits = fits and all(v.ndim == 2 and v.shape[1] == len(y) for v in sample.draws.values())
    return ShownVoxels(ijk, sample, settings) if fits and len(y) else None


def _named(arrays: Mapping[str, NDArray], start: str) -> dict[str, NDArray]:
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
