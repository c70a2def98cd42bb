"""The denoising variational autoencoder, as a Pyro model and guide."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

from pyroqmri.denoising.autoencoder import Autoencoder
from pyroqmri.denoising.pairs import Pairs
from pyroqmri.svi import KLWeight


class VAE(Autoencoder):
    r"""A voxel's noise-free signal has a few standard normal causes; the guide sees it through noise.

    .. math:: z \sim N(0, I), \quad p(x \mid z) \propto e^{-\rho(x, f(z))}, \qquad
              q(z \mid y) = N(\mu(y), \mathrm{diag}\, s(y)^2)

    ``x`` are noise-free measurements, known in training because they are simulated, and ``y`` the noisy ones
    (Glaser; the denoising criterion of Im et al. 2017, arXiv:1511.06406).

    Parameters
    ----------
    n_measurements, latent, depth, loss, huber_delta
        As of :class:`Autoencoder`.
    """

    def __init__(
        self, n_measurements: int, latent: int = 7, depth: int = 3, loss: str = "huber", huber_delta: float = 1.0
    ) -> None:
        super().__init__(n_measurements, latent, depth, loss, huber_delta)
        self.loc_head = nn.Linear(self.sizes[-2], latent)
        self.log_scale_head = nn.Linear(self.sizes[-2], latent)
        self.elbo = TraceMeanField_ELBO().differentiable_loss

    def prior_dist(self, like: Tensor) -> dist.TorchDistribution:
        """Standard normal latents, on the device of ``like``."""
        return dist.Normal(like.new_zeros(self.n_latents), 1.0).to_event(1)

    def z_dist(self, y: Tensor) -> dist.TorchDistribution:
        """Posterior of the latents given noisy measurements ``(N, M)``."""
        features = self.encoder(y)
        return dist.Normal(self.loc_head(features), torch.exp(self.log_scale_head(features))).to_event(1)

    def model(self, pairs: Pairs) -> None:
        """Latents, and the noise-free measurements that follow from them."""
        with pyro.plate("voxels", len(pairs)):
            z = pyro.sample("z", self.prior_dist(pairs.target))
            pyro.sample("x", self.x_dist(z, pairs.weight), obs=pairs.target)

    def guide(self, pairs: Pairs) -> None:
        """Latents given the noisy measurements."""
        with pyro.plate("voxels", len(pairs)):
            pyro.sample("z", self.z_dist(pairs.noisy))

    def objective(self, pairs: Pairs, kl_weight: float) -> Tensor:
        """Minus the ELBO a voxel, its KL term in closed form and weighted."""
        with KLWeight(kl_weight):
            return self.elbo(self.model, self.guide, pairs) / len(pairs)

    def z_loc(self, y: Tensor) -> Tensor:
        """Posterior means ``(N, L)``."""
        return self.loc_head(self.encoder(y))

    def z_scale(self, y: Tensor) -> Tensor:
        """Posterior standard deviations ``(N, L)``."""
        return torch.exp(self.log_scale_head(self.encoder(y)))
