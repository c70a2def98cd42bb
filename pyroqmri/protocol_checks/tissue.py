"""Tissue at which a protocol is judged: several kinds, so that a scan of any of them counts as fine."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyroqmri.parameter import Parameter
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.bound import S0
from pyroqmri.signals.kurtosis import QUARTIC
from pyroqmri.signals.tensor import ELEMENTS, elements_of

# values at 3 T of what signals without tissue of their own describe, from short-lived water to fluid
_BY_NAME: dict[str, tuple[float, ...]] = {
    "T1": (300.0, 850.0, 1350.0, 3500.0),
    "inv_eff": (0.95,),
    "T2": (1.5, 6.0, 20.0, 50.0, 80.0, 1500.0),
    "T2_short": (8.0, 15.0, 20.0),
    "T2_long": (60.0, 80.0, 100.0),
    "f": (0.3, 0.15, 0.2),
    "D": (0.8, 1.1, 3.0),
    "floor": (0.05,),
    "A_water": (0.8, 0.7),
    "w_water": (1.5, 2.5),
    "A_amide": (0.05, 0.08),
    "w_amide": (1.5, 2.0),
    "A_noe": (0.1, 0.08),
    "w_noe": (3.0, 4.0),
    "A_mt": (0.1, 0.2),
    "w_mt": (40.0, 25.0),
    "shift": (0.05,),
}
# perfusion outside the brain, whose fractions are larger
_MORE: dict[frozenset[str], tuple[dict[str, float], ...]] = {
    frozenset({"f", "D_fast", "D_slow"}): ({"f": 0.25, "D_fast": 50.0, "D_slow": 1.1},),
}
_EIGENVALUES = ((1.7, 0.4, 0.3), (1.0, 0.8, 0.7), (3.1, 3.0, 2.9))
_KURTOSIS = (1.0, 0.7, 0.1)  # isotropic, of the same tissues
_FREE_WATER = (0.1, 0.1, 0.9)
_TURN = ((0.5, 0.3, -0.6), (0.7, -0.8, 0.2), (0.4, 0.5, 0.9))  # along no axis of the scanner
_AXES = ((0.48, 0.60, 0.64), (0.8, -0.6, 0.0), (-0.36, -0.48, 0.8))
_SPREAD = (0.3, 0.5, 0.7)  # of a range that nothing is known of
_DECADES = 50.0  # upper over lower bound from which a range is gone through in logarithms
_EDGE = 0.01


def typical(signal: BoundSignal) -> tuple[Tensor, Tensor | None]:
    """Latents ``(K, L)`` of K kinds of tissue in float64, and frames ``(K, 3, 3)`` of a direction.

    The signal's ``typical_tissue`` where it has any, else common values by parameter, else points of its range.
    """
    tissues = _tissues(signal)
    theta = {name: torch.full((len(tissues),), value, dtype=torch.float64) for name, value in signal.fixed.items()}
    columns = []
    for p in signal.tissue:
        box = signal.box(p, theta)
        value = torch.tensor([_value(tissue, p, k) for k, tissue in enumerate(tissues)], dtype=torch.float64)
        share = p.share(value, box).clamp(_EDGE, 1 - _EDGE)
        theta[p.name] = p.at(share, box)
        columns.append(torch.special.ndtri(share))
    z = torch.stack(columns, -1)
    axes = torch.tensor(_AXES, dtype=torch.float64)[: len(signal.directions)]
    return signal.at_axes(z, {p.name: axis.expand(len(z), 3) for p, axis in zip(signal.directions, axes, strict=True)})


def _tissues(signal: BoundSignal) -> list[Mapping[str, float]]:
    """Values by parameter of each kind of tissue; a parameter that nothing is known of is left out."""
    names = [p.name for p in signal.signal.parameters if isinstance(p, Parameter)]
    if set(ELEMENTS) <= set(names):
        found = zip(_EIGENVALUES, _KURTOSIS, _FREE_WATER, strict=True)
        return [_tensor(values) | _kurtosis(mean) | {"FWF": water} for values, mean, water in found]
    own = [{name: mean for name, (mean, _) in tissue.items()} for tissue in signal.signal.typical_tissue.values()]
    if own:
        return [*own, *_MORE.get(frozenset(names), ())]
    known = {name: _BY_NAME[name] for name in names if name in _BY_NAME}
    n = max([len(_SPREAD) if len(known) < len(names) else 1, *map(len, known.values())])
    return [{name: values[k % len(values)] for name, values in known.items()} for k in range(n)]


def _tensor(eigenvalues: tuple[float, ...]) -> dict[str, float]:
    """Elements of a diffusion tensor whose axes lie along none of the scanner's."""
    turn = torch.linalg.qr(torch.tensor(_TURN, dtype=torch.float64))[0]
    tensor = turn @ torch.tensor(eigenvalues, dtype=torch.float64).diag() @ turn.mT
    return {name: float(value) for name, value in zip(ELEMENTS, elements_of(tensor), strict=True)}


def _kurtosis(mean: float) -> dict[str, float]:
    """Elements of a kurtosis tensor that is the same along all axes."""
    return {f"W{i}{i}{j}{j}": mean if i == j else mean / 3 for i in "xyz" for j in "xyz" if i <= j} | {
        f"W{name}": 0.0 for name in QUARTIC[6:]
    }


def _value(tissue: Mapping[str, float], p: Parameter, k: int) -> float:
    """The tissue's value of a parameter, or a point of its range."""
    if p.name == S0.name or p.name in tissue:
        return tissue.get(p.name, 1.0)
    share = _SPREAD[k % len(_SPREAD)]
    if p.lower > 0 and p.upper / p.lower >= _DECADES:
        return math.exp(math.log(p.lower) + share * math.log(p.upper / p.lower))
    return p.lower + share * (p.upper - p.lower)
