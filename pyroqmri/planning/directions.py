"""Directions that lie far from one another, among candidates that say the same."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.s0 import s0_volumes

_NEAR = 1e-3


def spread_over(index: Tensor, candidates: Acquisition, negligible_b: float) -> Tensor:
    """The choice ``(n,)`` with each measurement's direction exchanged for one that spreads them, settings as they are.

    For signals that do not depend on directions: as many of each other setting are kept.
    """
    if candidates.bvec is None or candidates.bval is None:
        return index
    others = {k: v for k, v in candidates.settings().items() if k != "bvec"}
    keys = torch.stack([torch.round(v.double() * 1e4) for v in others.values()], -1)
    keys[s0_volumes(candidates, negligible_b), :1] = 0.0
    kept: list[int] = []
    for key in torch.unique(keys[index], dim=0):
        group = torch.nonzero((keys == key).all(-1)).squeeze(-1)
        n = int((keys[index] == key).all(-1).sum())
        kept += group[spread_subset(candidates.bvec[group].double(), n)].tolist()
    return torch.tensor(sorted(kept))


def spread_subset(axes: Tensor, n: int) -> Tensor:
    """Places ``(n,)`` of those of unit vectors ``(K, 3)`` with little electrostatic energy, opposite ends being one."""
    outer = axes @ axes.mT
    energy = sum(1 / (2 - 2 * sign * outer).clamp_min(0).sqrt().clamp_min(_NEAR) for sign in (1, -1))
    assert isinstance(energy, Tensor)
    energy = energy.masked_fill(torch.eye(len(axes), dtype=torch.bool), 0.0)
    chosen = [0]
    while len(chosen) < n:
        rest = energy[:, chosen].sum(-1)
        rest[chosen] = torch.inf
        chosen.append(int(rest.argmin()))
    for _ in range(n):
        swapped = False
        for k in range(n):
            others = [c for j, c in enumerate(chosen) if j != k]
            rest = energy[:, others].sum(-1)
            rest[others] = torch.inf
            best = int(rest.argmin())
            if rest[best] < rest[chosen[k]] - 1e-9:
                chosen[k], swapped = best, True
        if not swapped:
            break
    return torch.tensor(chosen)
