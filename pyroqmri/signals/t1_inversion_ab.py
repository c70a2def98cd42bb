"""Longitudinal relaxation after inversion, with two free amplitudes."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import SCAN_UNIT, Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.recovery_grid import best_recovery


class T1InversionAB(SignalModel):
    r"""Magnitude of a recovery with two free amplitudes, which takes any inversion and any repetition time.

    .. math:: S(TI) = \left| a + b\, e^{-TI/T_1} \right|

    a and b are in the units of the measurements and take the place of S0. Neither the pulse nor the repetition time
    is modelled, so that T1 is right whatever they are, as long as all inversion times have the same. The polarity of
    magnitudes is that of the likeliest recovery with a above and b below zero. Real-part data, which keep their sign,
    are for `t1_inversion_ab_signed`.

    Source: Barral et al. 2010, doi:10.1002/mrm.22497.
    """

    requires = ("ti",)
    source = "doi:10.1002/mrm.22497"
    suffix = "T1map"
    parameters = (
        Parameter("T1", "T_1", "ms", 10.0, 6000.0, "longitudinal relaxation time"),
        Parameter("a", "a", SCAN_UNIT, 0.0, 4.0, "signal after full recovery"),
        Parameter("b", "b", SCAN_UNIT, -8.0, 0.0, "change of the signal by the inversion"),
    )
    expected = {"T1": (1200.0, 500.0, 350.0)}
    expected_source = "Stanisz et al. 2005, doi:10.1002/mrm.20605"
    typical_tissue = {
        "white matter": {"T1": (850.0, 50.0), "a": (1.0, 0.05), "b": (-1.90, 0.1)},
        "grey matter": {"T1": (1350.0, 90.0), "a": (1.0, 0.05), "b": (-1.90, 0.1)},
        "csf": {"T1": (4200.0, 250.0), "a": (1.0, 0.05), "b": (-1.90, 0.1)},
    }
    default_protocol = Acquisition(ti=torch.tensor([50.0, 150, 300, 600, 1000, 1700, 2800, 4500]))

    @staticmethod
    def signal(acq, T1, a, b):
        return recovery(acq, T1, a, b).abs()

    @classmethod
    def first_guess(cls, acq, y):
        return dict(zip(("T1", "a", "b"), best_recovery(acq, y, cls.signed), strict=True))


class T1InversionABSigned(T1InversionAB):
    r"""Recovery with two free amplitudes in data that keep their sign, such as the real part of the image.

    .. math:: S(TI) = a + b\, e^{-TI/T_1}

    Signed data have Gaussian noise: use `--likelihood gaussian`.

    Source: Barral et al. 2010, doi:10.1002/mrm.22497.
    """

    signed = True

    @staticmethod
    def signal(acq, T1, a, b):
        return recovery(acq, T1, a, b)


def recovery(acq, T1: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Measurement at each inversion time."""
    return a + b * torch.exp(-acq.ti / T1)
