"""Densities flattened until enough points share their mass."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def temper(value: Array, log_weight: Array, spread: Callable[[Array], Array], wanted: float) -> Array:
    """The largest power up to 1 of each density with which ``spread`` of its weights is ``wanted``, ``(r,)``."""

    def spread_at(power: Array, index: Array) -> Array:
        log_p = value[index] * power[:, None] + log_weight[index]
        p = np.exp(log_p - log_p.max(1, keepdims=True))
        return spread(p / p.sum(1, keepdims=True))

    power = np.ones(len(value))
    sharp = np.flatnonzero(spread_at(power, np.arange(len(value))) < wanted)
    low, high = np.full(len(sharp), -60.0), np.zeros(len(sharp))  # natural log of the power
    for _ in range(14 if len(sharp) else 0):
        middle = (low + high) / 2
        enough = spread_at(np.exp(middle), sharp) >= wanted
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    power[sharp] = np.exp(low)
    return power


def effective_number(p: Array) -> Array:
    """Effective number of points of normalised weights ``(r, P)``, ``(r,)``."""
    return 1 / (p**2).sum(1)
