"""Distributions of the measurements around the signal."""

from pyroqmri.likelihoods.base import Information, Likelihood
from pyroqmri.likelihoods.gaussian import GaussianLikelihood
from pyroqmri.likelihoods.ncchi import NCChiLikelihood
from pyroqmri.likelihoods.rician import RicianLikelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "rician": RicianLikelihood,
    "ncchi": NCChiLikelihood,
}

__all__ = ["LIKELIHOODS", "GaussianLikelihood", "Information", "Likelihood", "NCChiLikelihood", "RicianLikelihood"]
