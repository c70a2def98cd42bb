"""Closed-form MR physics, one equation a file."""

from pyroqmri.signals.adc import ADC
from pyroqmri.signals.ball_stick import BallStick
from pyroqmri.signals.ball_sticks import BallSticks
from pyroqmri.signals.ball_sticks_gamma import BallSticksGamma
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.bound import BoundSignal
from pyroqmri.signals.cest_lorentz import CESTLorentz
from pyroqmri.signals.dki import DKI
from pyroqmri.signals.dti import DTI
from pyroqmri.signals.fwdti import FWDTI
from pyroqmri.signals.ivim import IVIM
from pyroqmri.signals.mp2rage import MP2RAGE, MP2RAGEFreeB1, mp2rage_acquisition
from pyroqmri.signals.mpm import MPM
from pyroqmri.signals.msdki import MSDKI
from pyroqmri.signals.mwf import MWF
from pyroqmri.signals.noddi import NODDI
from pyroqmri.signals.t1_inversion import T1Inversion, T1InversionSigned
from pyroqmri.signals.t1_inversion_ab import T1InversionAB, T1InversionABSigned
from pyroqmri.signals.t1_looklocker import T1LookLocker
from pyroqmri.signals.t1_vfa import T1VFA, T1VFAFreeB1
from pyroqmri.signals.t2_adc import T2ADC
from pyroqmri.signals.t2_biexp import T2Biexp
from pyroqmri.signals.t2_decay import T2Decay
from pyroqmri.signals.t2_epg import T2EPG, T2EPGGivenB1
from pyroqmri.signals.t2_floor import T2Floor
from pyroqmri.signals.t2star_decay import T2StarDecay
from pyroqmri.signals.wassr import WASSR

SIGNALS: dict[str, type[SignalModel]] = {
    "msdki": MSDKI,
    "ball_stick": BallStick,
    "ball_sticks": BallSticks,
    "ball_sticks_gamma": BallSticksGamma,
    "dti": DTI,
    "dki": DKI,
    "fwdti": FWDTI,
    "noddi": NODDI,
    "adc": ADC,
    "ivim": IVIM,
    "t2_adc": T2ADC,
    "t1_inversion": T1Inversion,
    "t1_inversion_signed": T1InversionSigned,
    "t1_inversion_ab": T1InversionAB,
    "t1_inversion_ab_signed": T1InversionABSigned,
    "t1_looklocker": T1LookLocker,
    "t1_vfa": T1VFA,
    "t1_vfa_free_b1": T1VFAFreeB1,
    "t2_decay": T2Decay,
    "t2_epg": T2EPG,
    "t2_epg_given_b1": T2EPGGivenB1,
    "t2_floor": T2Floor,
    "t2_biexp": T2Biexp,
    "t2star_decay": T2StarDecay,
    "mwf": MWF,
    "mp2rage": MP2RAGE,
    "mp2rage_free_b1": MP2RAGEFreeB1,
    "mpm": MPM,
    "cest_lorentz": CESTLorentz,
    "wassr": WASSR,
}

__all__ = [
    "ADC",
    "DKI",
    "DTI",
    "FWDTI",
    "IVIM",
    "MP2RAGE",
    "MPM",
    "MSDKI",
    "MWF",
    "NODDI",
    "SIGNALS",
    "T1VFA",
    "T2ADC",
    "T2EPG",
    "WASSR",
    "BallStick",
    "BallSticks",
    "BallSticksGamma",
    "BoundSignal",
    "CESTLorentz",
    "MP2RAGEFreeB1",
    "SignalModel",
    "T1Inversion",
    "T1InversionAB",
    "T1InversionABSigned",
    "T1InversionSigned",
    "T1LookLocker",
    "T1VFAFreeB1",
    "T2Biexp",
    "T2Decay",
    "T2EPGGivenB1",
    "T2Floor",
    "T2StarDecay",
    "mp2rage_acquisition",
]
