"""The denoising autoencoder."""

from torch import Tensor, nn

from pyroqmri.denoising.autoencoder import Autoencoder
from pyroqmri.denoising.pairs import Pairs


class DAE(Autoencoder):
    """Noisy measurements in, noise-free ones out, through a narrow layer (Vincent et al. 2008).

    Parameters
    ----------
    n_measurements, latent, depth, loss, huber_delta
        As of :class:`Autoencoder`.
    """

    def __init__(
        self, n_measurements: int, latent: int = 7, depth: int = 3, loss: str = "huber", huber_delta: float = 1.0
    ) -> None:
        super().__init__(n_measurements, latent, depth, loss, huber_delta)
        self.head = nn.Linear(self.sizes[-2], latent)

    def z_loc(self, y: Tensor) -> Tensor:
        """Values of the narrow layer ``(N, L)``."""
        return self.head(self.encoder(y))

    def z_scale(self, y: Tensor) -> None:
        """There is no posterior."""
        return None

    def objective(self, pairs: Pairs, kl_weight: float) -> Tensor:
        """The reconstruction loss; there is no KL term to weigh."""
        return self.reconstruction_loss(pairs)
