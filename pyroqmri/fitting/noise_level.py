"""The noise level a fit uses, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.laplace.start import mode_under_prior
from pyroqmri.likelihoods import GaussianLikelihood
from pyroqmri.measurements.arguments import as_level
from pyroqmri.measurements.noise import (
    NoiseEstimate,
    NoiseLevel,
    disagree,
    disagreement,
    estimate_sigma,
)
from pyroqmri.measurements.preparation import Preparation, prepare_for
from pyroqmri.measurements.scatter import variance_ratio
from pyroqmri.signals import BoundSignal

_RESIDUAL_VOXELS = 2000
_COMPARED_VOXELS = 300
_REACH = 60.0  # of a latent: how far a search may go towards a bound; tried on simulations
_RESIDUAL_NOTE = "residuals of least squares, pooled over voxels"


def noise_level(
    y: Tensor,
    acq: Acquisition,
    sigma: Any,
    preparation: Preparation,
    signal: BoundSignal,
    inputs: Mapping[str, Tensor] | None = None,
) -> NoiseLevel:
    """Noise level from what the caller said: a value, one a voxel, or None, "estimate", "learn".

    Raises
    ------
    InputError
        When a given value, or every one of a map's, is not above zero, or the word is unknown.
    """
    if isinstance(sigma, NoiseLevel) and not sigma.provisional:
        return sigma
    if sigma is None or isinstance(sigma, str | NoiseLevel):
        if isinstance(sigma, str) and sigma not in ("estimate", "learn"):
            raise InputError(f"sigma must be a number above zero, one per voxel, 'estimate' or 'learn', got {sigma!r}")
        found = sigma if isinstance(sigma, NoiseLevel) else _estimate(y, acq, preparation.coils)
        return _compared(found, Residual(y, acq, preparation, signal, inputs or {}))
    level = as_level(sigma, len(y))
    if level.dim() == 0:
        return NoiseLevel(float(level), "given", "the noise level was given")
    # voxels without a noise level are not fitted
    return NoiseLevel(level, "given", "a noise map was given; the number is its median")


def provisional(found: NoiseEstimate) -> NoiseLevel:
    """An estimate from the scan alone, still to be compared with the residuals of a signal."""
    return NoiseLevel(found.sigma, found.method, found.note, found.warnings, provisional=True)


def _estimate(y: Tensor, acq: Acquisition, coils: float) -> NoiseLevel | None:
    try:
        return provisional(estimate_sigma(y.numpy(), acq, coils=coils))
    except InputError:
        return None


def _compared(found: NoiseLevel | None, residual: "Residual") -> NoiseLevel:
    """The scan's own estimate beside the residuals, or the residuals where there is none."""
    if found is None:
        sigma = residual.sigma(_RESIDUAL_VOXELS)
        if sigma is None:
            raise InputError(residual.shortage)
        return NoiseLevel(sigma, "residual", _RESIDUAL_NOTE)
    found = replace(found, provisional=False)
    # means over directions leave the signal's misfit, magnified, and no noise
    other = None if residual.preparation.average else residual.sigma(_COMPARED_VOXELS)
    if other is None or not disagree(found.sigma, other):
        return found
    if found.method == "background" or (found.method == "b0" and other < found.sigma):
        more = residual.sigma(_RESIDUAL_VOXELS)
        other = other if more is None else more
        said = disagreement(other, "residual", found.sigma, found.method)
        return NoiseLevel(other, "residual", f"{_RESIDUAL_NOTE}; not {found.note}", (*found.warnings, said))
    said = disagreement(found.sigma, found.method, other, "residual")
    return replace(found, warnings=(*found.warnings, said))


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

    @torch.no_grad()
    def sigma(self, n_voxels: int) -> float | None:
        """The noise level, pooled over at most ``n_voxels`` voxels; None without a degree of freedom or a voxel."""
        some = torch.arange(0, len(self.y), max(1, len(self.y) // n_voxels))
        some = some[bright(self.y[some])]
        y, inputs = self.y[some], {name: value[some] for name, value in self.inputs.items()}
        preparation, signal = self._seen(y)
        n_free = len(signal.acquisition) - signal.n_latents
        if n_free < 1:
            return None
        batch = preparation(y, torch.tensor(1e-6), self.acq, inputs)
        if len(batch.voxels) == 0:
            return None
        counts = preparation.seen(self.acq).n_average
        counts = torch.ones(len(signal.acquisition)) if counts is None else counts
        voxels = replace(batch.voxels, weights=counts.expand_as(batch.voxels.y))
        weak = 1e-3 * torch.eye(signal.n_latents)
        # a noise level for the search alone, which must not be lost in the weak prior
        voxels = replace(voxels, sigma=0.02 * voxels.y.amax(-1, keepdim=True).clamp_min(1e-6))
        mode, frame = mode_under_prior(voxels, signal, GaussianLikelihood(), weak, 30)
        fitted = signal(signal.constrain(mode.z, frame), voxels.inputs)
        left = ((voxels.y - fitted).square() * counts).sum(-1)
        # squared slopes of the signal in units of what a parameter may vary by
        slopes = torch.linalg.eigvalsh(mode.precision - weak).clamp_min(0) * (_REACH * voxels.noise).square()
        signed = not preparation.magnitude or bool((y < 0).float().mean() > 0.05)
        found = _pooled(left.numpy(), fitted.numpy(), slopes.numpy(), None if signed else preparation.coils)
        return found * float(batch.reference[0])


def bright(y: Tensor) -> Tensor:
    """Mask ``(N,)`` of the voxels that have a signal; in air noise has no level of its own."""
    mean = torch.where(torch.isfinite(y).all(-1), y.abs().mean(-1), 0)
    return mean > 0.3 * mean.quantile(0.9)


def _pooled(left: np.ndarray, fitted: np.ndarray, slopes: np.ndarray, coils: float | None) -> float:
    """Noise level from residual sums of squares ``(N,)`` around ``fitted`` (N, M), squared slopes ``(N, L)``.

    Without ``coils`` measurements keep their sign.
    A parameter that moves the signal by less than the noise follows no noise, and takes no degree of freedom.
    """
    m = fitted.shape[1]
    sigma = float(np.sqrt(np.median(left) / m))
    for _ in range(0 if sigma == 0 else 100):
        free = m - (slopes / (slopes + sigma**2)).sum(1)
        expected = chi2.median(free) * (1.0 if coils is None else variance_ratio(fitted / sigma, coils).mean(1))
        new = float(np.sqrt(np.median(left / expected)))  # a median, so that misfitted voxels do not count
        if abs(new - sigma) < 1e-4 * sigma:
            break
        sigma = new
    return sigma
