"""Functions of the Rice distribution that stay accurate from no signal to any signal in float32."""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from torch import Tensor

_TURN = 4.0  # where a series in z hands over to one in 1/z
_PIECE = 32_768  # numbers that stay in a core's cache


@functools.cache
def _i0e_series() -> tuple[list[Tensor], list[Tensor]]:
    """Coefficients of I_0(4 sqrt(t)) and of sqrt(z) exp(-z) I_0(z) at z = 4 / t, interpolated in t = 0 .. 1."""

    def near(t: NDArray) -> NDArray:
        z = torch.from_numpy(_TURN * np.sqrt(t))
        return (torch.special.i0e(z) * z.exp()).numpy()

    def far(t: NDArray) -> NDArray:
        z = torch.from_numpy(_TURN / t)
        return (torch.special.i0e(z) * z.sqrt()).numpy()

    found = (Chebyshev.interpolate(f, degree, domain=[0, 1]) for f, degree in ((near, 7), (far, 9)))
    near_series, far_series = ([torch.tensor(c).float() for c in s.convert(kind=Polynomial).coef] for s in found)
    return near_series, far_series


def _polynomial(t: Tensor, coefficients: list[Tensor]) -> Tensor:
    total = torch.addcmul(coefficients[-2], t, coefficients[-1])
    for c in coefficients[-3::-1]:
        total = torch.addcmul(c, total, t, out=total)
    return total


def _scaled_bessel(z: Tensor) -> Tensor:
    """exp(-z) I_0(z) without a gradient; torch's own takes three times as long in float32 on the CPU."""
    if z.device.type != "cpu" or z.dtype != torch.float32 or z.numel() < _PIECE:
        return torch.special.i0e(z)
    near, far = _i0e_series()
    found = torch.empty_like(z, memory_format=torch.contiguous_format)
    for one, place in zip(z.reshape(-1).split(_PIECE), found.view(-1).split(_PIECE), strict=True):
        low, high = one.clamp_max(_TURN), one.clamp_min(_TURN)
        small = _polynomial((low / _TURN).square_(), near).mul_(low.neg_().exp_())
        large = _polynomial(_TURN / high, far).mul_(high.rsqrt_())
        torch.where(one < _TURN, small, large, out=place)
    return found


class _I0e(torch.autograd.Function):
    """exp(-z) I_0(z) in reverse mode, in forward mode, forward over reverse, and under ``torch.func.vmap``.

    Forward over forward is not among them: torch drops the outer tangent in the ``jvp`` of every custom function.
    """

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return _scaled_bessel(z)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> Tensor:
        z, value = ctx.saved_tensors
        return grad_output * (torch.special.i1e(z) - value)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        z, value = ctx.saved_tensors
        return tangent * (torch.special.i1e(z) - value)

    @staticmethod
    def vmap(info, in_dims, z: Tensor):
        return _I0e.apply(z), in_dims[0]  # each number for itself: one axis more changes nothing


def i0e(z: Tensor) -> Tensor:
    r"""Exponentially scaled Bessel function :math:`e^{-z} I_0(z)` for z >= 0."""
    return _I0e.apply(z)  # type: ignore[no-any-return]


class _LogI0e(torch.autograd.Function):
    """log(exp(-z) I_0(z)) whose slope is right at z = 0 and keeps its digits for large z."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return _scaled_bessel(z).log()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grad_output * bessel_ratio_minus_one(z)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return tangent * bessel_ratio_minus_one(z)

    @staticmethod
    def vmap(info, in_dims, z: Tensor):
        return _LogI0e.apply(z), in_dims[0]


def log_i0e(z: Tensor) -> Tensor:
    r"""Logarithm of the exponentially scaled Bessel function, :math:`\log(e^{-z} I_0(z))`, for z >= 0."""
    return _LogI0e.apply(z)  # type: ignore[no-any-return]


def bessel_ratio_minus_one(z: Tensor) -> Tensor:
    r""":math:`I_1(z)/I_0(z) - 1` for z >= 0; an asymptotic series above 50, where the difference loses digits."""
    w = 1 / z.clamp_min(50)
    series = -w * (1 / 2 + w * (1 / 8 + w * (1 / 8 + w * 25 / 128)))
    direct = torch.special.i1e(z) / i0e(z) - 1
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
    i0, i1 = i0e(h), torch.special.i1e(h)
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
def _fisher_table_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The table where it is needed: its copy costs as much as what is looked up."""
    with torch.inference_mode(False):
        return _fisher_table().to(device, dtype)


@functools.cache
def _fisher_table(n: int = 1024) -> Tensor:
    """Fisher information about nu of one Rice(nu, 1) measurement at nu / (nu + 4) = 0 .. 1, the last one twice."""
    found = fisher_by_quadrature(torch.linspace(0, 1, n, dtype=torch.float64))
    return torch.cat([found, found[-1:]])


def fisher_by_quadrature(place: Tensor) -> Tensor:
    """Fisher information about nu of one Rice(nu, 1) measurement at places nu / (nu + 4), ``(P,)`` in float64."""
    nu = (4 * place / (1 - place)).clamp_max(12)[:, None]  # by quadrature to here, then by its series
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)[None]
    lower = (nu - 9).clamp_min(0)
    x = lower + (nu + 9 - lower) * t
    z = x * nu
    density = x * torch.exp(-((x - nu) ** 2) / 2) * torch.special.i0e(z)
    ratio = torch.special.i1e(z) / torch.special.i0e(z)
    step = (nu + 9 - lower).squeeze(-1) / 2000
    second = torch.trapezoid(density * (x * ratio) ** 2, dx=1.0) * step
    v = ((1 - place) / (4 * place.clamp_min(0.1))).square()
    return torch.where(place < 0.75, second - nu.squeeze(-1).square(), 1 - v / 2)


def rice_fisher(nu: Tensor, sigma: Tensor) -> Tensor:
    r"""Fisher information about :math:`\nu` of one Rice measurement, ``(...)``, between 0 and :math:`1/\sigma^2`."""
    table = _fisher_table_on(nu.device, nu.dtype)
    a = (nu / sigma).clamp_min(0)
    place = a / (a + 4) * (len(table) - 2)
    index = place.nan_to_num().long()  # what is not finite stays so
    return torch.lerp(table[index], table[index + 1], place - index) / sigma.square()
