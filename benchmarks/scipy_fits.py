"""One voxel at a time with scipy: what batched fits are compared with."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import i0e

Signal = Callable[[NDArray], NDArray]


def ivim(bval: NDArray) -> Signal:
    """Signal of f, D_fast, D_slow."""
    return lambda t: t[0] * np.exp(-bval * (t[1] + t[2])) + (1 - t[0]) * np.exp(-bval * t[2])


def msdki(bval: NDArray) -> Signal:
    """Signal of D, K."""
    return lambda t: np.exp(np.minimum(-bval * t[0] + (bval * t[0]) ** 2 * t[1] / 6, 50))


def ball_stick(bval: NDArray, bvec: NDArray) -> Signal:
    """Signal of f, D_par, D_iso and two angles."""

    def signal(t: NDArray) -> NDArray:
        n = np.array([np.sin(t[3]) * np.cos(t[4]), np.sin(t[3]) * np.sin(t[4]), np.cos(t[3])])
        return t[0] * np.exp(-bval * t[1] * (bvec @ n) ** 2) + (1 - t[0]) * np.exp(-bval * t[2])

    return signal


def inversion(ti: NDArray, tr: float) -> Signal:
    """Signed signal of T1, inversion efficiency, S0."""
    return lambda t: t[2] * (1 - 2 * t[1] * np.exp(-ti / t[0]) + (2 * t[1] - 1) * np.exp(-tr / t[0]))


def decay(te: NDArray) -> Signal:
    """Signal of T2, S0."""
    return lambda t: t[1] * np.exp(-te / t[0])


def least_squares(signal: Signal, y: NDArray, starts: Sequence, bounds: NDArray) -> tuple[NDArray, float]:
    """Best of bounded searches from each start: parameters and sum of squares."""
    width = bounds[1] - bounds[0]
    found = [
        optimize.least_squares(lambda t: signal(t) - y, start, bounds=tuple(bounds), x_scale=width) for start in starts
    ]
    best = min(found, key=lambda r: r.cost)
    return best.x, 2 * best.cost


def rician_nll(signal: NDArray, y: NDArray, sigma: float) -> float:
    """Negative Rician log-likelihood, without what depends on the measurements alone."""
    return float(((y - signal) ** 2 / (2 * sigma**2) - np.log(i0e(y * signal / sigma**2))).sum())


def maximum_likelihood(
    signal: Signal, y: NDArray, sigma: float, starts: Sequence, bounds: NDArray
) -> tuple[NDArray, float]:
    """Best of bounded searches of the Rician likelihood, in units of the box."""
    width = bounds[1] - bounds[0]

    def loss(u: NDArray) -> float:
        return rician_nll(signal(bounds[0] + width * u), y, sigma)

    box = [(0.0, 1.0)] * len(width)
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 500}
    found = [
        optimize.minimize(loss, (np.asarray(s) - bounds[0]) / width, bounds=box, method="L-BFGS-B", options=options)
        for s in starts
    ]
    best = min(found, key=lambda r: r.fun)
    return bounds[0] + width * best.x, float(best.fun)


def polished(signal: Signal, y: NDArray, sigma: float, theta: NDArray, bounds: NDArray) -> tuple[NDArray, float]:
    """The Rician likelihood's maximum near ``theta``, by a search without slopes: those of L-BFGS-B may stop early."""
    width = bounds[1] - bounds[0]

    def loss(u: NDArray) -> float:
        return rician_nll(signal(bounds[0] + width * u), y, sigma)

    options = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000}
    start = (theta - bounds[0]) / width
    found = optimize.minimize(loss, start, bounds=[(0.0, 1.0)] * len(width), method="Nelder-Mead", options=options)
    return bounds[0] + width * found.x, float(found.fun)
