"""Per-voxel inputs of a signal, such as B1, for voxels that are simulated."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.signals.base import SignalModel


def draw_inputs(signal: type[SignalModel], given: Mapping[str, Any] | None, n: int, seed: int) -> dict[str, Tensor]:
    """Each input of a signal for ``n`` voxels ``(n,)``.

    Parameters
    ----------
    given
        By name: a number for all voxels, a pair of numbers for values uniform between them, or an array ``(K,)`` whose
        values are drawn from, such as those of a map. An input that is not named has its default.
    seed
        Of the draws.

    Raises
    ------
    InputError
        When a name is none of the signal's, a value is not finite, or an input without a default is missing.
    """
    given = dict(given or {})
    for name in given:
        if name not in signal.inputs:
            has = ", ".join(signal.inputs) if signal.inputs else "none"
            raise InputError(f"{signal.__name__} has no input {name!r}; its inputs are: {has}")
    found = {}
    for i, name in enumerate(signal.inputs):
        value = given.get(name, signal.default_input(name))
        if value is None:
            raise InputError(f"{signal.__name__} needs the input {name}; give a value, a range or a map with --input")
        found[name] = _drawn(name, value, n, torch.Generator().manual_seed(seed + 31 * i))
    return found


def _drawn(name: str, value: Any, n: int, generator: torch.Generator) -> Tensor:
    values = torch.as_tensor(value, dtype=torch.float32).flatten()
    if not len(values) or not torch.isfinite(values).all():
        raise InputError(f"input {name} must be finite numbers, got {value!r}"[:200])
    if len(values) == 1:
        return values.expand(n).clone()
    if len(values) == 2:
        low, high = values.sort().values
        return low + (high - low) * torch.rand(n, generator=generator)
    return values[torch.randint(len(values), (n,), generator=generator)]
