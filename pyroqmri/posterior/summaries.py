"""Summaries of draws: their quantiles, and those of an axis in space, whose sign means nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.signals import BoundSignal, SignalModel
from pyroqmri.signals.tensor import elements_of, fastest_axis

LEVELS = 41  # quantiles of the angle to the mean axis that are kept


def quantiles(draws: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles ``(K, n)`` of draws ``(S, n)`` at K levels, linear between draws; NaN where any draw is."""
    at = torch.as_tensor(levels, dtype=draws.dtype, device=draws.device)
    if draws.device.type != "cpu":
        return torch.quantile(draws, at, dim=0)
    ordered = torch.from_numpy(np.sort(draws.detach().numpy(), axis=0))  # in a tenth of the time of torch's sort
    place = (at * (len(ordered) - 1)).unsqueeze(-1)
    low = place.floor().clamp_max(max(0, len(ordered) - 2)).long().squeeze(-1)
    found = torch.lerp(ordered[low], ordered[(low + 1).clamp_max(len(ordered) - 1)], place - low.unsqueeze(-1))
    return torch.where(ordered[-1].isnan(), torch.nan, found)


class Axes(dict[str, Tensor]):
    """One array per direction of a signal with several, by its name; called with a name, that one."""

    def __call__(self, name: str) -> Tensor:
        """The array of the direction ``name``.

        Raises
        ------
        InputError
            When there is no such direction.
        """
        if name not in self:
            raise InputError(f"there is no direction {name!r}; name one of {', '.join(self)}")
        return self[name]


def one_or_all(axes: Mapping[str, Tensor]) -> "Tensor | Axes | None":
    """The array of the only direction, all of several by name, or None where there is none."""
    return Axes(axes) if len(axes) > 1 else next(iter(axes.values()), None)


def axis_summary(n: Tensor, name: str) -> dict[str, Tensor]:
    """Mean axis of draws ``(S, n, 3)`` by their dyadic mean, and quantiles of the draws' angles to it in degrees."""
    axis = mean_axis(n)
    angles = torch.rad2deg(torch.acos((n * axis).sum(-1).abs().clamp(max=1)))
    found = quantiles(angles, torch.linspace(0, 1, LEVELS).tolist()).T
    return {f"axis {name}": axis, f"angles {name}": found}


def empty_summary(scalars: Sequence[str], axes: Sequence[str]) -> dict[str, Tensor]:
    """What is known of no voxel at all."""
    found = dict.fromkeys(scalars, torch.empty(0))
    return (
        found | {f"axis {n}": torch.empty(0, 3) for n in axes} | {f"angles {n}": torch.empty(0, LEVELS) for n in axes}
    )


def cone_angle(angles: Tensor, p: float) -> Tensor:
    """Angle ``(n,)`` that probability ``p`` lies within, of the quantiles that :func:`axis_summary` keeps."""
    if not 0 < p < 1:
        raise ValueError(f"a cone's probability lies between 0 and 1, got {p}")
    place = p * (LEVELS - 1)
    return torch.lerp(angles[:, int(place)], angles[:, min(int(place) + 1, LEVELS - 1)], place - int(place))


def mean_axis(n: Tensor) -> Tensor:
    """Mean ``(n, 3)`` of axes ``(S, n, 3)``, whose signs mean nothing, on the side of positive z."""
    axis = fastest_axis(*elements_of(torch.einsum("sni,snj->nij", n, n) / len(n)))
    return axis * torch.where(axis[..., 2:] < 0, -1.0, 1.0)


def derived_around(signal: type[SignalModel], theta: dict[str, Tensor], axis: dict[str, Tensor]) -> dict[str, Tensor]:
    """Derived quantities of draws, their angles within half a turn of those of the mean axis ``(n, 3)`` by its name."""
    centre, found = signal.derived(theta | axis), signal.derived(theta)
    for p in signal.derived_parameters:
        if p.unit == "rad":
            turns = torch.round((found[p.name] - centre[p.name]) / (2 * torch.pi))
            found[p.name] = found[p.name] - 2 * torch.pi * turns
    return found


def with_derived(theta: dict[str, Tensor], signal: BoundSignal) -> dict[str, Tensor]:
    """Draws of parameters and of what follows from them; axes on the side of their mean, angles around its own."""
    derived, axes = signal.signal.derived, dict[str, Tensor]()
    if not signal.directions:
        theta = theta | derived(theta)
    for p in signal.axes:
        axes[p.name] = mean_axis(n := theta[p.name])
        theta[p.name] = n * torch.where((n * axes[p.name]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return theta | derived_around(signal.signal, theta, axes) if signal.directions else theta
