"""Measurements that were cut off at the largest value that the image's numbers can have."""

from collections.abc import Iterator

import numpy as np

_ROWS = 20_000
_FEWEST = 5  # measurements of exactly the largest value
_MORE = 3  # times as many as of the value below it, which noise never makes
_WHOLE = 0.9  # of the voxels: a volume of one value is no measurement, and named as that


def cut_off(y: np.ndarray) -> tuple[np.ndarray, str]:
    """Which voxels of measurements ``(N, M)``, floats, have one at the ceiling ``(N,)`` bool, and a sentence on them.

    A maximum of noisy values is there once. What a converter or a reconstruction cut off is there many times, and too
    low: S0 and all that is measured against it come out wrong.
    """
    nowhere = np.zeros(len(y), bool)
    top = _largest(y)
    # of nearly all scans this is the end: one pass more over a whole brain
    if not top > 0 or sum(np.count_nonzero(part == top) for part in _parts(y)) < _FEWEST:
        return nowhere, ""
    finite, at = np.isfinite(y), y == top
    whole = at.mean(0) > _WHOLE
    n = int(at[:, ~whole].sum())
    if n < _FEWEST:
        return nowhere, ""
    below = float(np.max(y, initial=-np.inf, where=finite & ~at))
    if n <= _MORE * int((y == below).sum()):
        return nowhere, ""
    voxels = at[:, ~whole].any(1)
    return voxels, (
        f"{n} measurements in {int(voxels.sum())} of {len(y)} voxels have exactly the largest value of the image, "
        f"{top:.6g}: they were clipped there, by the scanner or a converter, and are too low; these voxels are not "
        "fitted (status 2); convert the scan again with another scaling"
    )


def _parts(y: np.ndarray) -> Iterator[np.ndarray]:
    return (y[i : i + _ROWS] for i in range(0, len(y), _ROWS))


def _largest(y: np.ndarray) -> float:
    """The largest finite measurement, -inf where there is none."""
    tops = [float(part.max(initial=-np.inf)) for part in _parts(y)]  # NaN where one is NaN
    if all(np.isfinite(top) or top == -np.inf for top in tops):
        return max(tops, default=-np.inf)
    return max(float(np.max(part, initial=-np.inf, where=np.isfinite(part))) for part in _parts(y))
