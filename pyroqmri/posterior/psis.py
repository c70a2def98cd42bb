"""Importance weights of an approximate posterior: the Pareto shape of their tail, and the tail smoothed."""

import math

import torch
from torch import Tensor


def pareto_khat(log_weights: Tensor) -> Tensor:
    """Shape k of the generalised Pareto tail of importance weights, one for each row of ``(N, S)``.

    Below 0.5 the weights have a variance; above 0.7 moments under the approximation
    cannot be trusted. A row whose weights are all equal has k = -inf.

    Source: Vehtari et al. 2024, arXiv:1507.02646; fit by Zhang and Stephens 2009, doi:10.1198/tech.2009.08017.
    """
    return _tail(log_weights)[0].to(log_weights.dtype)


def smoothed(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Importance weights ``(N, S)`` that sum to one, their tail smoothed, and the Pareto shapes ``(N,)``.

    The largest weights are replaced by the expected order statistics of the fitted
    tail, and none exceeds the largest that was drawn.

    Source: Pareto-smoothed importance sampling, Vehtari et al. 2024, arXiv:1507.02646.
    """
    shape, scale, cutoff, place = _tail(log_weights)
    k, n = shape.unsqueeze(-1), place.shape[-1]
    level = (torch.arange(n, dtype=k.dtype, device=k.device) + 0.5) / n
    exact = torch.where(k.abs() < 1e-6, 1e-6, k)
    excess = scale.unsqueeze(-1) * torch.expm1(-exact * torch.log1p(-level)) / exact
    w = log_weights.double() - log_weights.double().amax(-1, keepdim=True)
    tail = (excess + cutoff.unsqueeze(-1)).log().clamp_max(0)
    tail = torch.where(shape.isfinite().unsqueeze(-1), tail, w.gather(-1, place))
    return w.scatter(-1, place, tail).softmax(-1).to(log_weights.dtype), shape.to(log_weights.dtype)


def efficiency(weights: Tensor) -> Tensor:
    """Effective over actual number of draws, of weights ``(N, S)`` that sum to one."""
    return 1 / (weights.square().sum(-1) * weights.shape[-1])


def _tail(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape and scale ``(N,)`` of the tail over a cutoff ``(N,)``, for a largest weight of one, and its places."""
    n_draws = log_weights.shape[-1]
    n_tail = min(n_draws // 5, math.ceil(3 * math.sqrt(n_draws)))
    top, place = log_weights.double().topk(n_tail + 1, dim=-1)
    top = (top - top[..., :1]).flip(-1).exp()
    place, cutoff = place.flip(-1)[..., 1:], top[..., 0]
    excess = top[..., 1:] - top[..., :1]
    shape, scale = _fit_shape(excess.clamp_min(1e-300))
    # a tail that differs by the rounding of float32 log weights alone has no shape
    flat = excess[..., -1] < 1e-3 * cutoff
    return torch.where(flat, -torch.inf, shape), scale, cutoff, place


def _fit_shape(x: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means of shape, with the weak prior of PSIS around 0.5, and scale for sorted exceedances ``(N, n)``."""
    n = x.shape[-1]
    m = 30 + int(math.sqrt(n))
    grid = 1 - torch.sqrt(m / (torch.arange(1, m + 1, dtype=x.dtype, device=x.device) - 0.5))
    quartile = x[..., int(n / 4 + 0.5) - 1].unsqueeze(-1)
    b = grid / (3 * quartile) + 1 / x[..., -1:]
    k = torch.log1p(-b.unsqueeze(-1) * x.unsqueeze(-2)).mean(-1)
    profile = n * (torch.log(-(b / k)) - k - 1)
    b = (profile.softmax(-1) * b).sum(-1, keepdim=True)
    k = torch.log1p(-b * x).mean(-1)
    return (n * k + 5) / (n + 10), -k / b.squeeze(-1)
