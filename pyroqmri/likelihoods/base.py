"""What every likelihood has."""

import copy
from abc import abstractmethod
from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Independent

from pyroqmri.errors import InputError
from pyroqmri.measurements.voxels import Voxels


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

    A new likelihood writes :meth:`forward` alone, a distribution of each measurement made one event by
    ``.to_event(1)``; score, information and moments follow from it. Closed forms of them are faster.

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
    n_s0: "int | Tensor | None"
    magnitude = False  # of magnitude images: negative measurements are no data
    # log-densities so smooth in the measurement that a few nodes stand for many repeats (pyroqmri.measurements.repeats)
    smooth = False

    def __init__(self, n_average: Tensor | None = None, n_s0: int | None = None, learn: bool = False) -> None:
        super().__init__()
        self.n_s0 = n_s0
        self.register_buffer("n_average", n_average)
        log_factor = torch.zeros(())
        if learn:
            self.log_factor = nn.Parameter(log_factor)
        else:
            self.register_buffer("log_factor", log_factor)

    def of(self, voxels: Voxels) -> "Likelihood":
        """The likelihood of voxels whose entries, or S0, are means of numbers of their own; itself where none are."""
        if voxels.counts is None and voxels.s0_counts is None:
            return self
        own = copy.copy(self)  # parameters stay shared
        own._buffers = dict(self._buffers)
        if voxels.counts is not None:
            own._buffers["n_average"] = voxels.counts
        own.n_s0 = voxels.s0_counts
        return own

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

    def information(self, signal: Tensor, y: Tensor, sigma: Tensor) -> Information:
        """Derivatives of the log-likelihood in the signal; what modes and curvatures are made of.

        By automatic differentiation where a likelihood has no closed form. The information is then that of the mean,
        its squared slope over the variance: exact for Gaussian noise, at most the Fisher information for any.
        """
        y, sigma = y.expand(signal.shape), sigma.expand(*signal.shape[:-1], 1)
        keep = torch.is_grad_enabled() and (signal.requires_grad or self.log_factor.requires_grad)
        at = signal if keep and signal.requires_grad else signal.detach().requires_grad_()
        with torch.enable_grad():
            each = self._each(at, sigma)
            log_prob, mean = each.log_prob(y), each.mean
            (score,) = torch.autograd.grad(log_prob.sum(), at, create_graph=keep, retain_graph=True)
            slope = torch.ones_like(at)
            if mean is not at:
                (slope,) = torch.autograd.grad(mean.sum(), at, create_graph=keep, retain_graph=True)
            found = Information(log_prob, score, slope.square() / each.variance)
        return found if keep else Information(*(t.detach() for t in found))

    def _each(self, signal: Tensor, sigma: Tensor) -> TorchDistribution:
        """Distribution of single measurements, batch ``(..., N, M)``."""
        found = self(signal, sigma)
        if not (isinstance(found, Independent) and found.reinterpreted_batch_ndims == 1):
            raise InputError(
                f"{type(self).__name__}.forward must return independent measurements, a distribution with batch "
                f"(..., N, M) and .to_event(1), or define information and moments; it returned {type(found).__name__}"
            )
        each: TorchDistribution = found.base_dist
        if not bool(torch.isfinite(each.variance).all()):
            raise InputError(
                f"likelihood {type(self).__name__} has measurements without a finite mean and variance, from which the "
                "information is taken where there is no closed form: define information and moments"
            )
        return each

    def constant(self, y: Tensor) -> Tensor:
        """Terms of each measurement's log-density that depend on nothing but itself, ``(..., M)``."""
        return torch.zeros_like(y)

    def moments(self, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each measurement, each ``(..., M)``."""
        each = self._each(signal, sigma)
        return each.mean.expand(signal.shape), each.variance.expand(signal.shape)
