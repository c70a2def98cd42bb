"""A mixture whose component is relaxed to a point of the simplex."""

import pyro
import torch
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyroqmri.distributions import ExpRelaxed
from pyroqmri.errors import InputError
from pyroqmri.priors.mixture import Mixture


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

    def elbo(self, n_particles=1):
        return Trace_ELBO(num_particles=n_particles)
