"""Single voxels of a scan in full: their measurements, what the fit expects of them, and draws of their parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior.estimates import Estimates
from pyroqmri.posterior.posterior import QUANTILES, Posterior

MOST_VALUES = 400_000  # numbers of all sampled voxels together: about a megabyte in a page
N_DRAWS = 64
_FEWEST = 100
NORMAL_90 = 1.645  # sds from the mean to either end of a Gaussian's 90 % interval
_ARRAYS = ("index", "y", "fitted", "low", "high", "reference")


@dataclass(frozen=True)
class VoxelSample:
    """Some voxels of a scan.

    Parameters
    ----------
    index
        Which of the scan's N voxels they are ``(V,)``.
    y
        Measurements as the model sees them, in the image's units ``(V, M)``.
    fitted
        Expected measurements under the fit, noise included ``(V, M)``.
    low, high
        Ends of 90 % predictive intervals of one measurement ``(V, M)``; of point estimates those of noise alone.
    reference
        What the measurements of each voxel were divided by ``(V,)``: its S0 where that was measured.
    draws
        Draws ``(S, V)`` of each scalar quantity; empty for an estimate without a posterior.
    """

    index: NDArray[np.integer]
    y: NDArray
    fitted: NDArray
    low: NDArray
    high: NDArray
    reference: NDArray
    draws: dict[str, NDArray] = field(default_factory=dict)


def spread_over(n: int, n_measurements: int, n_quantities: int) -> NDArray[np.bool_]:
    """Which of ``n`` voxels to keep ``(n,)``: all, or evenly spaced ones, so that a page stays small."""
    most = max(_FEWEST, MOST_VALUES // (4 * n_measurements + N_DRAWS * n_quantities))
    chosen = np.zeros(n, bool)
    chosen[np.linspace(0, n - 1, min(n, most)).round().astype(int)] = True
    return chosen


def joined(samples: Mapping[int, VoxelSample]) -> VoxelSample | None:
    """Samples of blocks as one, by the place of each block's first voxel in the scan; None without any."""
    parts = [replace(samples[start], index=samples[start].index + start) for start in sorted(samples)]
    if not parts:
        return None
    whole = {key: np.concatenate([getattr(part, key) for part in parts]) for key in _ARRAYS}
    draws = {name: np.concatenate([part.draws[name] for part in parts], 1) for name in parts[0].draws}
    return VoxelSample(**whole, draws=draws)


class VoxelSampler:
    """Collects a :class:`VoxelSample` while maps are made of some estimates, at no second pass.

    Parameters
    ----------
    part
        Estimates of N voxels, whose maps were not asked for yet.
    chosen
        Which voxels to keep ``(N,)``; of these, those that could be fitted are.
    """

    def __init__(self, part: Estimates, chosen: NDArray[np.bool_]) -> None:
        self._part = part
        self._here = torch.from_numpy(chosen)[part.batch.index]
        self._parts: list[dict[str, Tensor]] = []
        self._done = 0
        if isinstance(part, Posterior):
            part.witness = self._see

    def _see(self, z: Tensor, theta: dict[str, Tensor], voxels: Voxels) -> None:
        some = self._here[self._done : self._done + len(voxels)]
        self._done += len(voxels)
        if some.any():
            assert isinstance(self._part, Posterior)
            seen = {k: v[:, some] for k, v in theta.items()}
            self._parts.append(_of_draws(self._part, z[:, some], seen, voxels[some]))

    def sample(self) -> VoxelSample | None:
        """The voxels that were collected; None where there was none."""
        if not isinstance(self._part, Posterior) and self._here.any() and self._part.likelihood is not None:
            self._parts = [_of_estimate(self._part, self._here)]
        if not self._parts:
            return None
        whole = {key: torch.cat([part[key] for part in self._parts]).numpy() for key in self._parts[0]}
        reference = _references(self._part.batch)[self._here].numpy()
        seen = {key: (whole[key] * reference[:, None]).astype(np.float32) for key in ("y", "fitted", "low", "high")}
        draws = {key.removeprefix("draws "): v.T for key, v in whole.items() if key.startswith("draws ")}
        index = self._part.batch.index[self._here].numpy()
        return VoxelSample(index, **seen, reference=reference, draws=draws)


def _references(batch: Any) -> Tensor:
    """What each fitted voxel was divided by; one where that is no S0 of its own."""
    return batch.reference.cpu() if len(batch.reference) == len(batch.voxels) else torch.ones(len(batch.voxels))


def _of_draws(part: Posterior, z: Tensor, theta: dict[str, Tensor], voxels: Voxels) -> dict[str, Tensor]:
    """Arrays that lead with the voxels, of latents ``(S, n, L)`` and the quantities ``(S, n)`` that follow."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # whoever draws next must not notice
        predicted = part.model.y_dist(z, voxels).sample()
    mean = part.model.likelihood.moments(part.model.simulate(z, voxels), voxels.noise)[0].mean(0)
    levels = torch.tensor(QUANTILES).to(predicted)
    low, high = predicted.quantile(levels, 0)
    # neither the first points behind the maps nor every so many of them stand for all, whatever order they come in
    some = torch.from_numpy(np.random.default_rng(0).permutation(len(z))[:N_DRAWS]).to(z.device)
    kept = {f"draws {name}": theta[name][some].T for name in part.names}
    return {k: v.float().cpu() for k, v in {"y": voxels.y, "fitted": mean, "low": low, "high": high, **kept}.items()}


@torch.no_grad()
def _of_estimate(part: Estimates, here: Tensor) -> dict[str, Tensor]:
    """The same of point estimates, whose intervals are those of noise around the fitted signal."""
    voxels = part.batch.voxels[here]
    theta = part.signal.completed({name: value[here] for name, value in part.mean_theta.items()})
    assert part.likelihood is not None
    mean, variance = part.likelihood.moments(part.signal(theta, voxels.inputs), voxels.noise)
    reach = NORMAL_90 * variance.sqrt()
    found = {"y": voxels.y, "fitted": mean, "low": mean - reach, "high": mean + reach}
    return {key: value.float().cpu() for key, value in found.items()}
