"""Draws of an axis in space, whose sign means nothing."""

import torch
from torch import Tensor

LEVELS = 41  # quantiles of the angle to the mean axis that are kept


def axis_summary(n: Tensor) -> dict[str, Tensor]:
    """Mean axis of draws ``(S, n, 3)`` by their dyadic mean, and quantiles of the draws' angles to it in degrees."""
    axis = mean_axis(n)
    angles = torch.rad2deg(torch.acos((n * axis).sum(-1).abs().clamp(max=1)))
    return {"axis": axis, "angles": torch.quantile(angles, torch.linspace(0, 1, LEVELS).to(angles), dim=0).T}


def cone_angle(angles: Tensor, p: float) -> Tensor:
    """Angle ``(n,)`` that probability ``p`` lies within, of the quantiles that :func:`axis_summary` keeps."""
    if not 0 < p < 1:
        raise ValueError(f"a cone's probability lies between 0 and 1, got {p}")
    place = p * (LEVELS - 1)
    return torch.lerp(angles[:, int(place)], angles[:, min(int(place) + 1, LEVELS - 1)], place - int(place))


def mean_axis(n: Tensor) -> Tensor:
    """Mean ``(n, 3)`` of axes ``(S, n, 3)``, whose signs mean nothing, on the side of positive z."""
    axis = torch.linalg.eigh(torch.einsum("sni,snj->nij", n, n) / len(n)).eigenvectors[..., -1]
    return axis * torch.where(axis[..., 2:] < 0, -1.0, 1.0)
