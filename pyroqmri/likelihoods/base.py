"""What every likelihood answers."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn


class Information(NamedTuple):
    """Log-likelihood of each measurement, its slope in the signal and its expected curvature, each ``(..., M)``."""

    log_prob: Tensor
    score: Tensor
    fisher: Tensor

    def weighted(self, weights: Tensor | None) -> "Information":
        """Of measurements that count ``weights`` times ``(N, M)``, once where that is None."""
        return self if weights is None else Information(*(t * weights for t in self))


class Likelihood(nn.Module):  # not ABC: Pyro cannot make a PyroModule of a class with another metaclass
    """Distribution of the measurements around the noise-free signal; owns the noise scale.

    Parameters
    ----------
    n_average
        How many measurements each entry is the mean of, ``(M,)``; None for single measurements.
    n_s0
        How many measurements gave the S0 that every voxel was divided by; None where S0 is exact or a parameter.
        Its error is averaged over (:mod:`pyroqmri.laplace.measured_s0`).
    learn
        Learn one factor on the given noise level. The factor is also the first
        alarm of a signal that does not fit: noise that grew has swallowed a misfit.
    """

    n_average: Tensor | None

    def __init__(self, n_average: Tensor | None = None, n_s0: int | None = None, learn: bool = False) -> None:
        super().__init__()
        self.n_s0 = n_s0
        self.register_buffer("n_average", n_average)
        log_factor = torch.zeros(())
        if learn:
            self.log_factor = nn.Parameter(log_factor)
        else:
            self.register_buffer("log_factor", log_factor)

    @property
    def factor(self) -> Tensor:
        """Learned over given noise level."""
        return self.log_factor.exp()

    def s0_variance(self, sigma: Tensor) -> Tensor | None:
        """Variance ``(N,)`` of the measured S0 over its square, at noise ``(N, 1)``; None where it has no error."""
        return None if self.n_s0 is None else (sigma * self.factor).square().squeeze(-1) / self.n_s0

    @abstractmethod
    def forward(self, signal: Tensor, sigma: Tensor) -> TorchDistribution:
        """Distribution of the measurements, batch ``(..., N)`` and event ``(M,)``, at given noise ``(N, 1)``."""

    @abstractmethod
    def information(self, signal: Tensor, y: Tensor, sigma: Tensor) -> Information:
        """Derivatives of the log-likelihood in the signal; what modes and curvatures are made of."""

    def constant(self, y: Tensor) -> Tensor:
        """Terms of each measurement's log-density that depend on nothing but itself, ``(..., M)``."""
        return torch.zeros_like(y)

    @abstractmethod
    def moments(self, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each measurement, each ``(..., M)``."""
