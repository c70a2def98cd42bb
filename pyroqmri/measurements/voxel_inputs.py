"""Per-voxel inputs of a signal, such as B1, as the voxels to be fitted take them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.measurements.own_protocol import OWN, checked_own
from pyroqmri.signals import SignalModel


def is_factor(signal: type[SignalModel], name: str) -> bool:
    """Whether a per-voxel input multiplies, as B1 does, so that zero and less is no value."""
    default = signal.default_input(name)
    return default is not None and default > 0


def complete_inputs(signal: type[SignalModel], inputs: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Per-voxel inputs of a signal, each ``(n,)``: those given, NaN where they have no value, and the others' defaults.

    With them go, as they are, what makes the protocol a voxel's own (:mod:`pyroqmri.measurements.own_protocol`).

    Raises
    ------
    InputError
        When one is missing, unknown, of another length or without a value in every voxel.
    """
    unknown = [name for name in inputs if name not in (*signal.inputs, *OWN)]
    if unknown:
        has = f"takes {', '.join(signal.inputs)}" if signal.inputs else "takes none"
        raise InputError(f"inputs names {unknown[0]!r}, and {signal.__name__} {has}")
    complete = checked_own(inputs, n)
    for name in signal.inputs:
        default = signal.default_input(name)
        if name not in inputs and default is None:
            raise InputError(f"{signal.__name__} needs the input {name}, one number per voxel; give it with inputs")
        value = inputs[name] if default is None or name in inputs else torch.full((n,), default)
        if value.shape != (n,):
            raise InputError(f"input {name} has shape {tuple(value.shape)} for {n} voxels; give one number per voxel")
        known = value.isfinite() & ((value > 0) | (not is_factor(signal, name)))
        if n and not known.any():
            kind = "NaN, Inf or not above zero" if is_factor(signal, name) else "NaN or Inf"
            raise InputError(f"input {name} has no value ({kind}) in any of the {n} voxels; give another map")
        complete[name] = torch.where(known, value, torch.nan)
    return complete
