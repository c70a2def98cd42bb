"""The fixed prior."""

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyroqmri.priors.base import GaussianPrior, Population


class StandardNormal(GaussianPrior):
    r"""Independent standard normal latents, :math:`z \sim \mathcal N(0, I)`.

    With an identity decoder this is the uniform distribution over the box of the
    parameters' bounds; with a network decoder it is the prior of VAE-UniG.

    Source: Xu et al. 2024, arXiv:2411.10772.
    """

    loc: Tensor

    def __init__(self, n_tissue: int, n_direction: int = 0) -> None:
        super().__init__()
        self.n_tissue = n_tissue
        self.n_latents = n_tissue + n_direction
        self.register_buffer("loc", torch.zeros(self.n_latents))

    def classes(self):
        loc = self.loc
        identity = torch.eye(self.n_latents, dtype=loc.dtype, device=loc.device)
        return Population(loc.new_zeros(1), loc[None], identity[None])

    def z_dist(self, population):
        return Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
