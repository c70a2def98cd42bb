"""Repeated measurements as one event."""

from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class Repeats(TorchDistribution):
    """Independent repeats of a few settings, whose log-probability is a weighted sum over a few nodes.

    The same distribution as the plain one over all measurements. The weighted
    nodes carry the moments of the repeats (:mod:`pyroqmri.measurements.repeats`), so that a
    log-probability costs a few evaluations a setting and not one a repeat.

    Parameters
    ----------
    plain
        The distribution over all measurements, event ``(M,)``; made when it is needed.
    log_prob_at
        Log-density of each node at the distribution's own parameters, ``(..., M')``.
    carry
        Nodes and weights ``(N, M')`` of measurements ``(N, M)``.
    constant
        Terms of each measurement's log-density that do not depend on the parameters, summed as they are:
        the logarithm in a Rician density is no polynomial that nodes could carry.
    known
        Measurements whose nodes and weights are known already: ``(y, nodes, weights)``.
    batch_shape, n_measurements
        Of the event.
    powers
        How often each measurement counts ``(N, M)``; once when None.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(
        self,
        plain: Callable[[], TorchDistribution],
        log_prob_at: Callable[[Tensor], Tensor],
        carry: Callable[[Tensor], tuple[Tensor, Tensor]],
        constant: Callable[[Tensor], Tensor],
        known: tuple[Tensor, Tensor, Tensor],
        batch_shape: torch.Size,
        n_measurements: int,
        powers: Tensor | None = None,
    ) -> None:
        self.powers = powers
        self.plain, self.log_prob_at, self.carry = plain, log_prob_at, carry
        self.constant, self.known = constant, known
        super().__init__(batch_shape, torch.Size([n_measurements]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        parts = (self.plain, self.log_prob_at, self.carry, self.constant, self.known)
        return Repeats(*parts, torch.Size(batch_shape), self.event_shape[0], self.powers)

    @property
    def mean(self) -> Tensor:
        return self.plain().expand(self.batch_shape).mean

    @property
    def variance(self) -> Tensor:
        return self.plain().expand(self.batch_shape).variance

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.plain().expand(self.batch_shape).sample(sample_shape)

    def nodes(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes and weights of measurements ``(..., M)``."""
        y, nodes, weights = self.known
        return (nodes, weights) if value is y else self.carry(value)

    def log_prob(self, value: Tensor) -> Tensor:
        nodes, weights = self.nodes(value)
        constant = self.constant(value) if self.powers is None else self.constant(value) * self.powers
        log_prob = ((self.log_prob_at(nodes) - self.constant(nodes)) * weights).sum(-1) + constant.sum(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))
