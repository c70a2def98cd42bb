"""Functions of the Rice distribution that stay accurate from no signal to any signal in float32."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor


class _LogI0e(torch.autograd.Function):
    """log(exp(-z) I_0(z)) whose gradient is right at z = 0 and keeps its digits for large z."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return torch.special.i0e(z).log()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grad_output * bessel_ratio_minus_one(z)


def log_i0e(z: Tensor) -> Tensor:
    r"""Logarithm of the exponentially scaled Bessel function, :math:`\log(e^{-z} I_0(z))`, for z >= 0."""
    return _LogI0e.apply(z)  # type: ignore[no-any-return]


def bessel_ratio_minus_one(z: Tensor) -> Tensor:
    r""":math:`I_1(z)/I_0(z) - 1` for z >= 0; an asymptotic series above 50, where the difference loses digits."""
    w = 1 / z.clamp_min(50)
    series = -w * (1 / 2 + w * (1 / 8 + w * (1 / 8 + w * 25 / 128)))
    direct = torch.special.i1e(z) / torch.special.i0e(z) - 1
    return torch.where(z > 50, series, direct)


class RiceMoments(NamedTuple):
    """Mean and variance of a Rice distribution, and the slope of the mean over nu, each ``(...)``."""

    mean: Tensor
    variance: Tensor
    slope: Tensor


def rice_moments(nu: Tensor, sigma: Tensor) -> RiceMoments:
    r"""Moments of Rice(nu, sigma) that keep their digits.

    The mean is :math:`\sigma\sqrt{\pi/2}\,L_{1/2}(-\nu^2/2\sigma^2)`, the variance
    :math:`2\sigma^2 + \nu^2 - \mathrm{mean}^2`.
    Series take over where digits would cancel: in the mean's slope above SNR 20, in the variance above SNR 6.
    """
    a = nu / sigma
    near = a.clamp_max(20)
    h = near.square() / 4
    i0, i1 = torch.special.i0e(h), torch.special.i1e(h)
    v = 1 / a.clamp_min(20).square()
    far = a > 20
    mean = torch.where(
        far, a * (1 + v * (1 / 2 + v * (1 / 8 + v * 3 / 16))), math.sqrt(math.pi / 2) * (i0 + 2 * h * (i0 + i1))
    )
    slope = torch.where(far, 1 - v * (1 / 2 + v * (3 / 8 + v * 15 / 16)), math.sqrt(math.pi / 8) * near * (i0 + i1))
    v = 1 / a.clamp_min(6).square()
    series = 1 - v * (1 / 2 + v * (1 / 2 + v * (11 / 8 + v * 23 / 4)))
    variance = torch.where(a > 6, series, 2 + a.square() - mean.square())
    return RiceMoments(sigma * mean, sigma.square() * variance, slope)


@functools.cache
def _fisher_table(n: int = 512, top: float = 12.0) -> Tensor:
    """Fisher information about nu of one Rice(nu, 1) measurement at nu = 0 .. top, by quadrature in float64."""
    nu = torch.linspace(0, top, n, dtype=torch.float64)[:, None]
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)[None]
    lower = (nu - 9).clamp_min(0)
    x = lower + (nu + 9 - lower) * t
    z = x * nu
    density = x * torch.exp(-((x - nu) ** 2) / 2) * torch.special.i0e(z)
    ratio = torch.special.i1e(z) / torch.special.i0e(z)
    step = (nu + 9 - lower).squeeze(-1) / 2000
    second = torch.trapezoid(density * (x * ratio) ** 2, dx=1.0) * step
    return second - nu.squeeze(-1).square()


def rice_fisher(nu: Tensor, sigma: Tensor) -> Tensor:
    r"""Fisher information about :math:`\nu` of one Rice measurement, ``(...)``, between 0 and :math:`1/\sigma^2`."""
    table = _fisher_table().to(nu.device, nu.dtype)
    position = (nu / sigma).clamp(0, 11.999) * ((len(table) - 1) / 12.0)
    index = position.floor().long()
    fraction = position - index
    inside = table[index] * (1 - fraction) + table[index + 1] * fraction
    v = (sigma / nu.clamp_min(11.999 * sigma)).square()
    return torch.where(nu < 11.999 * sigma, inside, 1 - v / 2) / sigma.square()
