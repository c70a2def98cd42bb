"""The Rice distribution of a magnitude image."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyroqmri.distributions.rice_math import log_i0e, rice_moments
from pyroqmri.distributions.rice_pieces import log_prob_in_pieces, pieces_serve


class Rician(TorchDistribution):
    r"""Magnitude of a complex signal with Gaussian noise of equal variance in both channels.

    .. math:: p(x \mid \nu, \sigma) = \frac{x}{\sigma^2}
        e^{-(x^2 + \nu^2) / 2\sigma^2} I_0\!\left(\frac{x \nu}{\sigma^2}\right)

    Parameters
    ----------
    nu
        Noise-free signal, not negative.
    sigma
        Standard deviation of the noise in each channel.

    Source: Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """

    arg_constraints = {"nu": constraints.nonnegative, "sigma": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, nu: Tensor, sigma: Tensor, validate_args: bool | None = None) -> None:
        self.nu, self.sigma = broadcast_all(nu, sigma)
        super().__init__(self.nu.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(Rician, _instance)
        new.nu, new.sigma = self.nu.expand(batch_shape), self.sigma.expand(batch_shape)
        super(Rician, new).__init__(torch.Size(batch_shape), validate_args=False)  # type: ignore[arg-type]
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return rice_moments(self.nu, self.sigma).mean

    @property
    def variance(self) -> Tensor:
        return rice_moments(self.nu, self.sigma).variance

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        real = self.nu + self.sigma * torch.randn(shape, dtype=self.nu.dtype, device=self.nu.device)
        imaginary = self.sigma * torch.randn(shape, dtype=self.nu.dtype, device=self.nu.device)
        return torch.hypot(real, imaginary)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if pieces_serve(self.nu, value, self.sigma):
            return log_prob_in_pieces(self.nu, value, self.sigma)
        # (x - nu)^2 is small where x^2 and nu^2, or x and nu over sigma, alone would swallow the digits
        x = value / self.sigma
        residual = (value - self.nu) / self.sigma
        return x.log() - self.sigma.log() - residual.square() / 2 + log_i0e(x * (self.nu / self.sigma))
