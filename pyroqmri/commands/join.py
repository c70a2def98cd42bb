"""The command join: a series of images, one a setting, as one image with its protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri import __version__
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.inputs import PathLike
from pyroqmri.commands.protocol_files import write_protocol
from pyroqmri.commands.publish import file_set
from pyroqmri.errors import InputError
from pyroqmri.io import read_gradients, read_settings
from pyroqmri.io.names import gradient_files, stem
from pyroqmri.io.nifti import Header, read_header, volumes
from pyroqmri.maps import write_volume

_LARGEST = 1 << 34  # bytes of float32


def join_images(images: Sequence[PathLike], *, out: PathLike, overwrite: bool = False) -> tuple[Path, Acquisition]:
    """Write images of one grid as the volumes of one, with what their sidecars say of each.

    The echoes, inversions or flip angles of a scan come as files of their own in qMRI-BIDS. Each brings its times and
    angles in its sidecar ``X.json``, and its gradients, if it has any, in ``X.bval`` and ``X.bvec``.

    Parameters
    ----------
    images
        In the order of the volumes to come; 3-D, or 4-D with settings a volume.
    out
        The image to write, ``.nii.gz``; its sidecar, bval and bvec come beside it.
    overwrite
        Replace an image that is there.

    Returns
    -------
    tuple
        The image and its settings.

    Raises
    ------
    InputError
        When an image or a sidecar is wrong, grids or the names of settings differ, no file tells a setting, or
        the image is there already. Nothing is written then.
    """
    out = Path(out)
    if len(images) < 2:
        raise InputError("join takes two images or more")
    if not out.name.endswith(".nii.gz"):
        raise InputError(f"--out {out} must end in .nii.gz")
    headers = [read_header(image) for image in images]
    if any(header.path.resolve() == out.resolve() for header in headers):
        raise InputError(f"--out {out} is one of the images to join; give another name")
    written = [out, *(out.with_name(f"{stem(out)}{ending}") for ending in (".json", ".bval", ".bvec"))]
    there = [path.name for path in written if path.exists()]
    if there and not overwrite:
        raise InputError(f"{' and '.join(there)} lie in {out.parent} already; give --overwrite or another name")
    _check_grids(headers)
    acquisition = _joined([_settings(header) for header in headers], headers)
    values = _values(headers)
    out.parent.mkdir(parents=True, exist_ok=True)
    sources = [header.path.name for header in headers]
    with file_set(written) as made:
        # a protocol that would be read back as another one is found out here, where nothing is lost
        write_protocol(
            made / out.name, acquisition, {"GeneratedBy": f"pyroqmri {__version__} join", "Sources": sources}
        )
        write_volume(made / out.name, values, headers[0].affine)
    return out, acquisition


def _check_grids(headers: Sequence[Header]) -> None:
    first = headers[0]
    for header in headers[1:]:
        if header.shape != first.shape:
            raise InputError(
                f"{header.path} is {header.shape} and {first.path.name} {first.shape}; join needs one grid"
            )
        if not np.allclose(header.affine, first.affine, atol=1e-2 * np.abs(first.affine[:3, :3]).max(), rtol=0):
            raise InputError(
                f"{header.path} and {first.path.name} have different affines; bring them to one grid first"
            )


def _settings(header: Header) -> dict[str, Tensor]:
    n = 1 if header.n_volumes is None else header.n_volumes
    found: dict[str, Any] = read_settings(header.path, n_volumes=n, texts=False).values
    bval, bvec = gradient_files(header.path)
    own = bval is not None and bval.name.startswith(stem(header.path))  # dwi.bval belongs to no file of a series
    gradients = read_gradients(bval, bvec, n_volumes=n).acquisition.settings() if own and bval is not None else {}
    return {name: torch.as_tensor(v, dtype=torch.float32) for name, v in (found | gradients).items()}


def _joined(parts: Sequence[dict[str, Tensor]], headers: Sequence[Header]) -> Acquisition:
    every = {name for part in parts for name in part}
    if not every:
        first = headers[0].path
        raise InputError(
            f"no settings were found: {first.name} needs a sidecar {stem(first)}.json, and so do the others"
        )
    for part, header in zip(parts, headers, strict=True):
        missing = sorted(every - set(part))
        if missing:
            raise InputError(f"{header.path} states no {' and no '.join(missing)}, which others of the series do")
    return Acquisition(**{name: torch.cat([part[name] for part in parts]) for name in sorted(every)})


def _values(headers: Sequence[Header]) -> np.ndarray:
    """Measurements ``(X, Y, Z, M)``, float32."""
    first, n = headers[0], sum(1 if header.n_volumes is None else header.n_volumes for header in headers)
    if 4 * n * int(np.prod(first.shape)) > _LARGEST:
        raise InputError(f"the joined image has {n} volumes of {first.shape} voxels, over 16 GB; join a part of it")
    values, k = np.empty((*first.shape, n), np.float32, order="F"), 0
    for header in headers:
        for stored in volumes(header):
            values[..., k] = header.scaled(stored).reshape(header.shape, order="F")
            k += 1
    return values
