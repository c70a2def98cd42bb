"""The Rice distribution without gradients on a CPU: polynomials, on pieces that stay in a core's cache.

A measurement's log-density, score and information take half to three quarters of the time that Bessel functions take,
moments a fifth. Functions of z >= 0 are polynomials in (z - k) / (z + k), whose error is about that of float32.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor
from torch.autograd import forward_ad

from pyroqmri.distributions.rice_math import bessel_ratio_minus_one, fisher_by_quadrature, rice_moments

_PIECE = 32_768  # numbers that stay in a core's cache
_TURN, _TURN_FISHER, _TURN_VARIANCE = 2.0, 4.0, 8.0  # where each variable is zero
_TWO_PI = 2 * torch.pi


def pieces_serve(*values: Tensor) -> bool:
    """Whether measurements are so many, and of such a kind, that pieces are faster."""
    plain = all(v.device.type == "cpu" and v.dtype == torch.float32 for v in values)
    if not plain or max(v.numel() for v in values) < _PIECE:
        return False
    followed = torch.is_grad_enabled() and any(v.requires_grad for v in values)
    level: Any = getattr(forward_ad, "_current_level", -1)
    return not followed and level < 0 and not torch._C._are_functorch_transforms_active()


def information_in_pieces(signal: Tensor, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-density of measurements, its slope in the signal, and the Fisher information about it, each ``(..., N, M)``.

    Parameters
    ----------
    signal, y, sigma
        Noise-free signals ``(..., N, M)``, magnitudes and noise levels that broadcast against them.
    """
    signal, y, sigma = torch.broadcast_tensors(signal, y, sigma)
    found = tuple(torch.empty(signal.shape) for _ in range(3))
    for s, x, level, *out in _pieces(signal, y, sigma, *found):
        _information(s, x, _one_a_row(level).reciprocal(), *out)
    return found  # type: ignore[return-value]


def log_prob_in_pieces(signal: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """Log-density of measurements ``(..., N, M)`` alone; a signal below zero is unlikely."""
    signal, y, sigma = torch.broadcast_tensors(signal, y, sigma)
    found = torch.empty(signal.shape)
    for s, x, level, out in _pieces(signal, y, sigma, found):
        inverse = _one_a_row(level).reciprocal()
        a, x = s * inverse, x * inverse
        z = (x * a).abs_()
        _polynomial(_variable(z, _TURN), _series()["log"], out)
        _finish_log(out, a, x, z, inverse)
    return found


def moments_in_pieces(signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of measurements, each ``(..., N, M)``."""
    signal, sigma = torch.broadcast_tensors(signal, sigma)
    found = torch.empty(signal.shape), torch.empty(signal.shape)
    for s, level, mean, variance in _pieces(signal, sigma, *found):
        level = _one_a_row(level)
        square = (s / level).square_()
        _polynomial(_variable(square, _TURN_VARIANCE), _series()["variance"], variance)
        torch.sub(square.add_(2), variance, out=mean)
        mean.sqrt_().mul_(level)
        variance.mul_(level).mul_(level)
    return found


def _pieces(*values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of values of one shape, a piece at a time, without a copy of what is broadcast."""
    lead, (n, m) = values[0].shape[:-2], values[0].shape[-2:] if values[0].dim() > 1 else (1, len(values[0]))
    rows = max(1, _PIECE // max(1, m))
    together = max(1, rows // max(1, n))  # draws of few voxels
    flat = [v.reshape(1, n, m) if not lead else v.flatten(0, -3) if v.dim() > 3 else v for v in values]
    for k in range(0, len(flat[0]), together):
        for i in range(0, n, rows):
            yield tuple(v[k : k + together, i : i + rows] for v in flat)


def _one_a_row(level: Tensor) -> Tensor:
    """A noise level that is the same along a row, once."""
    return level[..., :1] if level.stride(-1) == 0 else level


def _information(s: Tensor, y: Tensor, inverse: Tensor, log_prob: Tensor, score: Tensor, fisher: Tensor) -> None:
    a, x, series = s * inverse, y * inverse, _series()
    z = x * a
    share = (z + _TURN).reciprocal_()
    u = share * (-2 * _TURN) + 1
    # x I_1/I_0 - a without a difference of large numbers
    _polynomial(u, series["rest"], score)
    score.mul_(share).mul_(x).neg_().add_(x).sub_(a).mul_(inverse)
    _polynomial(u, series["log"], log_prob)
    _finish_log(log_prob, a, x, z, inverse)
    _polynomial(_variable(a.square_(), _TURN_FISHER), series["fisher"], fisher)
    fisher.mul_(inverse).mul_(inverse)


def _finish_log(log_prob: Tensor, a: Tensor, x: Tensor, z: Tensor, inverse: Tensor) -> None:
    """What is added to the polynomial; changes ``x`` and ``z``."""
    # log x - log(1 + 2 pi z) / 2 in one logarithm
    log_prob.add_(x.square().div_(z.mul_(_TWO_PI).add_(1)).log_(), alpha=0.5).add_(inverse.log())
    log_prob.sub_(x.sub_(a).square_(), alpha=0.5)


def _variable(z: Tensor, turn: float) -> Tensor:
    """(z - k) / (z + k)."""
    return (z + turn).reciprocal_().mul_(-2 * turn).add_(1)


def _polynomial(u: Tensor, coefficients: list[Tensor], out: Tensor) -> None:
    torch.addcmul(coefficients[-2], u, coefficients[-1], out=out)
    for c in coefficients[-3::-1]:
        torch.addcmul(c, out, u, out=out)


@functools.cache
def _series() -> dict[str, list[Tensor]]:
    """Coefficients of (1 - I_1/I_0) (z + 2), log(exp(-z) I_0(z) sqrt(1 + 2 pi z)), variance and information."""

    def rest(z: Tensor) -> Tensor:
        return -bessel_ratio_minus_one(z) * (z + _TURN)

    def log(z: Tensor) -> Tensor:
        return torch.special.i0e(z).log() + torch.log1p(_TWO_PI * z) / 2

    def variance(square: Tensor) -> Tensor:
        return rice_moments(square.sqrt(), torch.ones_like(square)).variance

    def fisher(square: Tensor) -> Tensor:
        nu = square.sqrt()
        return fisher_by_quadrature(nu / (nu + 4))

    with torch.inference_mode(False):
        return {
            "rest": _coefficients(rest, _TURN, 12),
            "log": _coefficients(log, _TURN, 16),
            "variance": _coefficients(variance, _TURN_VARIANCE, 12),
            "fisher": _coefficients(fisher, _TURN_FISHER, 11),
        }


def _coefficients(function: Callable[[Tensor], Tensor], turn: float, degree: int) -> list[Tensor]:
    """Of the polynomial through a function of z at Chebyshev's points of (z - k) / (z + k)."""
    series = Chebyshev.interpolate(
        lambda u: function(torch.from_numpy(turn * (1 + u) / (1 - u))).numpy(), degree
    ).convert(kind=Polynomial)
    return [torch.tensor(c).float() for c in series.coef]
