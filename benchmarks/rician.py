"""Rician density and Fisher information, with numpy and scipy alone."""

from collections.abc import Callable

import numpy as np
from scipy.special import i0e, i1e

Array = np.ndarray


def rician_logpdf(y: Array, signal: Array, sigma: Array | float) -> Array:
    r"""Log density of Rician measurements.

    .. math:: \log \frac{y}{\sigma^2} - \frac{(y - S)^2}{2 \sigma^2} + \log e^{-u} I_0(u), \qquad u = y S / \sigma^2
    """
    u = y * signal / np.square(sigma)
    return np.log(y / np.square(sigma)) - np.square((y - signal) / sigma) / 2 + np.log(i0e(u))


def rician_information(snr: Array) -> Array:
    r"""Fisher information about S of one measurement, in units of :math:`1/\sigma^2`, at S / sigma = ``snr``.

    The variance of the score :math:`x I_1(x\nu)/I_0(x\nu) - \nu`, by 200-point quadrature over x = y / sigma.
    """
    nu = np.asarray(snr, dtype=float)[..., None]
    t, w = np.polynomial.legendre.leggauss(200)
    low, high = np.maximum(nu - 10, 0), nu + 10
    x = (low + high) / 2 + (high - low) / 2 * t
    density = x * np.exp(-((x - nu) ** 2) / 2) * i0e(x * nu)
    score = x * i1e(x * nu) / i0e(x * nu) - nu
    return (density * score**2 * w).sum(-1) * (high - low)[..., 0] / 2


def crlb(signal_fn: Callable[[Array], Array], theta: Array, sigma: float) -> Array:
    """Cramer-Rao bound: the smallest covariance ``(N, d, d)`` of any unbiased estimator under Rician noise.

    Parameters
    ----------
    signal_fn
        From parameters ``(N, d)`` to signals ``(N, M)``, analytic: it is differentiated by complex steps.
    theta
        ``(N, d)``.
    sigma
        Noise level.
    """
    theta = np.asarray(theta, dtype=float)
    step = 1e-20
    columns = []
    for k in range(theta.shape[1]):
        moved = theta.astype(complex)
        moved[:, k] += 1j * step
        columns.append(signal_fn(moved).imag / step)
    jacobian = np.stack(columns, -1)
    information = rician_information(signal_fn(theta) / sigma) / sigma**2
    return np.linalg.inv(jacobian.swapaxes(1, 2) @ (information[..., None] * jacobian))
