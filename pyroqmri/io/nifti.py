"""NIfTI files, distrusted: a header that must make sense, and volumes streamed in file order."""

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from pyroqmri.errors import InputError
from pyroqmri.files import open_regular

try:  # three times as fast as gzip
    from isal import igzip
    from isal.isal_zlib import IsalError
except ImportError:
    igzip, IsalError = gzip, zlib.error

DAMAGED: tuple[type[BaseException], ...] = (EOFError, gzip.BadGzipFile, zlib.error, IsalError)
LARGEST_RATIO = 1100  # deflate cannot pack more than 1032 bytes into one
LARGEST_VOLUME = 1 << 30
LARGEST_IMAGE = 1 << 36
LARGEST_TAIL = 1 << 26
_SIZES = (1e-6, 1e6)  # mm, of a voxel
_FLAT = 1e-3  # volume that unit steps along the axes span: 1 at right angles, 0 in a plane


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says, checked against itself and the size of its file.

    ``shape`` is (X, Y, Z); ``n_volumes`` is None for a 3-D image; stored values times
    ``slope`` plus ``inter`` are the measurements, unless ``slope`` is None. ``affine`` is the
    sform, else the qform, else made of voxel sizes alone, where the header has no orientation
    and ``oriented`` is False; ``qform`` is the other affine of a file with both.
    """

    path: Path
    shape: tuple[int, int, int]
    n_volumes: int | None
    dtype: np.dtype
    slope: float | None
    inter: float
    offset: int
    affine: np.ndarray
    zooms: tuple[float, ...]
    oriented: bool = True
    qform: np.ndarray | None = None

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume."""
        return math.prod(self.shape) * self.dtype.itemsize

    def scaled(self, stored: np.ndarray) -> np.ndarray:
        """Measurements of stored values of any shape."""
        return stored if self.slope is None else stored.astype(np.float64) * self.slope + self.inter


def read_header(path: str | Path) -> Header:
    """Read and check the header of a single-file NIfTI-1 or -2 image, compressed or not.

    Raises
    ------
    InputError
        When the file is missing, is no NIfTI image, is damaged, or its header cannot be true:
        sizes that are not positive or that its bytes cannot hold, an affine that is singular or
        not finite, or a data type that is no real number.
    """
    path = Path(path)
    with open_stream(path) as stream:
        block = _read(stream, 540, path, exactly=False)
    raw = _parse(block, path)
    shape, n_volumes = _shape(raw, path)
    slope, inter = _scaling(raw, path)
    oriented = int(raw["sform_code"]) > 0 or int(raw["qform_code"]) > 0
    header = Header(
        path, shape, n_volumes, _dtype(raw, path), slope, inter, _offset(raw, path), _affine(raw, path), _zooms(raw),
        oriented, _second_affine(raw),
    )  # fmt: skip
    _check_size(header)
    return header


def open_stream(path: Path) -> BinaryIO:
    """The file's bytes, decompressed when it begins like a gzip file, whatever its name."""
    file = open_regular(path, "image")
    try:
        magic = file.read(2)
        file.seek(0)
    except OSError as error:
        raise InputError(f"image {path} cannot be read ({error.strerror})") from error
    if magic != b"\x1f\x8b":
        return file
    file.close()
    return cast(BinaryIO, igzip.open(path, "rb"))


def volumes(header: Header, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """Stored volumes in file order, each ``(X * Y * Z,)`` with x fastest.

    After the last one the file is read to its end, so that a wrong checksum is noticed;
    bytes behind the declared image go into ``notes``.

    Raises
    ------
    InputError
        When the file is truncated or damaged, or much longer than its header says.
    """
    with open_stream(header.path) as stream:
        _read(stream, header.offset, header.path)
        for _ in range(header.n_volumes if header.n_volumes is not None else 1):
            yield np.frombuffer(_read(stream, header.volume_bytes, header.path), header.dtype)
        tail = 0
        while piece := _read(stream, 1 << 20, header.path, exactly=False):
            tail += len(piece)
            if tail > LARGEST_TAIL:
                raise InputError(f"image {header.path} goes on for {tail >> 20} MiB after the end its header gives")
    if tail and notes is not None:
        notes.append(f"{tail} bytes behind the image in {header.path.name} were ignored")


def _read(stream: BinaryIO, size: int, path: Path, exactly: bool = True) -> bytes:
    try:
        data = stream.read(size)
    except DAMAGED as error:
        raise InputError(f"image {path} is damaged or truncated ({error}); get a whole copy") from error
    except OSError as error:
        raise InputError(f"image {path} cannot be read ({error.strerror})") from error
    if exactly and len(data) < size:
        raise InputError(f"image {path} is truncated: it ends {size - len(data)} bytes early; get a whole copy")
    return data


def _parse(block: bytes, path: Path) -> Any:
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    magic = block[344:348] if 348 in sizes else block[4:8]
    if len(block) < 348 or not sizes & {348, 540} or magic[:2] not in (b"n+", b"ni"):
        raise InputError(f"image {path} is not a NIfTI file; convert it to .nii.gz")
    if magic[:2] == b"ni":
        raise InputError(f"image {path} is one half of an .hdr/.img pair; convert it to .nii.gz")
    kind, size = (nib.Nifti1Header, 348) if 348 in sizes else (nib.Nifti2Header, 540)
    if len(block) < size:
        raise InputError(f"image {path} is truncated inside its header; get a whole copy")
    return kind(block[:size], check=False)


def _shape(raw: Any, path: Path) -> tuple[tuple[int, int, int], int | None]:
    n_dims = int(raw["dim"][0])
    dims = [int(d) for d in raw["dim"][1 : 1 + max(0, n_dims)]]
    if n_dims in (1, 2) and min(dims) > 0:
        raise InputError(f"image {path} has the dimensions {dims} alone; expected x, y and z at least")
    if not 3 <= n_dims <= 7 or min(dims) < 1:
        raise InputError(f"image {path} has impossible dimensions {dims} in its header; get a sound copy")
    spatial, rest = (dims[0], dims[1], dims[2]), dims[3:]
    if sum(d > 1 for d in rest) > 1:
        raise InputError(f"image {path} has dimensions {dims}; expected x, y, z and one axis of volumes")
    return spatial, math.prod(rest) if rest else None


def _dtype(raw: Any, path: Path) -> np.dtype:
    try:
        dtype = raw.get_data_dtype()
    except (KeyError, HeaderDataError):
        dtype = None
    if dtype is None or dtype.kind not in "iuf":
        found = f"code {int(raw['datatype'])}" if dtype is None else str(dtype)
        raise InputError(f"image {path} stores values of type {found}; give real numbers, such as the magnitude")
    return dtype


def _scaling(raw: Any, path: Path) -> tuple[float | None, float]:
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or not math.isfinite(slope):  # the standard: no scaling
        return None, 0.0
    if not math.isfinite(inter):
        raise InputError(f"image {path} has scl_slope {slope:g} and scl_inter {inter:g} in its header; fix scl_inter")
    return (None, 0.0) if (slope, inter) == (1.0, 0.0) else (slope, inter)


def _offset(raw: Any, path: Path) -> int:
    offset = float(raw["vox_offset"])
    smallest = int(raw["sizeof_hdr"])
    if offset == 0:
        return smallest + 4
    if not smallest <= offset <= LARGEST_TAIL:
        raise InputError(f"image {path} has vox_offset {offset:g} in its header, inside the header or far behind it")
    return int(offset)


def _affine(raw: Any, path: Path) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(raw.get_best_affine(), dtype=float)
    except (ValueError, HeaderDataError) as error:
        raise InputError(f"image {path} has an orientation that cannot be read ({error}); fix its header") from error
    if not np.isfinite(affine).all():
        raise InputError(f"image {path} has an affine with NaN or Inf in its header; correct it")
    with np.errstate(over="ignore"):
        sizes = np.sqrt(np.square(affine[:3, :3]).sum(0))
    if not (_SIZES[0] <= sizes.min() and sizes.max() <= _SIZES[1]):
        found = " x ".join(f"{s:.3g}" for s in sizes)
        raise InputError(
            f"image {path} has voxels of {found} mm in its header, so its affine is singular or absurd; correct it"
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < _FLAT:
        raise InputError(
            f"image {path} has a singular affine in its header: its axes lie in one plane; correct sform and qform"
        )
    return affine


def _second_affine(raw: Any) -> np.ndarray | None:
    """The qform of a header whose sform comes first; None where there is one of them, or the qform cannot be read."""
    if int(raw["sform_code"]) <= 0 or int(raw["qform_code"]) <= 0:
        return None
    try:
        with np.errstate(all="ignore"):
            qform = np.asarray(raw.get_qform(), dtype=float)
    except (ValueError, HeaderDataError):
        return None
    usable = np.isfinite(qform).all() and abs(np.linalg.det(qform[:3, :3])) > _SIZES[0] ** 3
    return qform if usable else None


def _zooms(raw: Any) -> tuple[float, ...]:
    return tuple(float(z) for z in raw["pixdim"][1 : 1 + min(4, int(raw["dim"][0]))])


def _check_size(header: Header) -> None:
    """Compare the claimed bytes with the file's, before any of them is asked for."""
    path = header.path
    n_volumes = header.n_volumes if header.n_volumes is not None else 1
    claimed = header.offset + header.volume_bytes * n_volumes
    found = path.stat().st_size
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed and claimed > found:
        raise InputError(f"image {path} is truncated: its header implies {claimed} bytes and it has {found}")
    if packed and claimed > LARGEST_RATIO * found:
        raise InputError(f"image {path} cannot be true: its header implies {claimed} bytes out of {found} compressed")
    if header.volume_bytes > LARGEST_VOLUME or claimed > LARGEST_IMAGE:
        raise InputError(
            f"image {path} is too large: {claimed / 1e9:.1f} GB, {header.volume_bytes / 1e9:.2f} GB a volume, "
            f"and the limits are {LARGEST_IMAGE / 1e9:.0f} and {LARGEST_VOLUME / 1e9:.1f} GB; crop it"
        )
