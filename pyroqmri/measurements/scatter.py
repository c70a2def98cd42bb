"""What is left of voxels' measurements around their outline, and the noise level that it gives."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2

from pyroqmri.acquisition import Acquisition
from pyroqmri.distributions.ncchi_math import ncchi_moments
from pyroqmri.measurements.noise_groups import Group


@dataclass(frozen=True)
class Scatter:
    """What n voxels' noise is measured on.

    Attributes
    ----------
    left
        Residual sums of squares ``(n,)``, in the scan's units squared, those of means times their averages.
    dof
        Their degrees of freedom ``(n,)``.
    ratio
        Expected square of a residual over sigma^2, ``(n,)``, at noise levels ``(n,)`` or one: below 1 where signals
        are weak; None for measurements that keep their sign.
    """

    left: np.ndarray
    dof: np.ndarray
    ratio: Callable[[np.ndarray], np.ndarray] | None = None

    def expected(self, sigma: np.ndarray) -> np.ndarray:
        """Expected residual sums of squares over sigma^2, ``(n,)``, at noise levels ``(n,)`` or one ``()``."""
        return self.dof if self.ratio is None else self.dof * self.ratio(np.asarray(sigma))

    def of(self, some: np.ndarray) -> "Scatter":
        """Those of the voxels in a mask ``(n,)``."""
        whole = self.ratio

        def ratio(sigma: np.ndarray) -> np.ndarray:
            assert whole is not None
            every = np.ones(len(some))
            every[some] = sigma
            return whole(every)[some]

        return Scatter(self.left[some], self.dof[some], None if whole is None else ratio)

    def sigma(self) -> float:
        """The level of the median voxel, which shrugs off pulsation and movement."""
        if bool((self.dof < 1).any()):
            return self.of(self.dof >= 1).sigma()
        kinds, kind = np.unique(self.dof, return_inverse=True)
        to_mean = (chi2.median(kinds) / kinds)[kind]
        sigma = float(np.sqrt(np.median(self.left / self.dof / to_mean)))
        for _ in range(0 if self.ratio is None or sigma == 0 else 50):
            new = float(np.sqrt(np.median(self.left / self.expected(np.asarray(sigma)) / to_mean)))
            if abs(new - sigma) < 1e-4 * sigma:  # a fraction of what is known of it
                break
            sigma = new
        return sigma


def group_scatter(y: np.ndarray, group: Group, coils: float | None, averages: np.ndarray) -> Scatter:
    """The scatter of measurements ``(N, M)`` within one group of volumes.

    Parameters
    ----------
    coils
        Channels whose sum of squares a magnitude is the root of; None for measurements that keep their sign.
    averages
        How many magnitudes each measurement is the mean of ``(M,)``; the noise is that of one.
    """
    # torch's products, which keep to the threads that torch may use
    y, basis = y.take(group.volumes, 1), torch.from_numpy(group.basis)
    weights = torch.from_numpy(y) @ basis
    lost: np.ndarray | float = 0.0
    if bool(weights.isnan().any()):
        lost = _fill_lost(y, basis)
        weights = torch.from_numpy(y) @ basis
    y -= (weights @ basis.mT).numpy()
    left = np.square(y, out=y) @ averages[group.volumes]
    dof = np.maximum(np.full(len(y), float(group.dof)) - lost, 0.0)
    if coils is None:
        return Scatter(left, dof)
    outline = (weights[:, : group.n_smooth] @ basis[:, : group.n_smooth].mT).numpy()
    freedom = 1 - np.square(group.basis).sum(1)
    law: float = coils

    def ratio(sigma: np.ndarray) -> np.ndarray:
        return variance_ratio(outline / np.reshape(sigma, (-1, 1)), law) @ freedom / group.dof

    return Scatter(left, dof, ratio)


def _fill_lost(y: np.ndarray, basis: torch.Tensor) -> np.ndarray:
    """Replace what is NaN of measurements ``(N, n)`` by what the others predict; how many those were ``(N,)``."""
    lost = np.isnan(y)
    rows = np.flatnonzero(lost.any(1))
    some, gone = torch.from_numpy(y[rows]), torch.from_numpy(lost[rows])
    some = torch.where(gone, some.nanmean(-1, keepdim=True).nan_to_num(0.0), some)
    for _ in range(_FILLED):  # to where nothing is left of them: the fit of the others
        some = torch.where(gone, (some @ basis) @ basis.mT, some)
    y[rows] = some.numpy()
    return lost.sum(1).astype(float)


def with_signal(y: np.ndarray, partial: bool) -> np.ndarray:
    """Mask ``(N,)`` of voxels with finite measurements and a signal; ``partial``: most of which are not NaN."""
    if not partial:
        return np.isfinite(y).all(1) & (y.mean(1, dtype=np.float64) > 0)
    lost = np.isnan(y)
    kept = np.where(lost, 0.0, y)
    return np.isfinite(kept).all(1) & (lost.mean(1) < _LOST) & (kept.mean(1, dtype=np.float64) > 0)


def scatters(y: np.ndarray, groups: Sequence[Group], acquisition: Acquisition, coils: float) -> list[Scatter]:
    """The scatter of magnitudes, or measurements that keep their sign, ``(N, M)`` within each group."""
    law = None if (y < 0).mean() > 0.05 else coils
    averages = acquisition.n_averages.double().numpy()
    return [group_scatter(y, group, law, averages) for group in groups]


def lowest(parts: Sequence[Scatter]) -> tuple[np.ndarray, np.ndarray]:
    """The noise level of each group, and which of them are right.

    An outline that misses signal can only add to the residuals, so the lowest are.
    """
    sigmas = np.array([part.sigma() for part in parts])
    slack = np.array([2 / np.sqrt(part.dof.sum()) for part in parts])
    return sigmas, sigmas <= (1.05 + slack) * sigmas.min()


def pooled(parts: Sequence[Scatter]) -> Scatter:
    """The scatter of the same voxels in several groups of volumes."""
    left, dof = (np.sum([getattr(p, what) for p in parts], 0) for what in ("left", "dof"))
    if any(p.ratio is None for p in parts):
        return Scatter(left, dof)
    return Scatter(left, dof, lambda sigma: sum(p.expected(sigma) for p in parts) / dof)


_FILLED, _LOST = 40, 0.3  # rounds; share of a voxel's measurements
_FINE, _BRIGHT = 200, 40.0  # entries of a table a unit of mean over sigma, and where it ends
_CACHED = 2**16  # values at once, which stay in a core's cache


@functools.cache
def _variances(coils: float) -> np.ndarray:
    """Variance over sigma^2 of magnitudes whose mean over sigma lies on an even grid from 0 on."""
    brightest = _BRIGHT + math.sqrt(2 * coils)
    snr = torch.linspace(0, brightest, round(_FINE * brightest), dtype=torch.float64)
    found = ncchi_moments(snr, torch.ones_like(snr), coils)
    grid = np.arange(round(_FINE * brightest)) / _FINE
    return np.interp(grid, found.mean.numpy(), found.variance.numpy())


def variance_ratio(mean: np.ndarray, coils: float = 1.0) -> np.ndarray:
    """Variance over sigma^2 of magnitudes of any shape with this mean over sigma; 0.43 in air, 1 in bright tissue."""
    table, flat = _variances(coils), np.ravel(mean)
    steps, found = np.diff(table), np.empty_like(flat)
    for i in range(0, len(flat), _CACHED):
        place = np.clip(flat[i : i + _CACHED] * _FINE, 0, len(table) - 1.001)
        below = place.astype(np.intp)
        place -= below
        place *= steps.take(below)
        np.add(place, table.take(below), out=found[i : i + _CACHED])
    return found.reshape(np.shape(mean))
