"""Protocols in words, with the names that options take."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition

_UNITS = {
    "bval": ("s/mm2", 1000.0),
    "flip": ("degrees", 180 / math.pi),
    "offset": ("ppm", 1.0),
    "mt": ("(on 1, off 0)", 1.0),
}
_MOST = 6  # values that are listed


def listed(words: Sequence[str]) -> str:
    """Words in one phrase: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def unit_of(name: str) -> tuple[str, float]:
    """The unit that a setting is shown in, and the factor that brings it there."""
    return _UNITS.get(name, ("ms", 1.0))


def values_in_words(name: str, values: Tensor) -> str:
    """The distinct values of a setting with its name and unit, such as ``te 10, 20 and 30 ms``."""
    unit, factor = unit_of(name)
    shown = torch.unique(torch.round(values.double() * factor * 1000) / 1000)
    if len(shown) > _MOST:
        return f"{len(shown)} values of {name} from {shown[0]:.5g} to {shown[-1]:.5g} {unit}"
    return f"{name} {listed([f'{value:.5g}' for value in shown.tolist()])} {unit}"


def protocol_in_words(acquisition: Acquisition, names: Iterable[str]) -> str:
    """The settings ``names`` of an acquisition and their distinct values."""
    settings, words = acquisition.settings(), []
    for name in names:
        if name not in settings:
            continue
        if name != "bvec":
            words.append(values_in_words(name, settings[name]))
        else:
            n = n_axes(acquisition)
            words.append(f"{n} direction{'' if n == 1 else 's'}")
    return "; ".join(words)


def n_axes(acquisition: Acquisition) -> int:
    """Gradient axes that differ, opposite directions being one; none at b = 0."""
    assert acquisition.bvec is not None
    g = acquisition.bvec.double()
    if acquisition.bval is not None:
        g = g[acquisition.bval > 0]
    outer = (g.unsqueeze(-1) * g.unsqueeze(-2)).flatten(1)
    return len(torch.unique(torch.round(outer / 0.02), dim=0))
