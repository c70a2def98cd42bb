"""Amortised encoders for mixture priors."""

import pyro
import torch
from pyro.distributions import Categorical, MultivariateNormal
from pyro.ops.indexing import Vindex
from torch import Tensor

from pyroqmri.distributions import ExpRelaxed, GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.guides.base import Guide, perceptron, tril_from
from pyroqmri.guides.features import Features
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import RelaxedMixture
from pyroqmri.voxel_model import VoxelModel, voxel_plate


class MixtureEncoder(Guide):
    r"""Networks from the measurements to the component and, given it, to the latent.

    .. math:: q(c \mid y) = \mathrm{Cat}(\pi(y)), \qquad q(z \mid y, c) = \mathcal N(m(y, c), T(y, c) T(y, c)^\top)

    Parameters
    ----------
    model
        The voxel model of the pair; its prior is a mixture.
    n_measurements
        Length of a voxel's measurements.
    width, depth
        Of the hidden layers.

    Source: Xu et al. 2024, arXiv:2411.10772, where the component goes into the second encoder.
    """

    def __init__(self, model: VoxelModel, n_measurements: int, width: int = 64, depth: int = 2) -> None:
        super().__init__(model)
        n = model.n_latents
        self.n_classes = getattr(model.prior, "n_classes", 1)
        if self.n_classes < 2:
            raise InputError("guide mixture_encoder needs a mixture prior with two classes or more; use encoder")
        self.needs_mode = model.has_direction or bool(model.signal.signal.inputs)
        self.features = Features(0 if self.needs_mode else n_measurements, model.n_unconstrained * self.needs_mode)
        self.component = perceptron(self.features.size, width, depth, self.n_classes, last_scale=0.1)
        n_out = n + n * (n + 1) // 2
        self.latent = perceptron(self.features.size + self.n_classes, width, depth, n_out, last_scale=0.1)
        # narrow at first: wide draws reach the far corners of the box and their enormous signals
        self.register_buffer("first_shift", torch.cat([torch.full((n,), 2.0), torch.zeros(n_out - 2 * n)]))

    def start(self, voxels):
        self.features.fit(voxels)

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample class and latent, the class enumerated: the Pyro program."""
        voxels = self.prepare(y)
        q = self.z_dist(voxels)
        with voxel_plate(len(voxels), size, voxels.y.device):
            c = pyro.sample("c", Categorical(logits=q.logits), infer={"enumerate": "parallel"})
            row = torch.arange(len(voxels), device=voxels.y.device)
            loc, tril = Vindex(q.loc)[row, c], Vindex(q.scale_tril)[row, c]
            pyro.sample("z", MultivariateNormal(loc, scale_tril=tril))

    def z_dist(self, voxels):
        features = self.features(voxels)
        corner = torch.eye(self.n_classes, dtype=features.dtype, device=features.device)
        shape = (len(features), self.n_classes, -1)
        loc, tril = self._given(features.unsqueeze(1).expand(shape), corner.expand(len(features), -1, -1))
        return GaussianMixture(self.component(features), loc, tril)

    def _given(self, features: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and factor of the latent given a component, a point of the simplex."""
        out = self.latent(torch.cat([features, c], -1))
        n = self.model.n_latents
        return out[..., :n], tril_from(out[..., n:] - self.first_shift, n)


class RelaxedEncoder(MixtureEncoder):
    """A mixture encoder whose component is a Gumbel-softmax, for a relaxed prior.

    Parameters
    ----------
    model, n_measurements, width, depth
        As in :class:`MixtureEncoder`.
    """

    def __init__(self, model: VoxelModel, n_measurements: int, width: int = 64, depth: int = 2) -> None:
        super().__init__(model, n_measurements, width, depth)
        if not isinstance(model.prior, RelaxedMixture):
            raise InputError("guide relaxed_encoder needs the relaxed_mixture prior; use mixture_encoder")
        self._prior = (model.prior,)  # a tuple hides the module from registration

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample component and latent: the Pyro program."""
        voxels = self.prepare(y)
        features = self.features(voxels)
        with voxel_plate(len(voxels), size, voxels.y.device):
            (prior,) = self._prior
            log_c = pyro.sample("c", ExpRelaxed(prior.temperature, logits=self.component(features)))
            loc, tril = self._given(features, prior.component(log_c))
            pyro.sample("z", MultivariateNormal(loc, scale_tril=tril))
