"""What every guide has."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.voxel_model import VoxelModel, voxel_plate


class Guide(nn.Module):  # not ABC: Pyro cannot make a PyroModule of a class with another metaclass
    """Approximate posterior of the latents; the variational half of a Pyro pair.

    A guide knows the model it belongs to, but the model's parameters are not its
    own: ``parameters()`` and ``state_dict()`` of the two never overlap.
    """

    needs_mode = False
    maximises_elbo = True  # its loss is minus an evidence lower bound
    uses_classes = False  # finds modes under the prior's classes, which know nothing of single voxels
    trains = True  # has something that steps of an optimiser improve
    draws_population = False  # works with a prior whose population has a posterior
    # sees a voxel through its modes and their curvatures, which any protocol has: other settings need no training
    any_protocol = False

    def __init__(self, model: VoxelModel) -> None:
        super().__init__()
        self._model = (model,)  # a tuple hides the module from registration

    @property
    def model(self) -> VoxelModel:
        """The voxel model of the pair."""
        return self._model[0]

    @property
    def sees_measurements(self) -> bool:
        """Whether its network is shown the measurements themselves, in the order of the acquisition.

        Of a guide that does not state it: unless the signal has a direction, whose frame turns with the scan.
        """
        unstated = int(not self.model.has_direction)
        return not self.any_protocol and bool(getattr(getattr(self, "features", None), "n_measurements", unstated))

    def prepare(self, y: Tensor | Voxels) -> Voxels:
        """Measurements with everything that the pair needs beside them; done once, batches are cheap."""
        return self.model.prepare(y, mode=self.needs_mode)

    def start(self, voxels: Voxels) -> None:
        """Take from the training voxels what the guide starts from; may start the model's population too."""

    def training_set(self, voxels: Voxels) -> Voxels:
        """What the pair is trained on: the prepared voxels themselves, unless a guide says otherwise."""
        return voxels

    def objective(self, n_particles: int = 1) -> Callable[..., Tensor]:
        """Loss of model, guide and voxels that the pair is trained by: the ELBO that the prior needs."""
        elbo: Any = self.model.prior.elbo(n_particles)  # every ELBO of Pyro has it, its base class does not say so
        return elbo.differentiable_loss

    @abstractmethod
    def z_dist(self, voxels: Voxels) -> TorchDistribution:
        """Posterior of each voxel's latent, batch ``(N,)`` and event ``(L,)``.

        A :class:`GaussianMixture` has exact quantiles and evenly spread draws; of any other distribution
        (a flow) moments and quantiles are those of random draws, the same ones at every call.
        """

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample the latents: the Pyro program."""
        voxels = self.prepare(y)
        q = self.z_dist(voxels)
        if not isinstance(q, TorchDistributionMixin):
            found = f"{type(q).__module__}.{type(q).__name__}"
            raise InputError(f"guide {type(self).__name__}: z_dist must return a Pyro distribution, got {found}")
        with voxel_plate(len(voxels), size, voxels.y.device):
            pyro.sample("z", q)


class GaussianGuide(Guide):
    """A guide whose posterior of a voxel is a single normal."""

    def z_dist(self, voxels: Voxels) -> GaussianMixture:
        raise NotImplementedError

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample the latents: the Pyro program."""
        voxels = self.prepare(y)
        q = self.z_dist(voxels)
        with voxel_plate(len(voxels), size, voxels.y.device):
            loc, tril = q.loc.squeeze(-2), q.scale_tril.squeeze(-3)
            pyro.sample("z", MultivariateNormal(loc, scale_tril=tril))


def tril_from(raw: Tensor, n_latents: int) -> Tensor:
    """Cholesky factors ``(..., L, L)`` of free coordinates ``(..., L (L + 1) / 2)``: log sds, then correlations.

    Rows have unit length before the sds scale them, and neither can run off: the
    density is evaluated by a triangular solve, which in float32 forgives no worse condition.
    """
    i, j = torch.tril_indices(n_latents, n_latents, -1)
    rows = torch.eye(n_latents, dtype=raw.dtype, device=raw.device).repeat(*raw.shape[:-1], 1, 1)
    rows[..., i, j] = bounded(raw[..., n_latents:], -4.0, 4.0)
    unit = rows / rows.norm(dim=-1, keepdim=True)
    return bounded_log_sd(raw[..., :n_latents]).exp().unsqueeze(-1) * unit


def bounded(x: Tensor, lower: float, upper: float) -> Tensor:
    """Smooth increasing map of the line onto the interval around zero; nearly ``x`` itself in its middle."""
    limit = torch.where(x < 0, -lower, upper)
    return limit * torch.tanh(x / limit)


def bounded_log_sd(raw: Tensor) -> Tensor:
    """Log sds between -8 and 3, of any numbers."""
    return bounded(raw, -8.0, 3.0)


def perceptron(n_in: int, width: int, depth: int, n_out: int, last_scale: float = 1.0) -> nn.Sequential:
    """Multilayer perceptron with SiLU units; a small ``last_scale`` makes it start near zero."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(n_in, width), nn.SiLU()]
        n_in = width
    last = nn.Linear(n_in, n_out)
    # an unlucky start must not throw the first draws to the far corners of the box
    with torch.no_grad():
        last.weight.mul_(last_scale)
        last.bias.zero_()
    return nn.Sequential(*layers, last)
