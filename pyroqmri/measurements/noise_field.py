r"""A noise level that varies smoothly over space, with its own uncertainty.

The logarithm of each voxel's own estimate, from d degrees of freedom, is that of the noise level plus an error whose
mean and variance are known (:math:`\psi(d/2)` and its slope). It is regressed on a quadratic of the position and a
Gaussian process in its Hilbert-space form, sines on a box (Solin and Särkkä 2020, doi:10.1007/s11222-019-09886-w);
length, amplitude and what the voxels scatter beyond that error are those of the largest evidence.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.special import digamma, polygamma
from scipy.stats import chi2
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.noise_groups import groups_of
from pyroqmri.measurements.scatter import Scatter, lowest, pooled, scatters, with_signal

FIELD = "noise.field."  # what the names of a field's tensors begin with in a file
MOST_VOXELS = 10_000
FEWEST_VOXELS = 200
VARIES = 1.25  # 95 % over 5 % quantile of the level; below it one number serves as well
_BLOCKS, _IN_BLOCK = 4, 20  # along each axis, and voxels in one that counts
_ALIKE = 1.1  # 95 over 5 % quantile of the blocks' levels
_NATS = 10.0  # by which a field has to be likelier than a number
_LENGTHS, _AMPLITUDES, _SCATTER = (0.3, 0.6, 1.2), (0.05, 0.15, 0.4), (0.0, 0.05, 0.1, 0.2, 0.4)
_CUT = 2.5  # over the shortest length: the largest frequency
_WIDE, _SLOPE = 100.0, 1.0  # prior sds of the constant and of the quadratic's other terms, of a logarithm


@dataclass(frozen=True)
class NoiseField:
    """A fitted field, on a box about ``centre`` ``(3,)`` whose half widths are ``box`` ``(3,)`` in units of ``unit``.

    ``mean`` ``(K,)`` and ``covariance`` ``(K, K)`` are those of the coefficients of the logarithm.
    """

    centre: Tensor
    box: Tensor
    unit: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "NoiseField | None":
        """The field among the tensors of a file, which it takes out of them; None where there is none.

        Raises
        ------
        InputError
            When it is not whole.
        """
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(FIELD)}
        if not own:
            return None
        names = [f"{FIELD}{field.name}" for field in fields(cls)]
        whole = set(own) == set(names) and all(bool(t.isfinite().all()) for t in own.values())
        k = own[names[3]].numel() if whole else 0
        shapes = ((3,), (3,), (), (k,), (k, k))
        if not whole or [own[name].shape for name in names] != [torch.Size(shape) for shape in shapes]:
            raise InputError("the noise field of the fit is not whole; train again")
        return cls(*(own[name] for name in names))

    def __call__(self, position: Tensor) -> Tensor:
        """The noise level at voxel indices ``(N, 3)``, in the scan's units, ``(N,)``."""
        return (self._basis(position) @ self.mean).exp().to(torch.get_default_dtype())

    def relative_sd(self, position: Tensor) -> Tensor:
        """Standard deviation of the level over the level ``(N,)``."""
        basis = self._basis(position)
        variance = ((basis @ self.covariance) * basis).sum(-1)
        return variance.clamp_min(0).sqrt().to(torch.get_default_dtype())

    def _basis(self, position: Tensor) -> Tensor:
        place = (position.double() - self.centre) / self.unit
        return torch.from_numpy(_basis(place.numpy(), self.box.numpy())[0])


@dataclass(frozen=True)
class Fitted:
    """A field, how much likelier than one number it is (nats), and its 5 and 95 % quantiles over the voxels."""

    field: NoiseField
    gain: float
    low: float
    high: float

    @property
    def worth_it(self) -> bool:
        """Whether the scan shows a noise level that differs over space."""
        return self.gain > _NATS and self.high > VARIES * self.low


def fit_field(position: np.ndarray, scatter: Scatter) -> Fitted:
    """The field of some voxels at indices ``(n, 3)``."""
    centre = (position.max(0) + position.min(0)) / 2
    unit = max(0.5, float(np.ptp(position, axis=0).max()) / 2)
    place = (position - centre) / unit
    half = np.abs(place).max(0)
    box = np.where(half > 0, 1.2 * half + 0.3, 0.0)
    basis, frequency = _basis(place, box)
    gram = basis.T @ basis
    priors = _priors(gram, frequency, int((box > 0).sum()))
    own = polygamma(1, scatter.dof / 2).mean() / 4
    bias = (digamma(scatter.dof / 2) - np.log(scatter.dof / 2)) / 2
    sigma = np.full(len(position), np.sqrt(np.median(scatter.left / scatter.dof)))
    for _ in range(3):
        free = scatter.expected(sigma)
        seen = np.log(np.maximum(scatter.left, 1e-30) / free) / 2 - bias
        error = seen - np.log(sigma)
        # voxels that the signal's outline does not follow are kept from pulling their surroundings
        most = 3 * max(1.4826 * np.median(np.abs(error - np.median(error))), np.sqrt(own))
        seen = np.log(sigma) + np.clip(error, np.median(error) - most, np.median(error) + most)
        mean, covariance, evidence = _regressed(seen, basis, priors, own)
        sigma = np.exp(basis @ mean)
    # the level as a whole is that of the median voxel, as that of one number is
    free = scatter.expected(sigma)
    level = np.log(np.median(scatter.left / (free * sigma**2) / (chi2.median(scatter.dof) / scatter.dof))) / 2
    mean[0] += level
    one = _regressed(seen, basis[:, :1], _priors(gram[:1, :1], frequency[:1], 0), own)[2]
    low, high = np.quantile(sigma * np.exp(level), [0.05, 0.95])
    tensors = (torch.from_numpy(np.asarray(t, dtype=float)) for t in (centre, box, unit, mean, covariance))
    return Fitted(NoiseField(*tensors), evidence - one, float(low), float(high))


def field_of_groups(
    y: np.ndarray,
    acquisition: Acquisition,
    position: np.ndarray,
    coils: float = 1.0,
    partial: bool = False,
    wanted: bool = True,
) -> Fitted:
    """The field that the scatter of shells and repeats gives, of measurements ``(N, M)`` at indices ``(N, 3)``.

    Unless it is ``wanted``, none is fitted where blocks of the image have one noise level.

    Raises
    ------
    InputError
        When no shell has enough directions or repeats, too few voxels have a signal, or there is no field.
    """
    groups = [group for group in groups_of(acquisition) if group.trusted]
    if not groups:
        raise InputError("no shell has enough directions or repeats to measure a noise field on")
    some, seen = some_voxels(y, partial)
    parts = scatters(seen, groups, acquisition, coils)
    _, kept = lowest(parts)
    found = pooled([part for part, good in zip(parts, kept, strict=True) if good])
    if not wanted and _blocks_alike(position[some], found):
        raise InputError("the noise level is the same all over the image")
    known = found.dof >= 1
    return fit_field(position[some], found) if known.all() else fit_field(position[some][known], found.of(known))


def _blocks_alike(position: np.ndarray, scatter: Scatter) -> bool:
    """Whether parts of the image, a quarter of it along each axis, differ too little for a field to be worth it.

    A regression takes a second, and most scans have one level. Means of few degrees of freedom scatter and go on to it.
    """
    free = scatter.expected(np.full(len(position), np.sqrt(np.median(scatter.left / scatter.dof))))
    seen = np.log(np.maximum(scatter.left, 1e-30) / free) / 2
    middle = np.median(seen)
    most = 3 * 1.4826 * np.median(np.abs(seen - middle))
    part = (_BLOCKS * (position - position.min(0)) / (np.ptp(position, axis=0) + 1)).astype(int)
    block = np.unique(part, axis=0, return_inverse=True)[1].reshape(-1)
    count = np.bincount(block)
    mean = np.bincount(block, np.clip(seen - middle, -most, most)) / count
    low, high = np.quantile(mean[count >= min(_IN_BLOCK, count.max())], [0.05, 0.95])
    return bool(high - low < np.log(_ALIKE))


def some_voxels(y: np.ndarray, partial: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Indices of at most 10,000 voxels with finite measurements and a signal, and their measurements in float64.

    Raises
    ------
    InputError
        When there are fewer than 200.
    """
    rows = np.arange(len(y))
    if len(rows) > 3 * MOST_VOXELS:  # a whole brain in float64 need not fit in memory
        rows = np.sort(np.random.default_rng(0).choice(len(y), 3 * MOST_VOXELS, replace=False))
    with np.errstate(invalid="ignore", over="ignore"):
        good = with_signal(y[rows], partial)
    rows = rows[good]
    if len(rows) < FEWEST_VOXELS:
        raise InputError(f"a noise field needs {FEWEST_VOXELS} voxels with a signal, and there are {len(rows)}")
    if len(rows) > MOST_VOXELS:
        rows = np.sort(np.random.default_rng(1).choice(rows, MOST_VOXELS, replace=False))
    return rows, y[rows].astype(np.float64)


def _basis(place: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic and sines at places ``(n, 3)``: ``(n, K)``, and their frequencies ``(K,)``, NaN for the quadratic."""
    axes = np.flatnonzero(box > 0)
    columns = [np.ones(len(place)), *(place[:, a] for a in axes)]
    columns += [place[:, a] * place[:, b] for i, a in enumerate(axes) for b in axes[i:]]
    n_trend = len(columns)
    top = _CUT / min(_LENGTHS)
    steps = [np.arange(1, int(top * 2 * box[a] / np.pi) + 1) * np.pi / (2 * box[a]) for a in axes]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, len(axes)) if len(axes) else np.zeros((0, 0))
    total = np.sqrt(np.square(grid).sum(-1))
    grid, total = grid[total <= top], total[total <= top]
    sines = np.ones((len(place), len(grid)))
    for k, a in enumerate(axes):
        waves, which = np.unique(grid[:, k], return_inverse=True)
        sines *= (np.sin(np.outer(place[:, a] + box[a], waves)) / np.sqrt(box[a]))[:, which]
    return np.concatenate([np.stack(columns, 1), sines], 1), np.r_[np.full(n_trend, np.nan), total]


class _Prior(NamedTuple):
    """Prior sds ``(K,)`` of the coefficients at one length and amplitude, and what the basis has in their units.

    ``vectors`` ``(K, K)`` and ``values`` ``(K,)`` are of the basis' Gram matrix: once they are known, no scatter of the
    voxels and no new logarithms of theirs need another factor.
    """

    sd: np.ndarray
    values: np.ndarray
    vectors: np.ndarray


def _priors(gram: np.ndarray, frequency: np.ndarray, n_axes: int) -> list[_Prior]:
    """Every length and amplitude."""
    trend = np.isnan(frequency)
    flat = np.where(np.arange(len(frequency)) == 0, _WIDE, _SLOPE) ** 2
    found = []
    for length in _LENGTHS:
        spectrum = (2 * np.pi * length**2) ** (n_axes / 2) * np.exp(-((length * np.nan_to_num(frequency)) ** 2) / 2)
        for amplitude in _AMPLITUDES:
            sd = np.sqrt(np.where(trend, flat, amplitude**2 * spectrum + 1e-12))
            values, vectors = eigh(sd[:, None] * gram * sd, driver="evd")
            found.append(_Prior(sd, values.clip(0), vectors))
    return found


def _regressed(
    seen: np.ndarray, basis: np.ndarray, priors: list[_Prior], own: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of the coefficients, and the evidence, at the likeliest length, amplitude and scatter."""
    cross, square, n = basis.T @ seen, seen @ seen, len(seen)
    best: tuple[float, float, _Prior] | None = None
    for prior in priors:
        along = prior.vectors.T @ (prior.sd * cross)
        for scatter in _SCATTER:
            v = own + scatter**2
            fitted = np.sum(along**2 / (prior.values + v)) / v
            volume = np.log1p(prior.values / v).sum()
            evidence = -(n * np.log(2 * np.pi * v) + volume + square / v - fitted) / 2
            if best is None or evidence > best[0]:
                best = float(evidence), v, prior
    assert best is not None
    evidence, v, prior = best
    root = prior.sd[:, None] * prior.vectors * np.sqrt(v / (prior.values + v))
    covariance = root @ root.T
    return covariance @ cross / v, covariance, evidence
