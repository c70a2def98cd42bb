"""Noise in air: the noise level that it gives, the number of coils, and whether it can be used."""

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv

from pyroqmri.errors import InputError

FEWEST = 100
_TRUNCATION = 0.956  # of air lies below 2.5 sigma of one coil
_LOW, _HIGH = 0.73, 1.52  # of the number of coils: what the spread of the values may be worth
_MOST_COILS = 256.0


def air_sigma(values: np.ndarray, coils: float = 1.0) -> tuple[float, int, str]:
    """Standard deviation of each channel's noise from values in air ``(K,)``, how many were used, and their law.

    The square of a root of a sum of squares over L coils, over twice the variance, follows a gamma law of shape L.

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
    positive = _not_masked(values)
    _check_shape(positive, coils)
    # tissue left in the background is brighter than air: fit what lies below 2.5 sigma only
    half = gammaincinv(coils, _TRUNCATION)
    second_moment = 2 * coils * gammainc(coils + 1, half) / _TRUNCATION
    sigma = float(np.quantile(positive, 0.25) / np.sqrt(2 * gammaincinv(coils, 0.25)))
    for _ in range(100):
        air = positive[positive < np.sqrt(2 * half) * sigma]
        new = float(np.sqrt(np.square(air).mean() / second_moment))
        if abs(new - sigma) < 1e-4 * sigma:
            break
        sigma = new
    return sigma, len(air), "Rayleigh" if coils == 1 else f"{coils:g}-coil"


def coils_in_air(values: np.ndarray) -> float:
    """Number of coils whose sum of squares has the spread of values in air ``(K,)``; 1 is one coil, or complex data.

    Coils with correlated noise count as fewer. Means of several magnitudes, and smoothed air, look like coils.

    Raises
    ------
    InputError
        When there are too few values, they have a sign, or no number of coils has such a spread.
    """
    values = values[np.isfinite(values)]
    if len(values) < FEWEST or (values < 0).mean() > 0.01:
        raise InputError("there is no air of magnitude images around the mask")
    positive = _not_masked(values)
    low, middle = np.quantile(positive, [0.1, 0.5])
    if not _shape(_LOW) < low / middle < _shape(_MOST_COILS):
        raise InputError(
            f"the 10 % quantile of the air is {low / middle:.2f} of its median, and noise has 0.30 to 0.95"
        )
    found: Any = brentq(lambda coils: _shape(coils) - low / middle, _LOW, _MOST_COILS)
    return float(found)


def _shape(coils: float) -> float:
    """The 10 % quantile of air over its median."""
    return float(np.sqrt(gammaincinv(coils, 0.1) / gammaincinv(coils, 0.5)))


def _check_shape(positive: np.ndarray, coils: float) -> None:
    low, middle = np.quantile(positive, [0.1, 0.5])
    shape, channels = low / middle, "one channel" if coils == 1 else f"{coils:g} channels"
    if shape > _shape(_HIGH * coils):
        raise InputError(
            f"the background spreads less than noise does (its 10 % quantile is {shape:.2f} of its median, "
            f"{_shape(coils):.2f} for noise of {channels}): filtered, interpolated, denoised, averaged, or from "
            f"{'several' if coils == 1 else 'more'} coils; give sigma as a number"
        )
    if shape < _shape(_LOW * coils):
        raise InputError(
            f"the background is no air (its 10 % quantile is {shape:.2f} of its median, {_shape(coils):.2f} for noise "
            f"of {channels}): tissue, ghosts or air that was set to zero; give sigma as a number"
        )


def _not_masked(values: np.ndarray) -> np.ndarray:
    """Absolute values, those of a few integer steps spread over their step; zeros are values of that step.

    Raises
    ------
    InputError
        When most are zero.
    """
    if (values <= 0).mean() > 0.5:
        raise InputError("the background of this image is mostly zero, so it contains no noise; give sigma as a number")
    steps = np.diff(np.unique(np.abs(values)))
    step = steps.min(initial=np.inf)
    if len(steps) < 2 or step < 0.02 * np.median(np.abs(values)):
        return values[values > 0]
    dithered = values + np.random.default_rng(0).uniform(-0.5, 0.5, len(values)) * step
    return np.abs(dithered)
