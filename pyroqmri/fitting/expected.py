"""What is expected of a population before any voxel is measured, as the hyperprior of its latents."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.recipe import Recipe
from pyroqmri.signals import BoundSignal

SPREAD = math.log(2.0)  # sd of the log of a population's sd: within a factor of two either way


def expected_latents(recipe: Recipe, signal: BoundSignal) -> Tensor:
    """Mean and sd of the latents' population means, then of their log sds ``(4, P)``; NaN where nothing is expected.

    The recipe's ``[expected]`` stands before what the signal expects; a parameter whose usual mean lies outside of a
    narrower range has none. The population of a nuisance is known: both sds are zero.

    Raises
    ------
    InputError
        When the recipe names no free parameter, or a mean outside of its range.
    """
    own: Mapping[str, Any] = recipe.tables.get("expected", {})
    names = [p.name for p in signal.tissue]
    for name in own:
        if name not in names:
            raise InputError(f"expected.{name} names no free parameter; these are {', '.join(names)}")
    nuisance = {name: (mean, 0.0, sd) for name, (mean, sd) in signal.signal.nuisance.items()}
    both = {**signal.signal.expected, **nuisance, **own}
    found, mean = torch.full((4, len(names)), torch.nan), dict[str, Tensor]()
    for i, p in enumerate(signal.tissue):
        value = tuple(both.get(p.name, ()))
        inside = len(value) == 3 and p.lower < value[0] < p.upper
        if value and not inside and p.name in own:
            raise InputError(
                f"expected.{p.name} must have a mean inside {p.lower:g}..{p.upper:g} {p.unit}, got {value[0]:g}"
            )
        mean[p.name] = torch.tensor(value[0] if inside else (p.lower + p.upper) / 2)
        if inside:
            box = signal.box(p, mean)
            u = p.unconstrain(mean[p.name], box)
            slope = p.slope(u, box)
            spread = torch.tensor(0.0 if p.name in nuisance and p.name not in own else SPREAD)
            found[:, i] = torch.stack([u, value[1] / slope, (value[2] / slope).log(), spread])
    return found
