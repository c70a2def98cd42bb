"""Weights and gradient deviations of voxels to simulate, from files on the phantom's grid."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.io.nifti import read_header, volumes
from pyroqmri.maps import scatter, write_volume
from pyroqmri.measurements.own_protocol import GRAD_DEV, OWN, WEIGHTS, check_directions, checked_own


def own_on_grid(
    weights: PathLike | None, grad_dev: PathLike | None, mask: NDArray[np.bool_], acquisition: Acquisition
) -> dict[str, Tensor]:
    """Weights ``(N, M)`` and deviations ``(N, 3, 3)`` of the voxels of ``mask``, of those files that are given.

    The nine volumes of deviations are in the order of ``grad_dev.nii.gz`` of the Human Connectome Project.

    Raises
    ------
    InputError
        When a file is on another grid, has another number of volumes, or values that are none of these.
    """
    found = {}
    if weights is not None:
        found[WEIGHTS] = _values(weights, WEIGHTS, mask, len(acquisition))
    if grad_dev is not None:
        check_directions(acquisition)
        found[GRAD_DEV] = _values(grad_dev, GRAD_DEV, mask, 9).reshape(-1, 3, 3).mT.contiguous()
        if not bool(found[GRAD_DEV].isfinite().all()):
            raise InputError(f"grad_dev {grad_dev} has NaN inside the phantom; give a number for each voxel")
    return checked_own(found, int(mask.sum()))


def _values(path: PathLike, what: str, mask: NDArray[np.bool_], n: int) -> Tensor:
    header = read_header(path)
    if header.shape != mask.shape:
        raise InputError(f"{what}: {path} has shape {header.shape} and the phantom {mask.shape}; give --shape")
    count = header.n_volumes or 1
    if count != n:
        needs = "a tensor per voxel has nine" if what == GRAD_DEV else f"the protocol {n}"
        raise InputError(f"{what} {path}: the number of volumes is {count}, and {needs}")
    each = [header.scaled(one).reshape(header.shape, order="F")[mask] for one in volumes(header)]
    return torch.as_tensor(np.stack(each, -1), dtype=torch.float32)


def everywhere(values: Tensor, inside: Tensor, name: str) -> Tensor:
    """Values of the voxels of a mask ``(N, ...)``, put into those of the whole volume ``(V, ...)``.

    Outside there is no signal, so that any value does that is no zero to divide by: the first voxel's, and what is
    nominal of weights and deviations.
    """
    usual = {WEIGHTS: torch.ones_like(values[:1]), GRAD_DEV: torch.zeros_like(values[:1])}
    found = usual.get(name, values[:1]).repeat(len(inside), *[1] * (values.ndim - 1))
    found[inside] = values
    return found


def write_inputs(folder: Path, inputs: dict[str, Tensor], mask: NDArray[np.bool_], affine: NDArray) -> None:
    """Write what was simulated with beside the image, for the fit: ``--input``, ``--weights``, ``--grad-dev``."""
    for name, values in inputs.items():
        flat = values.mT.reshape(-1, 9) if name == GRAD_DEV else values
        write_volume(folder / input_name(name), scatter(flat.numpy(), mask), affine)


def input_name(name: str) -> str:
    """The file of a per-voxel input of a simulated scan."""
    return f"sub-sim_{name}.nii.gz" if name in OWN else f"sub-sim_input-{name}.nii.gz"
