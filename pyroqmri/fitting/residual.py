"""What least squares of a signal leaves, and the noise level that it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.laplace.start import mode_under_prior
from pyroqmri.likelihoods import GaussianLikelihood
from pyroqmri.measurements.own_protocol import counting
from pyroqmri.measurements.preparation import Preparation, prepare_for
from pyroqmri.measurements.scatter import Scatter, variance_ratio
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import BoundSignal
from pyroqmri.voxelwise.log_linear import has_closed_form, weighted_fit

_FEWEST_DIM, _LOOKED_AT = 20, 5000  # voxels
_NEAR = 3.0  # of a latent: where a search starts, not at a bound
_REACH = 60.0  # of a latent: how far a search may go towards a bound; tried on simulations


@dataclass(frozen=True)
class Residual:
    """What least squares of a signal leaves, S0 free unless it is known."""

    y: Tensor
    acq: Acquisition
    preparation: Preparation
    signal: BoundSignal
    inputs: Mapping[str, Tensor]

    @property
    def shortage(self) -> str:
        """Why there is no estimate."""
        n, p = len(self._seen(self.y)[1].acquisition), self._seen(self.y)[1].n_latents
        return (
            f"the noise level cannot be estimated: {n} measurements for {p} parameters and no repeats; "
            "give it with --sigma VALUE (sigma=VALUE in Python)"
        )

    def _seen(self, y: Tensor) -> tuple[Preparation, BoundSignal]:
        mine, bound = self.preparation, self.signal
        if mine.s0 != "measured":
            return mine, bound
        # the error of a measured S0 would be in every residual
        average = "shells" if mine.average else "volumes"
        free = prepare_for(bound.signal, self.acq, y, s0="inferred", average=average, magnitude=mine.magnitude)
        free = replace(free, shortest_te=mine.shortest_te, coils=mine.coils)
        seen = free.seen(self.acq).acquisition
        return free, BoundSignal(bound.signal, seen, bound.fixed, bound.tied, True, bound.ranges)

    def sigma(self, n_voxels: int) -> float | None:
        """The noise level, pooled over at most ``n_voxels`` voxels; None without a degree of freedom or a voxel."""
        found = self._left(n_voxels)
        return None if found is None else found.sigma() * found.scale

    def dim_sigma(self, n_voxels: int) -> float | None:
        """The noise level of voxels that :func:`bright` leaves out; None as for :meth:`sigma`, or of few voxels."""
        some = torch.arange(0, len(self.y), max(1, len(self.y) // _LOOKED_AT))
        y = self._counted(some)
        dim = some[torch.isfinite(y).all(-1) & ~bright(y) & (y != 0).any(-1)]
        if len(dim) < _FEWEST_DIM:
            return None
        found = self._of(dim[:: max(1, len(dim) // n_voxels)])
        return None if found is None else found.sigma() * found.scale

    def scatter(self, n_voxels: int) -> tuple[Tensor, Scatter] | None:
        """Which of the voxels, at most ``n_voxels``, and their scatter; None as for :meth:`sigma`."""
        found = self._left(n_voxels)
        return None if found is None else (found.rows, found.scatter())

    def _left(self, n_voxels: int) -> "_Left | None":
        some = torch.arange(0, len(self.y), max(1, len(self.y) // n_voxels))
        return self._of(some[bright(self._counted(some))])

    def _counted(self, some: Tensor) -> Tensor:
        """Measurements of the voxels ``some`` (n,), without those that are not to count."""
        return counting(self.y[some], {name: value[some] for name, value in self.inputs.items()})

    @torch.no_grad()
    def _of(self, some: Tensor) -> "_Left | None":
        """What is left in the voxels of indices ``some`` (n,)."""
        y, inputs = self.y[some], {name: value[some] for name, value in self.inputs.items()}
        preparation, signal = self._seen(y)
        if len(signal.acquisition) - signal.n_latents < 1:
            return None
        batch = preparation(y, torch.tensor(1e-6), self.acq, inputs)
        if len(batch.voxels) == 0:
            return None
        counts = preparation.seen(self.acq).n_average
        counts = torch.ones(len(signal.acquisition)) if counts is None else counts
        own = batch.voxels.counts
        many = (counts if own is None else own).expand_as(batch.voxels.y)
        many = many if batch.voxels.weights is None else many * batch.voxels.weights
        voxels = replace(batch.voxels, weights=many, counts=None, s0_counts=None)
        weak = 1e-3 * torch.eye(signal.n_latents)
        # a noise level for the search alone, which must not be lost in the weak prior
        voxels = replace(voxels, sigma=0.02 * voxels.y.amax(-1, keepdim=True).clamp_min(1e-6))
        mode, frame = mode_under_prior(voxels, signal, GaussianLikelihood(), weak, 30, _closed_form(signal, voxels))
        fitted = signal(signal.constrain(mode.z, frame), voxels.inputs)
        left = ((voxels.y - fitted).square() * many).sum(-1)
        # squared slopes of the signal in units of what a parameter may vary by
        slopes = torch.linalg.eigvalsh(mode.precision - weak).clamp_min(0) * (_REACH * voxels.noise).square()
        signed = not preparation.magnitude or bool((y < 0).float().mean() > 0.05)
        coils = None if signed else preparation.coils
        n = torch.as_tensor(batch.voxels.n_counted).expand(len(left)).numpy()
        rows, scale = some[batch.index], float(batch.reference[0])
        return _Left(rows, left.numpy(), n, fitted.numpy(), slopes.numpy(), coils, scale)


@dataclass(frozen=True)
class _Left:
    """Residual sums of squares ``(n,)`` of some ``rows`` around ``fitted`` (n, M), and squared slopes ``(n, L)``.

    ``counted`` ``(n,)`` are how many of the M count. In units of ``scale``; without ``coils`` measurements keep their
    sign. A parameter that moves the signal by less than the noise follows no noise, and takes no degree of freedom.
    """

    rows: Tensor
    left: np.ndarray
    counted: np.ndarray
    fitted: np.ndarray
    slopes: np.ndarray
    coils: float | None
    scale: float

    def sigma(self) -> float:
        sigma = float(np.sqrt(np.median(self.left / self.counted)))
        for _ in range(0 if sigma == 0 else 100):
            expected = chi2.median(self._free(sigma).clip(0.1)) * self._ratio(np.asarray(sigma))
            new = float(np.sqrt(np.median(self.left / expected)))  # a median, so that misfitted voxels do not count
            if abs(new - sigma) < 1e-4 * sigma:
                break
            sigma = new
        return sigma

    def scatter(self) -> Scatter:
        def ratio(sigma: np.ndarray) -> np.ndarray:
            return self._ratio(sigma / self.scale)

        left = self.left * self.scale**2
        return Scatter(left, self._free(self.sigma()), None if self.coils is None else ratio)

    def _free(self, sigma: float) -> np.ndarray:
        return self.counted - (self.slopes / (self.slopes + sigma**2)).sum(1)

    def _ratio(self, sigma: np.ndarray) -> np.ndarray:
        if self.coils is None:
            return np.ones(len(self.left))
        return variance_ratio(self.fitted / np.reshape(sigma, (-1, 1)), self.coils).mean(1)


def _closed_form(signal: BoundSignal, voxels: Voxels) -> Tensor | None:
    """Latents ``(n, L)`` of a regression of the logarithm, near least squares; None for signals without one."""
    if not has_closed_form(signal):
        return None
    found = signal.unconstrain(weighted_fit(signal, voxels, None))
    return found.nan_to_num(0.0).clamp(-_NEAR, _NEAR)


def bright(y: Tensor) -> Tensor:
    """Mask ``(N,)`` of the voxels that have a signal; in air noise has no level of its own."""
    mean = torch.where(torch.isfinite(y).all(-1), y.abs().mean(-1), 0)
    return mean > 0.3 * mean.quantile(0.9)
