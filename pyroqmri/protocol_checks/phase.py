"""Phase images that no name and no sidecar states to be phase."""

import numpy as np

from pyroqmri.errors import InputError
from pyroqmri.io.units import span

_FEWEST = 200
_VALUES = 50_000  # of the measurements that are looked at
_DISTANCE = 0.05  # of a distribution function from the uniform one; air of magnitudes is 0.5 and more away
_INSIDE = 0.01  # of the range: by how much tissue may leave it
_NEAR_PI, _WRAPPED = 0.95, 0.01  # of pi, and share of the values beyond it on either side


def refuse_phase(y: np.ndarray, background: np.ndarray | None, image: str) -> None:
    """Refuse angles, which every value of a voxel may be and which have no decay.

    Air has every angle equally often, over exactly the range that tissue has; in magnitudes, and in real parts, it is
    far darker than tissue. Without air, angles in rad end at -pi and pi and lie near both.

    Parameters
    ----------
    y
        Measurements ``(N, M)``.
    background
        Values in air ``(K,)``, where there are any.
    image
        The image's name.

    Raises
    ------
    InputError
        When the values are angles.
    """
    some = y[:: max(1, y.size // _VALUES)].ravel()
    some = some[np.isfinite(some)]
    air = some[:0] if background is None else background[np.isfinite(background)]
    if len(some) < _FEWEST:
        return
    if _uniform(air, some):
        why = f"air has every value from {span(air)} equally often, and tissue none beyond"
    elif _wrapped(some):
        why = f"the values end at -pi and pi ({span(some)}) and lie near both"
    else:
        return
    raise InputError(
        f"image {image} contains phase, by its values ({why}): angles, which no signal here describes; give the "
        "magnitudes (part-mag), or the real part for signals of data that keep their sign"
    )


def _uniform(air: np.ndarray, tissue: np.ndarray) -> bool:
    if len(air) < _FEWEST:
        return False
    low, high = float(air.min()), float(air.max())
    width = high - low
    if not width > 0 or tissue.min() < low - _INSIDE * width or tissue.max() > high + _INSIDE * width:
        return False
    expected = (np.arange(len(air)) + 0.5) / len(air)
    return bool(np.abs((np.sort(air) - low) / width - expected).max() < _DISTANCE)


def _wrapped(values: np.ndarray) -> bool:
    size = np.abs(values).max()
    if not 0.99 * np.pi < size < 1.001 * np.pi:
        return False
    return all(float((sign * values > _NEAR_PI * np.pi).mean()) > _WRAPPED for sign in (-1, 1))
