"""Gaussian noise."""

import math

from torch import Tensor

from pyroqmri.distributions import MeasuredNormal
from pyroqmri.likelihoods.base import Information, Likelihood


class GaussianLikelihood(Likelihood):
    """Measurements with additive Gaussian noise; right for signed data and for magnitudes at high SNR."""

    smooth = True

    def _scale(self, sigma: Tensor) -> Tensor:
        scale = sigma * self.factor
        return scale if self.n_average is None else scale / self.n_average.sqrt()

    def forward(self, signal, sigma):
        return MeasuredNormal(signal, self._scale(sigma))

    def information(self, signal, y, sigma):
        scale = self._scale(sigma)
        residual = (y - signal) / scale
        log_prob = -residual.square() / 2 - scale.log() - math.log(2 * math.pi) / 2
        return Information(log_prob, residual / scale, scale.square().reciprocal().expand_as(signal))

    def moments(self, signal, sigma):
        return signal, self._scale(sigma).square().expand_as(signal)
