"""Probability distributions that Pyro does not have."""

from pyroqmri.distributions.exp_relaxed import ExpRelaxed
from pyroqmri.distributions.gaussian_mixture import GaussianMixture, normal_points
from pyroqmri.distributions.measured_normal import MeasuredNormal
from pyroqmri.distributions.repeats import Repeats
from pyroqmri.distributions.rice_math import bessel_ratio_minus_one, i0e, log_i0e, rice_fisher, rice_moments
from pyroqmri.distributions.rician import Rician
from pyroqmri.distributions.shared_scale import SharedScale

__all__ = [
    "ExpRelaxed",
    "GaussianMixture",
    "MeasuredNormal",
    "Repeats",
    "Rician",
    "SharedScale",
    "bessel_ratio_minus_one",
    "i0e",
    "log_i0e",
    "normal_points",
    "rice_fisher",
    "rice_moments",
]
