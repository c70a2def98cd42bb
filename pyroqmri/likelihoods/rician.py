"""Rician noise of magnitude images."""

import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Normal

from pyroqmri.distributions import MeasuredNormal, PartlyAveraged, Rician, i0e, rice_fisher, rice_moments
from pyroqmri.distributions.rice_pieces import information_in_pieces, moments_in_pieces, pieces_serve
from pyroqmri.likelihoods.base import Information, Likelihood


class Moments(NamedTuple):
    """Mean and variance of single measurements and the slopes of both in the signal, each ``(..., M)``."""

    mean: Tensor
    variance: Tensor
    slope: Tensor
    variance_slope: Tensor


class RicianLikelihood(Likelihood):
    """Magnitudes of complex measurements with Gaussian noise in both channels.

    A mean of several magnitudes (``n_average``) is close to normal with the mean
    and variance of the Rice distribution; a single one is exactly Rician.
    """

    magnitude = True
    smooth = True
    coils = 1.0  # of which the root of the sum of squares was taken

    def forward(self, signal, sigma):
        sigma = sigma * self.factor
        if self.n_average is None:
            return self._single(signal, sigma).to_event(1)
        mean, variance = self._average(signal, sigma)
        if not self._has_single:
            return MeasuredNormal(mean, variance.sqrt())
        normal: Any = Normal(mean, variance.sqrt(), validate_args=False)
        return PartlyAveraged(self._single(signal, sigma), normal, self._is_single)

    def moments(self, signal, sigma):
        return self._average(signal, sigma * self.factor)

    def constant(self, y):
        zero = torch.zeros_like(y)
        if self.n_average is None:
            return self._log_power(y)
        return torch.where(self._is_single, self._log_power(y), zero) if self._has_single else zero

    def information(self, signal, y, sigma):
        sigma = sigma * self.factor
        if self.n_average is None:
            return self._single_information(signal, y, sigma)
        found = self._average_information(signal, y, sigma)
        if not self._has_single:
            return found
        single, alone = self._is_single, self._single_information(signal, y.clamp_min(1e-12), sigma)
        return Information(*(torch.where(single, one, mean) for one, mean in zip(alone, found, strict=True)))

    @property
    def _is_single(self) -> Tensor:
        assert self.n_average is not None
        return self.n_average == 1

    @property
    def _has_single(self) -> bool:
        return bool(self._is_single.any())

    def _single(self, signal: Tensor, sigma: Tensor) -> TorchDistribution:
        """Distribution of single measurements, batch ``(..., M)``; a signal below zero, in a corner, is unlikely."""
        return Rician(signal, sigma, validate_args=False)

    def _log_power(self, y: Tensor) -> Tensor:
        """The term of a single measurement's log-density that is a logarithm of itself."""
        return y.log()

    def _single_moments(self, signal: Tensor, sigma: Tensor) -> Moments:
        mean, variance, slope = rice_moments(signal, sigma)
        # 2 nu - 2 mean slope cancels at high SNR, where the variance has a simple slope of its own
        a = signal / sigma
        variance_slope = torch.where(a > 6, sigma / a.clamp_min(6) ** 3, 2 * signal - 2 * mean * slope)
        return Moments(mean, variance, slope, variance_slope)

    def _single_information(self, signal: Tensor, y: Tensor, sigma: Tensor) -> Information:
        if pieces_serve(signal, y, sigma):
            return Information(*information_in_pieces(signal, y, sigma))
        x, a = y / sigma, signal / sigma
        z = x * a
        i0 = i0e(z)
        log_prob = x.log() - sigma.log() - (x - a).square() / 2 + i0.log()
        score = x * (torch.special.i1e(z) / i0) - a
        return Information(log_prob, score / sigma, rice_fisher(signal, sigma))

    def _average(self, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if self.coils == 1 and self.n_average is None and pieces_serve(signal, sigma):
            return moments_in_pieces(signal, sigma)
        found = self._single_moments(signal, sigma)
        return found.mean, found.variance if self.n_average is None else found.variance / self.n_average

    def _average_information(self, signal: Tensor, y: Tensor, sigma: Tensor) -> Information:
        assert self.n_average is not None
        mean, variance, slope, variance_slope = self._single_moments(signal, sigma)
        variance, variance_slope = variance / self.n_average, variance_slope / self.n_average
        residual = y - mean
        log_prob = -residual.square() / (2 * variance) - variance.log() / 2 - math.log(2 * math.pi) / 2
        score = residual * slope / variance + (residual.square() / variance - 1) * variance_slope / (2 * variance)
        return Information(
            log_prob, score, slope.square() / variance + variance_slope.square() / (2 * variance.square())
        )
