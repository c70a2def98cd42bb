"""A part of a scan that is still a sensible scan: every shell thinned evenly in direction."""

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.shells import shell_indices

_FEW = 6  # volumes of one b-value; fewer are no shell to spread directions over


def thin(acquisition: Acquisition, share: float) -> np.ndarray:
    """Volumes to keep, in order: ``share`` of the lowest b-value and of each shell, its directions far apart.

    Directions are chosen one by one, each the one whose smallest angle to those
    chosen before is the largest. b-values with few volumes are taken together,
    and every so many kept in rising b.
    """
    assert acquisition.bval is not None
    bval = acquisition.bval.numpy()
    lowest, *shells = shell_indices(bval)
    chosen = [_evenly(lowest, share)]
    if acquisition.bvec is None:
        chosen += [_evenly(shell, share) for shell in shells]
    else:
        bvec = acquisition.bvec.numpy()
        chosen += [shell[_spread(bvec[shell], _count(shell, share))] for shell in shells if len(shell) >= _FEW]
        ladder = [shell for shell in shells if len(shell) < _FEW]
        chosen += [_evenly(np.concatenate(ladder), share)] if ladder else []
    return np.sort(np.concatenate(chosen))


def _count(volumes: np.ndarray, share: float) -> int:
    return max(1, round(share * len(volumes)))


def _evenly(volumes: np.ndarray, share: float) -> np.ndarray:
    return volumes[np.linspace(0, len(volumes) - 1, _count(volumes, share)).round().astype(int)]


def _spread(axes: np.ndarray, n: int) -> list[int]:
    """Indices of ``n`` axes (K, 3) far apart from one another, a sign meaning nothing."""
    closeness = np.abs(axes @ axes.T)
    chosen = [0]
    while len(chosen) < n:
        nearest = closeness[:, chosen].max(1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return chosen
