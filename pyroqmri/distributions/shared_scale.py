"""Measurements of a voxel that share an error of scale."""

from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class SharedScale(TorchDistribution):
    """Measurements around a signal times a factor that is normal around one, and averaged over.

    Parameters
    ----------
    at
        Distribution of the measurements ``(..., M)`` at factors ``(..., 1)``.
    log_prob_of
        Log-density of measurements with the factor averaged over, ``(...)``.
    sd
        Of the factor, broadcast against the batch.
    batch_shape, n_measurements
        Of the event.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(
        self,
        at: Callable[[Tensor], TorchDistribution],
        log_prob_of: Callable[[Tensor], Tensor],
        sd: Tensor,
        batch_shape: torch.Size,
        n_measurements: int,
    ) -> None:
        self.at, self.log_prob_of, self.sd = at, log_prob_of, sd
        super().__init__(batch_shape, torch.Size([n_measurements]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return SharedScale(self.at, self.log_prob_of, self.sd, torch.Size(batch_shape), self.event_shape[0])

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            factor = 1 + self.sd * torch.randn(shape, dtype=self.sd.dtype, device=self.sd.device)
            # a ratio of levels is positive, and a magnitude has no sign; a normal one passes zero where S0 is all noise
            return self.at(factor.abs().unsqueeze(-1)).sample()

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = self.log_prob_of(value)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))
