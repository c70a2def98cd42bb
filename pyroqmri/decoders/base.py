"""What every decoder has."""

from abc import abstractmethod

from torch import Tensor, nn


class Decoder(nn.Module):  # not ABC: Pyro cannot make a PyroModule of a class with another metaclass
    """Map from a voxel's latent to the unconstrained coordinates of its physical parameters.

    Latents of a direction come last and pass through as they are: their prior is
    exactly uniform over axes, which no network could keep.
    """

    n_tissue_latents: int

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Unconstrained coordinates ``(..., P)`` of latents ``(..., L)``."""

    def centre(self, loc: Tensor, covariance: Tensor) -> None:
        """Start where standard normal latents give parameters of mean ``(P,)`` and covariance ``(P, P)``, if it can."""
