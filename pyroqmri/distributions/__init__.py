"""Probability distributions that Pyro does not have."""

from pyroqmri.distributions.exp_relaxed import ExpRelaxed
from pyroqmri.distributions.gaussian_mixture import GaussianMixture, normal_points
from pyroqmri.distributions.measured_normal import MeasuredNormal
from pyroqmri.distributions.ncchi import NCChi
from pyroqmri.distributions.ncchi_math import log_g, log_g_and_slope, log_norm, ncchi_fisher, ncchi_moments
from pyroqmri.distributions.partly_averaged import PartlyAveraged
from pyroqmri.distributions.repeats import Repeats
from pyroqmri.distributions.rice_math import bessel_ratio_minus_one, i0e, log_i0e, rice_fisher, rice_moments
from pyroqmri.distributions.rician import Rician
from pyroqmri.distributions.shared_scale import SharedScale
from pyroqmri.distributions.weighted import Weighted

__all__ = [
    "ExpRelaxed",
    "GaussianMixture",
    "MeasuredNormal",
    "NCChi",
    "PartlyAveraged",
    "Repeats",
    "Rician",
    "SharedScale",
    "Weighted",
    "bessel_ratio_minus_one",
    "i0e",
    "log_g",
    "log_g_and_slope",
    "log_i0e",
    "log_norm",
    "ncchi_fisher",
    "ncchi_moments",
    "normal_points",
    "rice_fisher",
    "rice_moments",
]
