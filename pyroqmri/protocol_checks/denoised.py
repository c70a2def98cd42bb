"""Data that were denoised before they came here."""

import functools

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.noise_groups import Group, groups_of

_VOXELS = 20_000  # that follow one another, so that neighbours are among them
_PATCH = 100
_FEWEST_PATCHES, _MOST_PATCHES = 3, 40
_FEWEST_VOLUMES = 15
_DENOISED = 0.4  # of the energy that white noise has in the weaker half of a patch's components


def denoised_warnings(y: np.ndarray, acquisition: Acquisition, position: np.ndarray | None = None) -> list[str]:
    """A sentence where patches of measurements ``(N, M)`` have fewer components than noise would leave.

    The noise is taken from the residuals within shells and repeats. Voxel indices ``position`` ``(N, 3)`` make the
    patches; without them they are of rows that follow one another.
    """
    groups = [group for group in groups_of(acquisition) if group.trusted]
    counts = acquisition.n_averages
    if not groups or y.shape[1] < _FEWEST_VOLUMES or bool((counts != counts[0]).any()):
        return []
    start = max(0, (len(y) - _VOXELS) // 2)
    rows = np.arange(start, min(len(y), start + _VOXELS))
    rows = rows[np.isfinite(y[rows]).all(1) & (np.abs(y[rows]).sum(1) > 0)]
    if len(rows) < _FEWEST_PATCHES * _PATCH:
        return []
    seen, place = y[rows].astype(np.float64), None if position is None else position[rows]
    left = residuals(seen, groups)
    return _denoised(seen, left, place)


def residuals(y: np.ndarray, groups: list[Group]) -> np.ndarray:
    """What is left of measurements ``(N, M)`` within the groups, in independent coordinates ``(N, dof)``."""
    parts = []
    for group in groups:
        whole = np.linalg.qr(group.basis, mode="complete")[0]
        parts.append(y[:, group.volumes] @ whole[:, group.basis.shape[1] :])
    return np.concatenate(parts, 1)


def _denoised(y: np.ndarray, left: np.ndarray, place: np.ndarray | None) -> list[str]:
    order = np.arange(len(y)) if place is None else np.lexsort((place // 5).T[::-1])
    n = len(y) // _PATCH
    patches = order[: n * _PATCH].reshape(n, _PATCH)[np.linspace(0, n - 1, min(n, _MOST_PATCHES)).astype(int)]
    shares = []
    for rows in patches:
        noise = np.median(np.square(left[rows]).mean(1))
        shares.append(_weak_half(y[rows]) / max(noise, 1e-300))
    share = float(np.median(shares)) / _white(y.shape[1])
    if share > _DENOISED:
        return []
    return [
        f"noise: the weaker components of patches of {_PATCH} voxels have {share:.0%} of the energy of noise, as after "
        "denoising by principal components (MP-PCA and others): volumes share the noise that is left, so that sds "
        "come out far too small, whatever the noise level; fit the data from before the denoising"
    ]


def _weak_half(patch: np.ndarray) -> float:
    """Energy per number in the weaker half of a patch's components."""
    values = np.linalg.svd(patch, compute_uv=False)
    return float(np.square(values[len(values) // 2 :]).sum() / patch.size)


@functools.cache
def _white(n_volumes: int) -> float:
    """The same of noise of variance 1."""
    rng = np.random.default_rng(0)
    return float(np.mean([_weak_half(rng.standard_normal((_PATCH, n_volumes))) for _ in range(4)]))
