"""Measurements of a voxel of which some are means of several and others single."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class PartlyAveraged(TorchDistribution):
    """Measurements as one event ``(M,)``: single ones with their exact density, means of several with another.

    Parameters
    ----------
    single, mean
        Distributions of every measurement, batch ``(..., M)``: as if it were single, and as the mean that it is.
    is_single
        Which of the two each one has, ``(M,)`` bool.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, single: TorchDistribution, mean: TorchDistribution, is_single: Tensor, validate_args: bool | None = None
    ) -> None:
        self.single, self.averaged, self.is_single = single, mean, is_single
        super().__init__(single.batch_shape[:-1], single.batch_shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(PartlyAveraged, _instance)
        whole = torch.Size(batch_shape) + self.event_shape
        new.single, new.averaged, new.is_single = self.single.expand(whole), self.averaged.expand(whole), self.is_single
        super(PartlyAveraged, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)  # type: ignore[arg-type]
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return torch.where(self.is_single, self.single.mean, self.averaged.mean)

    @property
    def variance(self) -> Tensor:
        return torch.where(self.is_single, self.single.variance, self.averaged.variance)

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        return torch.where(self.is_single, self.single.rsample(sample_shape), self.averaged.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # what is no single magnitude may be below zero, where the other density has no slope
        magnitude = torch.where(self.is_single, value, torch.ones_like(value))
        each = torch.where(self.is_single, self.single.log_prob(magnitude), self.averaged.log_prob(value))
        return each.sum(-1)
