"""Posteriors averaged over the populations that voxels leave possible."""

from functools import cached_property

from pyro.distributions import TorchDistribution

from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides.over_population import over_population
from pyroqmri.posterior.sampled import Plain, Sampled
from pyroqmri.priors import Population, Prior


class PopulationAverage:
    """What a prior's posterior populations make of a voxel's posterior, and of the prior itself."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    @cached_property
    def _populations(self) -> list[Population]:
        return self.prior.populations()

    @cached_property
    def predictive(self) -> Population:
        """Classes that a voxel's latent has before it is measured."""
        return self.prior.predictive()

    def __call__(self, q: TorchDistribution) -> Plain:
        """The guide's posterior, widened by the error of the population; draws of any other kind as they are."""
        if isinstance(q, GaussianMixture):
            return over_population(q, self.prior.classes(), self._populations)
        return Sampled(q)
