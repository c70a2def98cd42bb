"""What a caller gives, as the package wants it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, and torch finds none here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def as_tensor(y: Any) -> Tensor:
    """Measurements as a tensor of torch's default dtype, float32 as a rule, without a copy where it can be."""
    dtype = torch.get_default_dtype()
    if isinstance(y, Tensor):
        return y.to(dtype)
    return torch.from_numpy(np.asarray(y, dtype=np.float64 if dtype == torch.float64 else np.float32))


def as_dict(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy as a dict; nothing is an empty one."""
    return {} if given is None else dict(given)


def as_inputs(inputs: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Per-voxel inputs as tensors."""
    return {} if inputs is None else {name: as_tensor(value) for name, value in inputs.items()}


def as_positions(voxels: Any, mask: Any, n: int) -> Tensor | None:
    """Where ``n`` voxels lie in the image ``(n, 3)``: as given, or those inside a mask ``(X, Y, Z)`` in C order.

    Raises
    ------
    InputError
        When both are given, or they are not those of ``n`` voxels.
    """
    if voxels is not None and mask is not None:
        raise InputError("voxels and mask both give the positions of the voxels; give one of them")
    if mask is not None:
        voxels = np.argwhere(np.asarray(mask) > 0)
    if voxels is None:
        return None
    found = torch.as_tensor(np.asarray(voxels))
    if found.shape != (n, 3) or found.is_floating_point():
        raise InputError(
            f"voxels must be integer indices ({n}, 3), one row per voxel of y, or mask an image with {n} voxels "
            f"inside; got shape {tuple(found.shape)} of {found.dtype}"
        )
    return found.long()


def as_covariates(covariates: Mapping[str, Any] | None, n: int) -> dict[str, Tensor]:
    """Covariates of ``n`` voxels as tensors, each ``(n,)``.

    Raises
    ------
    InputError
        When one has another length, or is not finite.
    """
    found = as_inputs(covariates)
    for name, value in found.items():
        if value.shape != (n,) or not bool(torch.isfinite(value).all()):
            raise InputError(f"covariate {name} must be {n} finite numbers, one per voxel, got {tuple(value.shape)}")
    return found
