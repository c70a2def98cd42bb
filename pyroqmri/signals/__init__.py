"""Closed-form MR physics, one equation a file."""

from pyroqmri.signals.ball_stick import BallStick
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.bound import BoundSignal
from pyroqmri.signals.dti import DTI
from pyroqmri.signals.ivim import IVIM
from pyroqmri.signals.msdki import MSDKI

SIGNALS: dict[str, type[SignalModel]] = {
    "msdki": MSDKI,
    "ball_stick": BallStick,
    "dti": DTI,
    "ivim": IVIM,
}

__all__ = ["DTI", "IVIM", "MSDKI", "SIGNALS", "BallStick", "BoundSignal", "SignalModel"]
