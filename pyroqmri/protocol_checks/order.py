"""Settings in another order than the volumes, or of other volumes."""

import numpy as np

from pyroqmri.acquisition import Acquisition

_VOXELS = 5000
_RISES = 1.05  # times the signal at the weakest encoding: more than noise, and than a noise floor, lets it be
_FLAT, _FAR_B = 0.97, 0.5  # the same from which diffusion was not seen; over so many ms/um2
_DECAYS = {"bval": ("b-values", "b"), "te": ("echo times", "echo time")}


def against_decay(y: np.ndarray, acquisition: Acquisition) -> list[str]:
    """A sentence where measurements ``(N, M)`` are stronger at the largest b-value or echo time than at the smallest.

    No tissue is: the table is in another order than the volumes. Nor does any keep its signal over a wide range of b.
    Only a scan of which nothing else varies is judged.
    """
    settings = {name: value.numpy() for name, value in acquisition.settings().items() if name != "bvec"}
    varying = [name for name, value in settings.items() if value.ndim == 1 and np.ptp(value) > 0]
    if len(varying) != 1 or varying[0] not in _DECAYS:
        return []
    value, (what, one) = settings[varying[0]], _DECAYS[varying[0]]
    some = y[:: max(1, len(y) // _VOXELS)]
    some = some[np.isfinite(some).all(1)]
    if not len(some):
        return []
    mean, span = some.mean(0), np.ptp(value)
    first, last = (
        float(mean[near].mean()) for near in (value < value.min() + 0.01 * span, value > value.max() - 0.01 * span)
    )
    if not first > 0:
        return []
    if one == "b" and span >= _FAR_B and _FLAT * first < last <= _RISES * first:
        return [
            f"the measurements at the largest b are {100 * last / first:.3g} % of those at the smallest, as if nothing "
            "diffused: volumes that were each scaled by themselves, maps, or noise, or the b-values of another scan"
        ]
    if last <= _RISES * first:
        return []
    return [
        f"the measurements are {last / first:.3g} times as strong at the largest {one} as at the smallest, where "
        f"tissue decays: the {what} are in another order than the volumes, or belong to another scan"
    ]
