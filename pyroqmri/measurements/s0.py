"""Which measurements are S0 itself: the one answer, used wherever it matters."""

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import FAR_OFFSET, WEIGHTED_ABOVE, Acquisition
from pyroqmri.parameter import SCAN_UNIT
from pyroqmri.signals import SignalModel


def s0_volumes(acq: Acquisition, negligible_b: float) -> Tensor:
    """Mask ``(M,)`` of the measurements that are S0 itself.

    Parameters
    ----------
    negligible_b
        The largest b-value in ms/um2 that does nothing to the signal, :attr:`SignalModel.negligible_b`. Without
        b-values it is saturation further than 20 ppm away that does nothing.
    """
    if acq.bval is not None:
        return acq.bval <= negligible_b + 1e-5  # b-values are float32
    if acq.offset is not None:
        return acq.offset.abs() > FAR_OFFSET
    return torch.zeros(len(acq), dtype=torch.bool)


def settled_s0(signal: type[SignalModel], s0: str | float, acq: Acquisition) -> str | float:
    """What ``s0`` comes to: "measured" becomes "inferred" where no measurement of the signal is S0 itself."""
    if not signal.has_s0(acq) and all(p.unit != SCAN_UNIT for p in signal.parameters):
        return 1.0  # a ratio of measurements has no scale
    if s0 != "measured" or (signal.measures_s0() and bool(s0_volumes(acq, signal.negligible_b).any())):
        return s0
    return "inferred"


def s0_note(s0: str | float, acq: Acquisition, negligible_b: float) -> str:
    """A sentence on what S0 is made of in a scan."""
    if s0 not in ("measured", "inferred"):
        return f"S0 is known: {s0:g} in every voxel"
    which = s0_volumes(acq, negligible_b)
    n, low = int(which.sum()), acq.bval is not None
    if s0 == "inferred" and not n:
        return f"S0 is inferred: {_none_is_s0(acq, negligible_b)}"
    volumes = f"{n} volume{'' if n == 1 else 's'} {_span(acq, which)}"
    if s0 == "inferred":
        return f"S0 is inferred; {volumes} count as any other"
    others = acq.bval[(acq.bval <= WEIGHTED_ABOVE) & ~which] if low else None  # type: ignore[index]
    rest = ""
    if others is not None and len(others):
        many = "1 other up to b 50 keeps its" if len(others) == 1 else f"{len(others)} others up to b 50 keep their"
        rest = f"; {many} own b-value in the model"
    return f"S0 is measured on {volumes}{rest}"


def _none_is_s0(acq: Acquisition, negligible_b: float) -> str:
    if acq.bval is not None:
        lowest, most = 1000 * float(acq.bval.min()), 1000 * negligible_b
        return f"the lowest b-value is {lowest:.4g} s/mm2, and only b up to {most:.3g} would be S0 itself"
    if acq.offset is not None:
        return (
            f"the farthest offset is {float(acq.offset.abs().max()):.4g} ppm, and only beyond {FAR_OFFSET:g} is it S0"
        )
    return "no measurement of this signal is S0 itself"


def _span(acq: Acquisition, which: Tensor) -> str:
    if acq.bval is None:
        return f"saturated beyond {FAR_OFFSET:g} ppm"
    values = np.unique((1000 * acq.bval[which].double().numpy()).round(1))
    return f"at b {values[0]:g}" + (f" to {values[-1]:g}" if len(values) > 1 else "") + " s/mm2"
