"""Data that were denoised before they came here."""

import functools

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.noise_groups import Group, groups_of

_VOXELS = 20_000  # that follow one another, so that neighbours are among them
_PATCH = 100
_FEWEST_PATCHES, _FIRST_PATCHES, _MOST_PATCHES = 3, 8, 40
_FEWEST_VOLUMES = 15
_DENOISED, _CLEAR = 0.4, 0.7  # of the energy that white noise has in the weaker half of a patch's components


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
    some = torch.from_numpy(y[start : start + _VOXELS])
    low, high = some.amin(1).numpy(), some.amax(1).numpy()  # NaN where one is among them
    rows = rows[np.isfinite(low) & np.isfinite(high) & ((low != 0) | (high != 0))]
    if len(rows) < _FEWEST_PATCHES * _PATCH:
        return []
    order = np.arange(len(rows)) if position is None else np.lexsort((position[rows] // 5).T[::-1])
    n = len(rows) // _PATCH
    patches = rows[order[: n * _PATCH].reshape(n, _PATCH)]
    patches = patches[np.linspace(0, n - 1, min(n, _MOST_PATCHES)).astype(int)]
    # a few patches are enough for most scans, which nobody denoised
    if _share(y, groups, patches[:: _MOST_PATCHES // _FIRST_PATCHES]) > _CLEAR:
        return []
    share = _share(y, groups, patches)
    if share > _DENOISED:
        return []
    return [
        f"noise: the weaker components of patches of {_PATCH} voxels have {share:.0%} of the energy of noise, as after "
        "denoising by principal components (MP-PCA and others): volumes share the noise that is left, so that sds "
        "come out far too small, whatever the noise level; fit the data from before the denoising"
    ]


def _share(y: np.ndarray, groups: list[Group], patches: np.ndarray) -> float:
    """Energy in the weaker half of the components of patches of rows ``(n, 100)``, over that of the noise there."""
    seen = torch.from_numpy(y[patches].astype(np.float64))
    noise = residuals(seen, groups).square().mean(-1).quantile(0.5, -1)
    found = _weak_half(seen) / noise.clamp_min(1e-300)
    return float(found.quantile(0.5)) / _white(y.shape[1])


def residuals(y: Tensor, groups: list[Group]) -> Tensor:
    """What is left of measurements ``(..., M)`` within the groups, in independent coordinates ``(..., dof)``."""
    parts = []
    for group in groups:
        whole = torch.linalg.qr(torch.from_numpy(group.basis), "complete")[0]
        parts.append(y[..., torch.from_numpy(group.volumes)] @ whole[:, group.basis.shape[1] :])
    return torch.cat(parts, -1)


def _weak_half(patch: Tensor) -> Tensor:
    """Energy per number in the weaker half of the components of patches ``(..., 100, M)``."""
    long = patch if patch.shape[-2] <= patch.shape[-1] else patch.mT
    energies = torch.linalg.eigvalsh(long @ long.mT).flip(-1)  # of squares: half the time of singular values
    return energies[..., energies.shape[-1] // 2 :].clamp_min(0).sum(-1) / (patch.shape[-1] * patch.shape[-2])


@functools.cache
def _white(n_volumes: int) -> float:
    """The same of noise of variance 1."""
    rng = np.random.default_rng(0)
    return float(_weak_half(torch.from_numpy(rng.standard_normal((4, _PATCH, n_volumes)))).mean())
