"""Normal measurements of a voxel as one event."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class MeasuredNormal(TorchDistribution):
    """``Normal(loc, scale).to_event(1)`` that keeps a scale shared by a voxel's measurements at one number.

    Parameters
    ----------
    loc
        Means ``(..., M)``.
    scale
        Standard deviations, ``(..., M)`` or ``(..., 1)``.
    """

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], scale.shape[:-1])
        self.loc, self.scale = loc.expand(batch + loc.shape[-1:]), scale
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(MeasuredNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.scale = self.scale
        super(MeasuredNormal, new).__init__(batch_shape, self.event_shape, validate_args=False)  # type: ignore[arg-type]
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square().expand_as(self.loc)

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n = self.event_shape[0]
        residual = ((value - self.loc) / self.scale).square().sum(-1)
        return -residual / 2 - self._log_scale() - n / 2 * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        """Entropy ``(...)`` of the event in nats."""
        n = self.event_shape[0]
        return (self._log_scale() + n / 2 * (1 + math.log(2 * math.pi))).expand(self.batch_shape)

    def _log_scale(self) -> Tensor:
        """Sum of the measurements' log sds."""
        return self.scale.log().sum(-1) * (self.event_shape[0] / self.scale.shape[-1])
