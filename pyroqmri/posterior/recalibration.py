"""Correction of intervals that were seen to be too narrow, too wide or shifted on simulations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyroqmri.parameter import SCAN_UNIT, Parameter

LEVELS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
POINTS = 256  # that stand for a posterior whose draws are mapped


@dataclass(frozen=True)
class Recalibration:
    r"""A monotone map of each parameter's posterior, learned on simulations.

    In the unconstrained coordinate :math:`u` of a parameter, standardised by each voxel's own posterior median and
    sd, draws follow a distribution :math:`F` over all simulated voxels and truths follow :math:`G`. Draws are moved by
    :math:`h = G^{-1} \circ F`, piecewise linear between quantiles and straight beyond them. Where the posterior is
    calibrated :math:`h` is the identity; a posterior too narrow by a factor or shifted by a share of its sd is put
    right. Bounds hold, the order of draws stays, and so does the dependence between parameters. Class
    probabilities, predictive checks, log-likelihoods and axes are those of the posterior as it was.

    After Kuleshov et al. 2018, arXiv:1807.00263, with one map for all voxels, in units of each voxel's own posterior.

    Parameters
    ----------
    maps
        For each parameter the quantiles of draws and those of truths, two tuples of equal length.
    made
        How it was learned, for a file.
    """

    maps: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    made: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, theta: Mapping[str, Tensor], reference: Mapping[str, Tensor], parameters: Mapping[str, Parameter]
    ) -> dict[str, Tensor]:
        """Draws ``(S, n)`` moved; ``reference`` holds the points ``(R, n)`` that stand for the same posteriors."""
        moved = dict(theta)
        for name, (source, target) in self.maps.items():
            p = parameters[name]
            loc, scale = _standard(coordinate(p, reference[name]))
            w = (coordinate(p, theta[name]) - loc) / scale
            moved[name] = value(p, loc + scale * _bend(w, w.new_tensor(source), w.new_tensor(target)))
        return moved

    def record(self) -> dict[str, Any]:
        """As plain values."""
        maps = {name: {"draws": list(source), "truths": list(target)} for name, (source, target) in self.maps.items()}
        return {"levels": list(LEVELS), "maps": maps, "made": self.made}

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> "Recalibration | None":
        """Back from plain values."""
        if record is None:
            return None
        maps = {name: (tuple(m["draws"]), tuple(m["truths"])) for name, m in record["maps"].items()}
        return cls(maps, dict(record["made"]))


def learn_recalibration(
    draws: Mapping[str, Tensor], truth: Mapping[str, Tensor], parameters: Mapping[str, Parameter], made: dict[str, Any]
) -> Recalibration:
    """The maps of every scalar parameter but angles, from draws ``(S, N)`` of posteriors and their truths ``(N,)``."""
    maps = {}
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    for name, p in parameters.items():
        if p.unit == "rad" or name not in truth:
            continue
        u, u_true = coordinate(p, draws[name]), coordinate(p, truth[name])
        loc, scale = _standard(u)
        found = [((u - loc) / scale)[:100].flatten(), (u_true - loc) / scale]
        source, target = (_quantiles(w[w.isfinite()].double(), levels) for w in found)
        maps[name] = (_rising(source), _rising(target))
    return Recalibration(maps, made)


def coordinate(p: Parameter, x: Tensor) -> Tensor:
    """The coordinate in which a parameter has no bounds; S0 and amplitudes come in the scan's own units."""
    if p.name == "S0":
        return x.clamp_min(torch.finfo(x.dtype).tiny).log()
    return x if p.unit == SCAN_UNIT else p.unconstrain(x)


def value(p: Parameter, u: Tensor) -> Tensor:
    """The inverse of :func:`coordinate`."""
    if p.name == "S0":
        return u.exp()
    return u if p.unit == SCAN_UNIT else p.constrain(u)


def _standard(u: Tensor) -> tuple[Tensor, Tensor]:
    return u.median(0).values, u.std(0).clamp_min(1e-9)


def _quantiles(w: Tensor, levels: Tensor) -> Tensor:
    # torch.quantile takes 16 million values at most
    rows = w.sort().values
    place = levels * (len(rows) - 1)
    low = place.long()
    return torch.lerp(rows[low], rows[(low + 1).clamp_max(len(rows) - 1)], place - low)


def _rising(values: Tensor) -> tuple[float, ...]:
    steps = values.diff().clamp_min(1e-6)
    return tuple(torch.cat([values[:1], values[:1] + steps.cumsum(0)]).tolist())


def _bend(w: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Piecewise linear map through the knots, straight beyond them along the outer tenth of the mass."""
    i = torch.searchsorted(source, w.contiguous()).clamp(1, len(source) - 1) - 1
    share = (w - source[i]) / (source[i + 1] - source[i])
    inner = target[i] + share * (target[i + 1] - target[i])
    outer = _slopes(source, target)
    below = target[0] + (w - source[0]) * outer[0]
    above = target[-1] + (w - source[-1]) * outer[1]
    return torch.where(w < source[0], below, torch.where(w > source[-1], above, inner))


def _slopes(source: Tensor, target: Tensor) -> list[Tensor]:
    ends = ((0, 2), (-3, -1))
    return [(target[j] - target[i]) / (source[j] - source[i]) for i, j in ends]
