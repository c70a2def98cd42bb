"""Per-voxel inputs of voxels to simulate, as the caller gives them: numbers, ranges, or maps in files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.io.nifti import read_header, volumes
from pyroqmri.signals import SignalModel
from pyroqmri.simulate import draw_inputs


def read_inputs(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Inputs of voxels to simulate: numbers and ranges as they are, of the path of a map its finite values above zero.

    Raises
    ------
    InputError
        When a map cannot be read or holds no such value.
    """
    found: dict[str, Any] = {}
    for name, value in dict(given or {}).items():
        if not isinstance(value, str | Path):
            found[name] = value
            continue
        header = read_header(value)
        values = header.scaled(next(volumes(header)))
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            raise InputError(f"input {name}: {value} has no finite value above zero; give another map")
        found[name] = values.astype(np.float32)
    return found


def inputs_on_grid(
    model: type[SignalModel], given: Mapping[str, Any] | None, mask: np.ndarray, seed: int
) -> dict[str, Tensor]:
    """Per-voxel inputs of the voxels of ``mask``, each ``(N,)``: those of a map where they lie."""
    drawn: dict[str, Any] = {}
    for name, value in (given or {}).items():
        drawn[name] = value
        if isinstance(value, str | Path):
            header = read_header(value)
            if header.shape != mask.shape:
                raise InputError(
                    f"input {name}: {value} has shape {header.shape} and the phantom {mask.shape}; give --shape"
                )
            drawn[name] = header.scaled(next(volumes(header))).reshape(header.shape, order="F")[mask]
    n = int(mask.sum())
    found = draw_inputs(model, drawn, n, seed + 5) if given else {}
    # a map's values stay where they are; one of a single voxel or two is no number or range
    return found | {k: torch.as_tensor(v).float() for k, v in drawn.items() if isinstance(v, np.ndarray)}
