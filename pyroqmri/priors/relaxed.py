"""A mixture whose component is relaxed to a point of the simplex."""

import functools
import math

import pyro
import torch
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyroqmri.distributions import ExpRelaxed
from pyroqmri.errors import InputError
from pyroqmri.priors.mixture import Mixture

N_POINTS = 4096  # components that stand for all of them
_CHUNK_VALUES = 2_000_000


class RelaxedMixture(Mixture):
    r"""Gaussian mixture over the latents with a Gumbel-softmax component.

    .. math:: c_n \sim \mathrm{RelaxedOneHot}(w, \tau), \qquad z_n \mid c_n \sim \mathcal N(c_n^\top m, c_n^\top s)

    The site ``c`` is the component's logarithm, which is finite in float32 however
    sharp the component. The temperature falls geometrically from ``temperature`` to
    ``last_temperature`` in training; below 0.1 gradients are noise, so it stays above.

    Parameters
    ----------
    n_tissue, n_direction, classes, sd
        As in :class:`Mixture`; scales are diagonal.
    temperature, last_temperature
        At the first and the last step.
    straight_through
        Pass the one-hot component on, with the gradient of the relaxed one.

    Source: Maddison et al. 2016, arXiv:1611.00712; Xu et al. 2024, arXiv:2411.10772.
    """

    temperature: Tensor

    def __init__(
        self,
        n_tissue: int,
        n_direction: int = 0,
        classes: int = 3,
        sd: float = 0.3,
        temperature: float = 1.0,
        last_temperature: float = 0.3,
        straight_through: bool = False,
    ) -> None:
        super().__init__(n_tissue, n_direction, classes, sd, diagonal=True)
        if not 0.1 <= last_temperature <= temperature:
            raise InputError(
                f"prior.last_temperature must lie between 0.1 and prior.temperature ({temperature:g}), "
                f"got {last_temperature:g}"
            )
        self.straight_through = straight_through
        self.first_temperature, self.last_temperature = temperature, last_temperature
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def anneal(self, share):
        """Lower the temperature; ``share`` of the training is done."""
        self.temperature.fill_(self.first_temperature * (self.last_temperature / self.first_temperature) ** share)

    def component(self, log_c: Tensor) -> Tensor:
        """The component ``(..., C)`` that the latent sees, of the site's value."""
        soft = log_c.exp()
        if not self.straight_through:
            return soft
        hard = torch.nn.functional.one_hot(log_c.argmax(-1), log_c.shape[-1]).to(soft)
        return hard + soft - soft.detach()

    def forward(self, population):
        c = self.component(pyro.sample("c", ExpRelaxed(self.temperature, logits=population.log_weights)))
        scale = population.scale_tril.diagonal(dim1=-2, dim2=-1)
        return pyro.sample("z", Normal(c @ population.loc, c @ scale).to_event(1))

    def log_prob(self, z, population, voxels=None):
        """Log-density ``(..., N)`` of latents, the component integrated out.

        Given a component the latent is normal, so the integral is a mean of normal densities over quasi-random
        components, the same ones for every latent; its error is near 0.01 nats. A one-hot component
        (``straight_through``) leaves a mixture in closed form.
        """
        if not self.is_written_by(RelaxedMixture):
            return super().log_prob(z, population, voxels)
        if self.straight_through:
            return self.z_dist(population).log_prob(z)
        logits = population.log_weights + gumbel_points(N_POINTS, self.n_classes).to(population.loc)
        c = (logits / self.temperature).softmax(-1).double()
        scale = population.scale_tril.diagonal(dim1=-2, dim2=-1)
        return _mean_of_normals(z.double(), c @ population.loc.double(), c @ scale.double()).to(z.dtype)

    def elbo(self, n_particles=1):
        return Trace_ELBO(num_particles=n_particles)


@functools.cache
def gumbel_points(n: int, n_classes: int) -> Tensor:
    """Quasi-random points ``(n, C)`` of independent standard Gumbel variables."""
    points = torch.quasirandom.SobolEngine(n_classes, scramble=True, seed=0).draw(n, dtype=torch.float64)
    return -(-points.clamp(1e-9, 1 - 1e-9).log()).log()


def _mean_of_normals(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log of the mean over K normals of independent coordinates, means and sds ``(K, L)``, at ``z`` ``(..., L)``."""
    precision = scale.square().reciprocal()
    # the exponents of all normals are one product of matrices
    columns = torch.cat([-precision / 2, loc * precision], -1).mT
    constant = -(loc.square() * precision).sum(-1) / 2 - scale.log().sum(-1)
    constant = constant - z.shape[-1] / 2 * math.log(2 * math.pi) - math.log(len(loc))
    points = z.reshape(-1, z.shape[-1])
    parts = points.split(max(1, _CHUNK_VALUES // len(loc)))
    found = [(torch.cat([part.square(), part], -1) @ columns + constant).logsumexp(-1) for part in parts]
    return torch.cat(found).view(z.shape[:-1])
