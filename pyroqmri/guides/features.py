"""What a guide's network is shown of a voxel."""

import torch
from torch import Tensor, nn

from pyroqmri.measurements.voxels import Voxels


class Features(nn.Module):
    """Standardised inputs ``(N, F)``: the measurements, the voxel's own mode, or both.

    With a direction, measurements mean nothing to a network before they are
    rotated, so the mode in its own frame stands for them.

    Parameters
    ----------
    n_measurements
        Measurements to show, 0 for none.
    n_latents
        Latents of the mode to show, 0 for none; the log of its posterior sds goes with it.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, n_measurements: int, n_latents: int) -> None:
        super().__init__()
        self.n_measurements, self.n_latents = n_measurements, n_latents
        self.size = n_measurements + 2 * n_latents
        self.register_buffer("loc", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def raw(self, voxels: Voxels) -> Tensor:
        """The inputs before they are standardised."""
        columns = []
        if self.n_measurements:
            columns.append(voxels.y)
        if self.n_latents:
            assert voxels.mode is not None and voxels.scale_tril is not None
            columns += [voxels.mode, voxels.scale_tril.diagonal(dim1=-2, dim2=-1).log()]
        return torch.cat(columns, -1)

    @torch.no_grad()
    def fit(self, voxels: Voxels) -> None:
        """Take location and scale from the training voxels."""
        raw = self.raw(voxels)
        self.loc.copy_(raw.mean(0))
        self.scale.copy_(raw.std(0).clamp_min(1e-3))

    def forward(self, voxels: Voxels) -> Tensor:
        # a voxel unlike all others must not push the network where it never was
        return ((self.raw(voxels) - self.loc) / self.scale).clamp(-5, 5)
