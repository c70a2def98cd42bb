"""Longitudinal relaxation after inversion."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.recovery_grid import best_recovery


class T1Inversion(SignalModel):
    r"""Magnitude of the recovery after an inversion pulse, perfect or not, repeated every TR.

    .. math:: S(TI)/S_0 = \left| 1 - 2 \eta e^{-TI/T_1} + (2 \eta - 1) e^{-TR/T_1} \right|

    Without a repetition time among the settings TR is taken for endless and the last term is left out. The signal
    is then that of Barral et al., a + b exp(-TI/T1) with a and b free: S0 is a, and `inv_eff` is -b / 2a. No pulse
    inverts more than all of the magnetization, but fits of real scans reach values above 1, where the recovery is
    not one exponential or the times are not exactly those of the sequence; a bound of 1 would bias T1. A perfect
    inversion is `fixed={"inv_eff": 1}`, or `--fix inv_eff=1`. Real-part data, which keep their sign, are for
    `t1_inversion_signed`.

    Source: Barral et al. 2010, doi:10.1002/mrm.22497.
    """

    requires = ("ti",)
    optional = ("tr",)
    source = "doi:10.1002/mrm.22497"
    suffix = "T1map"
    n_modes = 4  # whichever times are taken to lie before the magnetisation's zero, a T1 goes with it
    parameters = (
        Parameter("T1", "T_1", "ms", 10.0, 6000.0, "longitudinal relaxation time"),
        Parameter("inv_eff", r"\eta", "1", 0.4, 1.5, "inversion efficiency: 1 inverts, 0.5 saturates"),
    )
    expected = {"T1": (1200.0, 500.0, 350.0), "inv_eff": (0.95, 0.15, 0.05)}
    expected_source = "Stanisz et al. 2005, doi:10.1002/mrm.20605; efficiencies of adiabatic pulses"
    typical_tissue = {
        "white matter": {"T1": (850.0, 50.0), "inv_eff": (0.96, 0.01)},
        "grey matter": {"T1": (1350.0, 90.0), "inv_eff": (0.96, 0.01)},
        "csf": {"T1": (4200.0, 250.0), "inv_eff": (0.96, 0.01)},
    }
    default_protocol = Acquisition(
        ti=torch.tensor([50.0, 150, 300, 600, 1000, 1700, 2800, 4500]), tr=torch.full((8,), 6000.0)
    )

    @staticmethod
    def signal(acq, T1, inv_eff):
        return recovery(acq, T1, inv_eff).abs()

    @classmethod
    def first_guess(cls, acq, y):
        T1, a, b = best_recovery(acq, y, cls.signed)
        if acq.tr is None:
            return {"T1": T1, "inv_eff": -b / (2 * a), "S0": a}
        # a = S0 (1 + (2 eta - 1) E), b = -2 eta S0
        left = torch.exp(-acq.tr.mean() / T1)
        S0 = (a + b * left) / (1 - left)
        return {"T1": T1, "inv_eff": -b / (2 * S0), "S0": S0}


class T1InversionSigned(T1Inversion):
    r"""Recovery after an inversion pulse in data that keep their sign, such as the real part of the image.

    .. math:: S(TI)/S_0 = 1 - 2 \eta e^{-TI/T_1} + (2 \eta - 1) e^{-TR/T_1}

    Signed data have Gaussian noise: use `--likelihood gaussian`.

    Source: Barral et al. 2010, doi:10.1002/mrm.22497.
    """

    signed = True
    n_modes = 1

    @staticmethod
    def signal(acq, T1, inv_eff):
        return recovery(acq, T1, inv_eff)


def recovery(acq, T1: Tensor, inv_eff: Tensor) -> Tensor:
    """Longitudinal magnetisation over its equilibrium at each inversion time."""
    inverted = 1 - 2 * inv_eff * torch.exp(-acq.ti / T1)
    return inverted if acq.tr is None else inverted + (2 * inv_eff - 1) * torch.exp(-acq.tr / T1)
