"""The plate that model and guide share."""

import pyro
import torch


def voxel_plate(n: int, size: int | None, device: torch.device) -> pyro.plate:
    """Plate over ``n`` voxels that stand for ``size``; the caller drew the batch, so nothing is drawn here."""
    if size is None or size == n:
        return pyro.plate("voxels", n, device=str(device))
    return pyro.plate("voxels", size, subsample=torch.arange(n, device=device))
