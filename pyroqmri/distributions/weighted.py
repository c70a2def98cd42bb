"""Measurements of a voxel that count in part."""

from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class Weighted(TorchDistribution):
    """Measurements as one event ``(M,)`` whose densities count as powers: 1 in full, 0 not at all.

    What is drawn from it are measurements as they would be; a power is no property of theirs.

    Parameters
    ----------
    plain
        The distribution of measurements that count in full, event ``(M,)``.
    each
        Log-density of each measurement ``(..., M)``.
    powers
        Of each measurement's density ``(N, M)``.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(self, plain: TorchDistribution, each: Callable[[Tensor], Tensor], powers: Tensor) -> None:
        self.plain, self.each, self.powers = plain, each, powers
        super().__init__(plain.batch_shape, plain.event_shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Weighted(self.plain.expand(torch.Size(batch_shape)), self.each, self.powers)

    @property
    def mean(self) -> Tensor:
        return self.plain.mean

    @property
    def variance(self) -> Tensor:
        return self.plain.variance

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.plain.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = (self.each(value) * self.powers).sum(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))
