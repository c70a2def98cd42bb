"""Measurements that were cut off at the largest value that the image's numbers can have."""

import numpy as np

_FEWEST = 5  # measurements of exactly the largest value
_MORE = 3  # times as many as of the value below it, which noise never makes
_WHOLE = 0.9  # of the voxels: a volume of one value is no measurement, and named as that


def cut_off(y: np.ndarray) -> tuple[np.ndarray, str]:
    """Which voxels of measurements ``(N, M)``, floats, have one at the ceiling ``(N,)`` bool, and a sentence on them.

    A maximum of noisy values is there once. What a converter or a reconstruction cut off is there many times, and too
    low: S0 and all that is measured against it come out wrong.
    """
    nowhere = np.zeros(len(y), bool)
    finite = np.isfinite(y)
    top = float(np.max(y, initial=-np.inf, where=finite))
    if not top > 0:
        return nowhere, ""
    at = y == top
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
        f"{top:.6g}: they were cut off there, by the scanner or a converter, and are too low; these voxels are not "
        "fitted (status 2); convert the scan again with another scaling"
    )
