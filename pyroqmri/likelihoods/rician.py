"""Rician noise of magnitude images."""

import math

import torch
from torch import Tensor

from pyroqmri.distributions import MeasuredNormal, Rician, i0e, rice_fisher, rice_moments
from pyroqmri.likelihoods.base import Information, Likelihood


class RicianLikelihood(Likelihood):
    """Magnitudes of complex measurements with Gaussian noise in both channels.

    A mean of several magnitudes (``n_average``) is close to normal with the mean
    and variance of the Rice distribution; a single one is exactly Rician.
    """

    magnitude = True
    smooth = True

    def forward(self, signal, sigma):
        sigma = sigma * self.factor
        if self.n_average is None:
            return Rician(signal, sigma).to_event(1)
        mean, variance = self._average(signal, sigma)
        return MeasuredNormal(mean, variance.sqrt())

    @property
    def _n(self) -> Tensor | float:
        return 1.0 if self.n_average is None else self.n_average

    def _average(self, signal, sigma):
        found = rice_moments(signal, sigma)
        return found.mean, found.variance / self._n

    def moments(self, signal, sigma):
        sigma = sigma * self.factor
        return self._average(signal, sigma)

    def constant(self, y):
        return y.log() if self.n_average is None else torch.zeros_like(y)

    def information(self, signal, y, sigma):
        sigma = sigma * self.factor
        if self.n_average is not None:
            return self._average_information(signal, y, sigma)
        x, a = y / sigma, signal / sigma
        z = x * a
        i0 = i0e(z)
        log_prob = x.log() - sigma.log() - (x - a).square() / 2 + i0.log()
        score = x * (torch.special.i1e(z) / i0) - a
        return Information(log_prob, score / sigma, rice_fisher(signal, sigma))

    def _average_information(self, signal, y, sigma):
        mean, variance, slope = rice_moments(signal, sigma)
        variance, a = variance / self._n, signal / sigma
        # 2 nu - 2 mean slope cancels at high SNR, where the variance has a simple slope of its own
        variance_slope = (2 * signal - 2 * mean * slope) / self._n
        variance_slope = torch.where(a > 6, sigma / a.clamp_min(6) ** 3 / self._n, variance_slope)
        residual = y - mean
        log_prob = -residual.square() / (2 * variance) - variance.log() / 2 - math.log(2 * math.pi) / 2
        score = residual * slope / variance + (residual.square() / variance - 1) * variance_slope / (2 * variance)
        return Information(
            log_prob, score, slope.square() / variance + variance_slope.square() / (2 * variance.square())
        )
