"""How far an approximate posterior can be trusted: the Pareto shape of its importance weights."""

import math

import torch
from torch import Tensor


def pareto_khat(log_weights: Tensor) -> Tensor:
    """Shape k of the generalised Pareto tail of importance weights, one for each row of ``(N, S)``.

    Below 0.5 the weights have a variance; above 0.7 moments under the approximation
    cannot be trusted. A row whose weights are all equal has k = -inf.

    Source: Vehtari et al. 2024, arXiv:1507.02646; fit by Zhang and Stephens 2009, doi:10.1198/tech.2009.08017.
    """
    n_draws = log_weights.shape[-1]
    n_tail = min(n_draws // 5, math.ceil(3 * math.sqrt(n_draws)))
    top = log_weights.double().topk(n_tail + 1, dim=-1).values.flip(-1)
    top = (top - top[..., -1:]).exp()
    excess = top[..., 1:] - top[..., :1]
    shape = _fit_shape(excess.clamp_min(1e-300))
    # a tail that differs by the rounding of float32 log weights alone has no shape
    flat = excess[..., -1] < 1e-3
    return torch.where(flat, -torch.inf, shape).to(log_weights.dtype)


def _fit_shape(x: Tensor) -> Tensor:
    """Posterior mean of the shape for sorted exceedances ``(N, n)``, with the weak prior of PSIS around 0.5."""
    n = x.shape[-1]
    m = 30 + int(math.sqrt(n))
    grid = 1 - torch.sqrt(m / (torch.arange(1, m + 1, dtype=x.dtype, device=x.device) - 0.5))
    quartile = x[..., int(n / 4 + 0.5) - 1].unsqueeze(-1)
    b = grid / (3 * quartile) + 1 / x[..., -1:]
    k = torch.log1p(-b.unsqueeze(-1) * x.unsqueeze(-2)).mean(-1)
    profile = n * (torch.log(-(b / k)) - k - 1)
    b = (profile.softmax(-1) * b).sum(-1, keepdim=True)
    k = torch.log1p(-b * x).mean(-1)
    return (n * k + 5) / (n + 10)
