"""Distributions of the measurements around the signal."""

from pyroqmri.likelihoods.base import Information, Likelihood
from pyroqmri.likelihoods.gaussian import GaussianLikelihood
from pyroqmri.likelihoods.rician import RicianLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {"gaussian": GaussianLikelihood, "rician": RicianLikelihood}

__all__ = ["LIKELIHOODS", "GaussianLikelihood", "Information", "Likelihood", "RicianLikelihood"]
