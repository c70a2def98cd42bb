"""Posteriors that are no Gaussian mixture, a flow's for instance: moments and quantiles are those of draws."""

from functools import cached_property

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyroqmri.distributions import GaussianMixture

N_MOMENTS = 512  # draws that the normal of the same mean and covariance is made from


class Sampled:
    """A guide's distribution of n voxels' latents, where a :class:`GaussianMixture` would stand.

    The draws at given points (:meth:`transport`) are the same at every call, so that all maps and quantiles of a
    posterior come from one set of draws.

    Parameters
    ----------
    q
        The distribution, batch ``(n,)`` and event ``(L,)``.
    """

    def __init__(self, q: TorchDistribution) -> None:
        self.q = q

    def transport(self, base: Tensor) -> Tensor:
        """Draws ``(S, n, L)``, as many as there are points ``(S, L + 1)``; the points themselves do not matter."""
        return self._draws(len(base))

    def sample(self, sample_shape: torch.Size) -> Tensor:
        """Independent draws ``(S, n, L)``."""
        with torch.no_grad():
            return self.q.sample(sample_shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density ``(S, n)`` of latents ``(S, n, L)``."""
        return self.q.log_prob(z)

    def _draws(self, n: int) -> Tensor:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            return self.sample(torch.Size([n]))

    @cached_property
    def normal(self) -> GaussianMixture:
        """The normals of the same means and covariances: what importance draws are spread around."""
        z = self._draws(N_MOMENTS)
        loc = z.mean(0)
        offset = (z - loc).movedim(0, -1)
        covariance = offset @ offset.mT / (len(z) - 1)
        floor = 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).clamp_min(1e-8).diag_embed()
        return GaussianMixture.single(loc, torch.linalg.cholesky(covariance + floor))


Plain = GaussianMixture | Sampled


def plain(q: TorchDistribution) -> Plain:
    """A guide's posterior as a :class:`Posterior` works with it."""
    return q if isinstance(q, GaussianMixture) else Sampled(q)


def normal_part(q: Plain) -> GaussianMixture:
    """The posterior as Gaussian classes: itself, or the normal of the same moments."""
    return q if isinstance(q, GaussianMixture) else q.normal
