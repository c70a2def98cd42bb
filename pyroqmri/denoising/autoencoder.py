"""What every denoising autoencoder is: dense layers down to a few latents and up again."""

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyroqmri.denoising.pairs import Pairs
from pyroqmri.denoising.reconstruction import Reconstruction
from pyroqmri.errors import InputError

LOSSES = ("mse", "l1", "huber")


def widths(n_measurements: int, latent: int, depth: int) -> list[int]:
    """Neurons of each layer from the input to the latent: ``depth`` hidden ones between, evenly spaced."""
    return [int(w) for w in torch.linspace(n_measurements, latent, depth + 2)]


def dense(sizes: list[int], last: bool) -> nn.Sequential:
    """Linear layers with a ReLU behind each; behind the last one only when ``last``."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(n_in, n_out))
        if last or i < len(sizes) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Autoencoder(nn.Module, ABC):
    """Dense layers from the measurements of a voxel down to a latent, and up to its noise-free measurements.

    Parameters
    ----------
    n_measurements
        Measurements of a voxel.
    latent
        Latents.
    depth
        Hidden layers of the encoder, and as many of the decoder.
    loss
        How a reconstruction is judged: ``mse``, ``l1`` or ``huber``.
    huber_delta
        Error above which the Huber loss is linear, in units of S0.

    Raises
    ------
    InputError
        When a number is not above zero, the loss is unknown, or there are more latents than measurements.
    """

    def __init__(
        self, n_measurements: int, latent: int = 7, depth: int = 3, loss: str = "huber", huber_delta: float = 1.0
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise InputError(f"autoencoder.loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        for name, value in (("latent", latent), ("depth", depth), ("huber_delta", huber_delta)):
            if not value > 0:
                raise InputError(f"autoencoder.{name} must be above zero, got {value}")
        if latent > n_measurements:
            raise InputError(
                f"autoencoder.latent is {latent} for {n_measurements} measurements, which compresses nothing; set fewer"
            )
        self.n_measurements, self.n_latents = n_measurements, latent
        self.loss_kind, self.huber_delta = loss, huber_delta
        self.sizes = widths(n_measurements, latent, depth)
        self.encoder = dense(self.sizes[:-1], last=True)
        self.decoder = dense(self.sizes[::-1], last=False)

    @abstractmethod
    def z_loc(self, y: Tensor) -> Tensor:
        """Latents ``(N, L)`` of measurements ``(N, M)``; the mean where there is a posterior."""

    @abstractmethod
    def z_scale(self, y: Tensor) -> Tensor | None:
        """Standard deviations of the latents ``(N, L)``, or None for a network that has none."""

    @abstractmethod
    def objective(self, pairs: Pairs, kl_weight: float) -> Tensor:
        """What training makes small, a voxel."""

    def x_dist(self, z: Tensor, weight: Tensor | None = None) -> Reconstruction:
        """Noise-free measurements given the latents, as the reconstruction loss sees them."""
        return Reconstruction(self.decoder(z), self.loss_kind, self.huber_delta, weight)

    def reconstruction_loss(self, pairs: Pairs) -> Tensor:
        """Mean reconstruction loss at the latents' means."""
        return -self.x_dist(self.z_loc(pairs.noisy), pairs.weight).log_prob(pairs.target).mean()

    def forward(self, y: Tensor) -> Tensor:
        """Denoised measurements ``(N, M)``."""
        return self.decoder(self.z_loc(y))
