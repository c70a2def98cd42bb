"""The non-central chi distribution of a root of a sum of squares over coils."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyroqmri.distributions.ncchi_math import log_g, log_norm, ncchi_moments


class NCChi(TorchDistribution):
    r"""Root of the sum of squares of L complex channels with independent Gaussian noise of equal variance.

    .. math:: p(x \mid \nu, \sigma) = \frac{x}{\sigma^2} \left(\frac{x}{\nu}\right)^{L-1}
        e^{-(x^2 + \nu^2) / 2\sigma^2} I_{L-1}\!\left(\frac{x \nu}{\sigma^2}\right)

    Parameters
    ----------
    nu
        Noise-free signal, not negative: the root of the sum of squares of the channels' own.
    sigma
        Standard deviation of the noise in the real and in the imaginary part of each channel.
    coils
        L, the number of channels; correlated ones count as fewer, so that it need not be whole. One is Rician.

    Source: Constantinides et al. 1997, doi:10.1002/mrm.1910380524.
    """

    arg_constraints = {"nu": constraints.nonnegative, "sigma": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, nu: Tensor, sigma: Tensor, coils: float, validate_args: bool | None = None) -> None:
        self.nu, self.sigma = broadcast_all(nu, sigma)
        self.coils = coils
        super().__init__(self.nu.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(NCChi, _instance)
        new.nu, new.sigma, new.coils = self.nu.expand(batch_shape), self.sigma.expand(batch_shape), self.coils
        super(NCChi, new).__init__(torch.Size(batch_shape), validate_args=False)  # type: ignore[arg-type]
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return ncchi_moments(self.nu, self.sigma, self.coils).mean

    @property
    def variance(self) -> Tensor:
        return ncchi_moments(self.nu, self.sigma, self.coils).variance

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        along = self.nu + self.sigma * torch.randn(shape, dtype=self.nu.dtype, device=self.nu.device)
        half = torch.full(shape, self.coils - 0.5, dtype=self.nu.dtype, device=self.nu.device)
        across = self.sigma * torch.sqrt(2 * torch._standard_gamma(half))  # of the other 2 L - 1 parts
        return torch.hypot(along, across)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # (x - nu)^2 is small where x^2 and nu^2, or x and nu over sigma, alone would swallow the digits
        x = value / self.sigma
        residual = (value - self.nu) / self.sigma
        shape = (2 * self.coils - 1) * x.log() - log_norm(self.coils)
        return shape - self.sigma.log() - residual.square() / 2 + log_g(x * (self.nu / self.sigma), self.coils)
