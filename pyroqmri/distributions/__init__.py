"""Probability distributions that Pyro does not have."""

from pyroqmri.distributions.rice_math import log_i0e, rice_fisher, rice_mean, rice_variance
from pyroqmri.distributions.rician import Rician

__all__ = ["Rician", "log_i0e", "rice_fisher", "rice_mean", "rice_variance"]
