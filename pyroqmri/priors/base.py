"""What every prior answers."""

from abc import abstractmethod
from typing import NamedTuple

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn


class Population(NamedTuple):
    """Classes of tissue: log weights ``(C,)``, means ``(C, L)`` and Cholesky factors ``(C, L, L)`` over the latents."""

    log_weights: Tensor
    loc: Tensor
    scale_tril: Tensor


class Prior(nn.Module):  # not ABC: Pyro cannot make a PyroModule of a class with another metaclass
    """Distribution of a voxel's latent before its measurements are seen.

    Latents of a direction come last and are always standard normal, which is
    uniform over axes. A prior says which ELBO it needs.
    """

    n_tissue: int
    n_latents: int
    n_given = 0  # classes that are known beforehand; they come last
    follows_draws = False  # the population has a posterior, which a guide has to draw from

    @abstractmethod
    def classes(self) -> Population:
        """What all voxels share, at its current values; plain tensors, for guides."""

    def population(self) -> Population:
        """The same as the Pyro program states it, hyperpriors included; called once, outside the plate."""
        return self.classes()

    def draw(self) -> Population:
        """The guide's half of :meth:`population`: a population drawn from its posterior, where it has one."""
        return self.classes()

    @abstractmethod
    def forward(self, population: Population) -> Tensor:
        """Sample the latents ``(N, L)`` inside the plate."""

    @torch.no_grad()
    def start(self, modes: Tensor) -> None:
        """Start from modes of the tissue latents ``(N, P)``; a fixed prior has nothing to do."""

    def anneal(self, share: float) -> None:
        """What changes with the share of the training that is done; most priors have nothing."""

    def update(self, weights: Tensor, loc: Tensor, covariance: Tensor) -> None:
        """Set the tissue part of the population, ``(C,)``, ``(C, P)``, ``(C, P, P)``; a fixed prior stays as it is."""

    def elbo(self, n_particles: int = 1) -> ELBO:
        """The objective this prior is trained by."""
        return Trace_ELBO(num_particles=n_particles)


class GaussianPrior(Prior):
    """A prior with one class: a multivariate normal over the latents."""

    def z_dist(self, population: Population) -> pyro.distributions.TorchDistribution:
        """Distribution of a latent, event ``(L,)``."""
        return pyro.distributions.MultivariateNormal(population.loc[0], scale_tril=population.scale_tril[0])

    def forward(self, population):
        return pyro.sample("z", self.z_dist(population))
