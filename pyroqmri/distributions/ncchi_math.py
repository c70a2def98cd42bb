r"""Functions of the non-central chi distribution that stay accurate from no signal to any signal in float32.

With L coils, :math:`G_L(z) = \Gamma(L)\,(2/z)^{L-1} I_{L-1}(z)` is 1 at no signal, whatever L, and :math:`I_0(z)` for
one coil. It comes from Debye's uniform expansion at a high order (DLMF 10.41) and Gauss's continued fraction from
there down to L (DLMF 10.33), which are accurate for every z and every L, whole or not.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

_ORDER, _TERMS = 12.0, 4  # Debye's expansion with four terms is right to 1e-8 from order 12 on
_NODES = 2048  # of the tables of moments, in a / (a + _HALF) = 0 .. 1
_HALF = 6.0
_QUADRATURE = 160  # Gauss-Legendre nodes over 20 standard deviations


@functools.cache
def _debye() -> list[tuple[Polynomial, Polynomial]]:
    """Debye's polynomials :math:`U_k` and :math:`(V_k - U_k) / p`."""
    found = [(Polynomial([1.0]), Polynomial([0.0]))]
    p, bend = Polynomial([0.0, 1.0]), Polynomial([0.0, 0.5, 0.0, -0.5])  # p (1 - p^2) / 2
    for _ in range(_TERMS):
        u = found[-1][0]
        following = p * bend * u.deriv() + (Polynomial([1.0, 0.0, -5.0]) * u).integ() / 8
        difference = -bend * u - 2 * p * bend * u.deriv()
        found.append((following, difference // p))
    return found


@functools.cache
def _series(order: float) -> tuple[list[float], list[float]]:
    """Coefficients in p of the two sums of Debye's expansion at one order."""
    zero = Polynomial([0.0])
    u, q = (sum((pair[i] / order**k for k, pair in enumerate(_debye())), zero) for i in (0, 1))
    return u.coef.tolist(), q.coef.tolist()


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


class _Bessel(NamedTuple):
    r"""``log_g`` is :math:`\log(e^{-z} G_L(z))`; ``excess`` is :math:`z I_{L-1}(z) / I_L(z) - z`, each ``(...)``."""

    log_g: Tensor
    excess: Tensor


def _bessel(z: Tensor, coils: float) -> _Bessel:
    steps = max(1, math.ceil(_ORDER - (coils - 1)))
    order = coils - 1 + steps
    s = torch.sqrt(order**2 + z.square())
    u_series, q_series = _series(order)
    p = order / s
    u, q = _polynomial(p, u_series), _polynomial(p, q_series)
    small = order**2 / (z + s)  # s - z without its cancellation
    excess = order + small + order * q / u
    product = (z + excess) / (order + s)
    for k in range(1, steps):
        excess = 2 * (order - k) - z * excess / (z + excess)
        product = product * (z + excess) / (order + s)
    constant = log_norm(coils) - math.log(2 * math.pi) / 2
    log_g = constant + small - (coils - 1) * torch.log(order + s) + torch.log(u * product * s.rsqrt())
    return _Bessel(log_g, excess)


class _LogG(torch.autograd.Function):
    """log(exp(-z) G_L(z)) in reverse mode, in forward mode and under ``torch.func.vmap``."""

    @staticmethod
    def forward(z: Tensor, coils: float) -> Tensor:
        return _bessel(z, coils).log_g

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.coils = inputs[1]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        (z,) = ctx.saved_tensors
        return grad_output * ratio_minus_one(z, ctx.coils), None

    @staticmethod
    def jvp(ctx, tangent: Tensor, _) -> Tensor:
        (z,) = ctx.saved_tensors
        return tangent * ratio_minus_one(z, ctx.coils)

    @staticmethod
    def vmap(info, in_dims, z: Tensor, coils: float):
        return _LogG.apply(z, coils), in_dims[0]  # each number for itself: one axis more changes nothing


def log_g(z: Tensor, coils: float) -> Tensor:
    r""":math:`\log(e^{-z} G_L(z))` for z >= 0; for one coil the logarithm of :math:`e^{-z} I_0(z)`."""
    return _LogG.apply(z, coils)  # type: ignore[no-any-return]


def log_norm(coils: float) -> float:
    """Logarithm of 2^(L-1) Gamma(L), which the density is divided by."""
    return (coils - 1) * math.log(2) + math.lgamma(coils)


def ratio_minus_one(z: Tensor, coils: float) -> Tensor:
    r""":math:`I_L(z) / I_{L-1}(z) - 1` for z >= 0, the slope of :func:`log_g`."""
    excess = _bessel(z, coils).excess
    return -excess / (z + excess)


def log_g_and_slope(z: Tensor, coils: float) -> tuple[Tensor, Tensor]:
    """:func:`log_g` and its slope in z at the price of one, each ``(...)``."""
    found = _bessel(z, coils)
    return found.log_g, -found.excess / (z + found.excess)


class ChiMoments(NamedTuple):
    """Mean and variance of a non-central chi distribution, and the slopes of both over nu, each ``(...)``."""

    mean: Tensor
    variance: Tensor
    slope: Tensor
    variance_slope: Tensor


class _Table(NamedTuple):
    """By a / (a + _HALF) = 0 .. 1 and at sigma 1: variance and its slope over the place, and the Fisher information."""

    variance: Tensor
    variance_slope: Tensor
    fisher: Tensor


@functools.cache
def _table(coils: float) -> _Table:
    """By quadrature; from a signal of 60 on by the leading terms of series in 1 / a^2."""
    place = torch.linspace(0, 1, _NODES + 1, dtype=torch.float64)
    a = (_HALF * place / (1 - place)).clamp_max(60.0)[:, None]
    middle = torch.sqrt(a.square() + 2 * coils - 1)
    lower = (middle - 10).clamp_min(0)
    nodes, weights = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(_QUADRATURE))
    x = lower + (middle + 10 - lower) * (1 + nodes) / 2
    g, slope = log_g_and_slope(x * a, coils)
    density = ((2 * coils - 1) * x.log() - (x - a).square() / 2 + g - log_norm(coils)).exp()
    density = density * weights
    density = density / density.sum(-1, keepdim=True)
    score = x - a + x * slope

    def expected(values: Tensor) -> Tensor:
        return (density * values).sum(-1)

    mean = expected(x)[:, None]
    variance, fisher = expected((x - mean).square()), expected(score.square())
    # the score is the slope of the log-density in a, so this is the slope of the variance in a
    bend = expected((x - mean).square() * score)
    v = ((1 - place) / (_HALF * place.clamp_min(0.1))).square()
    far = a.squeeze(-1) >= 60.0
    first = (2 * coils - 1) / 2
    variance = torch.where(far, 1 - first * v, variance)
    bend = torch.where(far, 2 * first * v.pow(1.5), bend)
    fisher = torch.where(far, 1 - first * v, fisher)
    by_place = torch.where(far, 2 * first * v.sqrt() / _HALF, bend * _HALF / (1 - place).clamp_min(1e-9).square())
    by_place[-1] = 0.0
    return _Table(*(torch.cat([t, t[-1:]]) for t in (variance, by_place, fisher)))


@functools.cache
def _table_on(coils: float, device: torch.device, dtype: torch.dtype) -> _Table:
    with torch.inference_mode(False):
        return _Table(*(t.to(device, dtype) for t in _table(coils)))


def _place(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a signal lies in the tables: 0 .. 1, the node below, and how far it is to the next."""
    t = a / (a + _HALF)
    index = (t.detach() * _NODES).long()
    return t, index, t * _NODES - index


def ncchi_moments(nu: Tensor, sigma: Tensor, coils: float) -> ChiMoments:
    r"""Moments of the root of a sum of squares over coils.

    The variance is interpolated in a table made by quadrature, cubic between its nodes; the mean follows from
    :math:`\mathrm{mean}^2 = \nu^2 + 2 L \sigma^2 - \mathrm{variance}`.
    """
    table = _table_on(coils, nu.device, nu.dtype)
    a = nu / sigma
    t, index, x = _place(a)
    low, high = table.variance[index], table.variance[index + 1]
    m0, m1 = table.variance_slope[index] / _NODES, table.variance_slope[index + 1] / _NODES
    # Hermite's cubic and its slope, about the lower node
    c2, c3 = 3 * (high - low) - 2 * m0 - m1, 2 * (low - high) + m0 + m1
    variance = low + x * (m0 + x * (c2 + x * c3))
    bend = (m0 + x * (2 * c2 + 3 * x * c3)) * _NODES * (1 - t).square() / _HALF
    mean = torch.sqrt(a.square() + 2 * coils - variance)
    slope = (2 * a - bend) / (2 * mean)
    return ChiMoments(sigma * mean, sigma.square() * variance, slope, sigma * bend)


def ncchi_fisher(nu: Tensor, sigma: Tensor, coils: float) -> Tensor:
    r"""Fisher information about :math:`\nu` of one measurement, ``(...)``, between 0 and :math:`1/\sigma^2`."""
    table = _table_on(coils, nu.device, nu.dtype).fisher
    _, index, x = _place((nu / sigma).clamp_min(0))
    return torch.lerp(table[index], table[index + 1], x) / sigma.square()
