"""The structured guide where a network decodes the latent and the component is relaxed."""

import pyro
import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor

from pyroqmri.distributions import ExpRelaxed
from pyroqmri.errors import InputError
from pyroqmri.guides.base import tril_from
from pyroqmri.guides.decoded import StructuredDecoded
from pyroqmri.laplace.mode import Mode, find_mode, inverse_tril
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population, RelaxedMixture
from pyroqmri.voxel_model import VoxelModel, voxel_plate


class RelaxedDecoded(StructuredDecoded):
    r"""Laplace approximation under the blend of classes that a relaxed component stands for, corrected.

    With :math:`\pi(y)` the evidence of the classes as :class:`StructuredDecoded` has it and a relaxed component
    :math:`c \sim \mathrm{RelaxedOneHot}(\pi(y), \tau)`, the latent's prior is the normal of mean :math:`c^\top m` and
    standard deviations :math:`c^\top s`. The mode under it is found without gradients; with the quadratic likelihood
    there, the posterior's mean and covariance are closed forms of c, and the component's gradient passes through them.

    Parameters
    ----------
    model, n_measurements, width, depth, steps, final_steps, decoder_steps
        As in :class:`StructuredDecoded`.

    Raises
    ------
    InputError
        When the prior has no relaxed component.
    """

    def __init__(
        self,
        model: VoxelModel,
        n_measurements: int,
        width: int = 64,
        depth: int = 2,
        steps: int = 2,
        final_steps: int = 12,
        decoder_steps: int = 6,
    ) -> None:
        super().__init__(model, n_measurements, width, depth, steps, final_steps, decoder_steps)
        if not isinstance(model.prior, RelaxedMixture) or self.n_classes < 2:
            raise InputError("guide relaxed_decoded needs prior relaxed_mixture with two classes or more")
        self._prior = (model.prior,)  # a tuple hides the module from registration

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample component and latent: the Pyro program."""
        voxels = self.prepare(y)
        (prior,) = self._prior
        population = Population(*(t.detach() for t in prior.classes()))
        modes, logits = self.laplace(voxels, population, self.steps)
        shift = self.network(self._features(modes.z, modes.scale_tril, logits, population))[..., -1]
        evidence = (logits + shift).mT
        with voxel_plate(len(voxels), size, voxels.y.device):
            log_c = pyro.sample("c", ExpRelaxed(prior.temperature, logits=evidence))
            loc, tril = self._given(voxels, prior.component(log_c), modes, logits.mT, population)
            pyro.sample("z", MultivariateNormal(loc, scale_tril=tril))

    def _given(
        self, voxels: Voxels, c: Tensor, modes: Mode, logits: Tensor, population: Population
    ) -> tuple[Tensor, Tensor]:
        """Mean and factor of the latent given components ``(..., N, C)``."""
        m, s = c @ population.loc, c @ population.scale_tril.diagonal(dim1=-2, dim2=-1)
        z, tril = self._quadratic_posterior(voxels, c, modes.z, m, s)
        log_share = (c * logits.log_softmax(-1)).sum(-1, keepdim=True) / 4
        shrink = tril.diagonal(dim1=-2, dim2=-1).log() - s.log()
        out = self.network(torch.cat([z, (z - m) / s, shrink, c, log_share], -1).clamp(-5, 5))
        n = self.model.n_latents
        return z + (tril @ out[..., :n, None]).squeeze(-1), tril @ tril_from(out[..., n:-1], n)

    def _quadratic_posterior(
        self, voxels: Voxels, c: Tensor, corners: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean ``(..., N, L)`` and factor under normal priors of means ``m`` and sds ``s``, differentiable in both."""
        short = voxels.short
        assert short is not None
        precision = s.square().reciprocal().diag_embed()
        with torch.no_grad():
            start = torch.einsum("...nc,cnl->...nl", c, corners)
            mode = find_mode(
                lambda u: self.model.expand_short(u, short),
                start,
                m,
                precision,
                self.steps,
            )
            information = mode.precision - precision
            # what pulls on the latent beside the prior: zero gradient at the mode
            pull = (mode.precision @ mode.z.unsqueeze(-1)) - precision @ m.unsqueeze(-1)
        tril = inverse_tril(information + precision)
        target = pull + precision @ m.unsqueeze(-1)
        return (tril @ (tril.mT @ target)).squeeze(-1), tril
