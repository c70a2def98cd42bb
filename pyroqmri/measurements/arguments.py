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
    """Measurements as a float32 tensor, without a copy where it can be."""
    return y.float() if isinstance(y, Tensor) else torch.from_numpy(np.asarray(y, dtype=np.float32))


def as_dict(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy as a dict; nothing is an empty one."""
    return {} if given is None else dict(given)


def as_inputs(inputs: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Per-voxel inputs as tensors."""
    return {} if inputs is None else {name: as_tensor(value) for name, value in inputs.items()}
