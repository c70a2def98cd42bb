"""The amortised encoder."""

import torch

from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides.base import GaussianGuide, bounded_log_sd, perceptron, tril_from
from pyroqmri.guides.features import Features
from pyroqmri.voxel_model import VoxelModel


class Encoder(GaussianGuide):
    r"""A network from the measurements to a full-covariance normal.

    .. math:: q(z \mid y) = \mathcal N(m(y), T(y) T(y)^\top)

    Parameters
    ----------
    model
        The voxel model of the pair.
    n_measurements
        Length of a voxel's measurements.
    width, depth
        Of the hidden layers.
    diagonal
        Leave out the covariances. A documented weakness: where parameters
        correlate, intervals are too narrow.

    Source: Kingma and Welling 2013, arXiv:1312.6114.
    """

    def __init__(
        self, model: VoxelModel, n_measurements: int, width: int = 64, depth: int = 2, diagonal: bool = False
    ) -> None:
        super().__init__(model)
        n = model.n_latents
        # measurements without their input, such as B1, say as little as those without a frame: the mode has both
        self.needs_mode = model.has_direction or bool(model.signal.signal.inputs)
        self.features = Features(0 if self.needs_mode else n_measurements, model.n_unconstrained * self.needs_mode)
        self.diagonal = diagonal
        n_out = 2 * n if diagonal else n + n * (n + 1) // 2
        # narrow at first: wide draws reach the far corners of the box and their enormous signals
        self.register_buffer("first_shift", torch.cat([torch.full((n,), 2.0), torch.zeros(n_out - 2 * n)]))
        self.network = perceptron(self.features.size, width, depth, n_out, last_scale=0.1)

    def start(self, voxels):
        self.features.fit(voxels)

    def z_dist(self, voxels):
        out = self.network(self.features(voxels))
        n = self.model.n_latents
        raw = out[..., n:] - self.first_shift
        tril = bounded_log_sd(raw).exp().diag_embed() if self.diagonal else tril_from(raw, n)
        return GaussianMixture.single(out[..., :n], tril)
