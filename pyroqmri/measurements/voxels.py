"""What a voxel model is given about a batch of voxels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Voxels:
    """Measurements of N voxels with what is known of each voxel beforehand.

    Parameters
    ----------
    y
        Measurements ``(N, M)``, in units of S0.
    sigma
        Noise level ``(N, 1)`` in the units of ``y``.
    frame
        Coordinate frame of each voxel's direction, ``(N, 3, 3)``, rows n0, e1, e2.
    inputs
        Per-voxel inputs of the signal (such as a B1 map), each ``(N,)``.
    mode, scale_tril
        A starting point for guides: the voxel's own posterior mode under a weak
        prior ``(N, L)`` and the Cholesky factor of its covariance ``(N, L, L)``.
    weights
        How often each entry of ``y`` counts ``(N, M)``, the power of its likelihood; once when None.
    short
        The same voxels with repeated measurements compressed: what modes are searched with.
    index
        Which of the training voxels each one is ``(N,)``, for guides that keep something of every one.
    truth
        Latents that simulated measurements were made from ``(N, L)``.
    position
        Where each voxel lies in the image ``(N, 3)``, integer indices; for priors that know neighbours.
    nearby_loc, nearby_tril
        What the rest of an image states about the latents of each: mean ``(N, L)`` and Cholesky factor of the
        covariance ``(N, L, L)``; for priors that are fields.
    nearby_share
        Probability beforehand that each goes with them ``(N,)``, and is not drawn from the population by itself.
    covariates
        What is known of each voxel beside its measurements, each ``(N,)``; for priors that depend on it.
    counts, s0_counts
        Magnitudes that each entry ``(N, M)``, and a measured S0 ``(N,)``, is the mean of in these voxels; those of the
        likelihood when None.
    """

    y: Tensor
    sigma: Tensor | None = None
    frame: Tensor | None = None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    mode: Tensor | None = None
    scale_tril: Tensor | None = None
    weights: Tensor | None = None
    short: "Voxels | None" = None
    index: Tensor | None = None
    truth: Tensor | None = None
    position: Tensor | None = None
    nearby_loc: Tensor | None = None
    nearby_tril: Tensor | None = None
    nearby_share: Tensor | None = None
    covariates: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Tensor | None = None
    s0_counts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_counted(self) -> Tensor | float:
        """How many entries count, in each voxel ``(N,)`` where that differs."""
        return self.y.shape[-1] if self.weights is None else self.weights.sum(-1)

    @property
    def noise(self) -> Tensor:
        """The noise level, of voxels that have one."""
        assert self.sigma is not None, "prepare the voxels first"
        return self.sigma

    def map(self, function: Callable[[Tensor], Tensor]) -> "Voxels":
        """Apply ``function`` to every tensor."""

        def opt(t: Tensor | None) -> Tensor | None:
            return None if t is None else function(t)

        return Voxels(
            function(self.y),
            opt(self.sigma),
            opt(self.frame),
            {k: function(v) for k, v in self.inputs.items()},
            opt(self.mode),
            opt(self.scale_tril),
            opt(self.weights),
            None if self.short is None else self.short.map(function),
            opt(self.index),
            opt(self.truth),
            opt(self.position),
            opt(self.nearby_loc),
            opt(self.nearby_tril),
            opt(self.nearby_share),
            {k: function(v) for k, v in self.covariates.items()},
            opt(self.counts),
            opt(self.s0_counts),
        )

    def __getitem__(self, index: Any) -> "Voxels":
        if isinstance(index, Tensor) and index.dtype == torch.int64:
            return self.map(lambda t: t.index_select(0, index))
        return self.map(lambda t: t[index])

    def to(self, device: torch.device | str) -> "Voxels":
        """The same voxels on another device."""
        return self.map(lambda t: t.to(device))
