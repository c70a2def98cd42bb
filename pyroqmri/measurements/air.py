"""Noise in air: the noise level that it gives, and whether it can be used."""

import numpy as np

from pyroqmri.errors import InputError

FEWEST = 100
_TRUNCATION = 2.5
_LOW, _HIGH = 0.30, 0.50  # of the 10 % quantile over the median, 0.39 for Rayleigh noise


def air_sigma(values: np.ndarray) -> tuple[float, int, str]:
    """Standard deviation of each channel's noise from values in air ``(K,)``, how many were used, and their law.

    Raises
    ------
    InputError
        When the values are not those of untouched noise: masked, filtered, interpolated, or no air at all.
    """
    values = values[np.isfinite(values)]
    if len(values) < FEWEST:
        raise InputError("there are too few background values to measure noise on; give sigma as a number")
    if (values < 0).mean() > 0.25:
        return float(1.4826 * np.median(np.abs(values))), len(values), "Gaussian"
    if (values <= 0).mean() > 0.5:
        raise InputError("the background of this image is mostly zero, so it contains no noise; give sigma as a number")
    positive = _continuous(values)
    low, quarter, middle = np.quantile(positive, [0.1, 0.25, 0.5])
    shape = low / middle
    if shape > _HIGH:
        raise InputError(
            f"the background spreads less than noise does (its 10 % quantile is {shape:.2f} of its median, 0.39 for "
            "noise of one channel): filtered, interpolated, denoised, or from several coils; give sigma as a number"
        )
    if shape < _LOW:
        raise InputError(
            f"the background is no air (its 10 % quantile is {shape:.2f} of its median, 0.39 for noise): tissue, "
            "ghosts or air that was set to zero; give sigma as a number"
        )
    # tissue left in the background is brighter than air: fit what lies below 2.5 sigma only
    half = _TRUNCATION**2 / 2
    second_moment = 2 * (1 - half * np.exp(-half) / -np.expm1(-half))
    sigma = float(quarter / np.sqrt(-2 * np.log(0.75)))
    for _ in range(100):
        air = positive[positive < _TRUNCATION * sigma]
        new = float(np.sqrt(np.square(air).mean() / second_moment))
        if abs(new - sigma) < 1e-4 * sigma:
            break
        sigma = new
    return sigma, len(air), "Rayleigh"


def _continuous(values: np.ndarray) -> np.ndarray:
    """Absolute values, those of a few integer steps spread over their step; zeros are values of that step."""
    steps = np.diff(np.unique(np.abs(values)))
    step = steps.min(initial=np.inf)
    if len(steps) < 2 or step < 0.02 * np.median(np.abs(values)):
        positive = values[values > 0]
        return positive
    dithered = values + np.random.default_rng(0).uniform(-0.5, 0.5, len(values)) * step
    return np.abs(dithered)
