"""Longitudinal relaxation from a train of readouts after each inversion."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.recovery_grid import best_recovery


class T1LookLocker(SignalModel):
    r"""Magnitude of the recovery under a train of readouts, as of MOLLI, which shorten it to T1*.

    .. math:: S(t)/S_0 = \left| 1 - (B/A)\, e^{-t/T_1^*} \right|, \qquad T_1 = T_1^*\,(B/A - 1)

    S0 is A, the level that the magnetisation reaches under the readouts. The correction is that of Deichmann and Haase
    for a perfect inversion and small flip angles: a pulse of efficiency 0.96 makes T1 4 % short, and balanced readouts
    leave an error that depends on T2. Typical tissue is white and grey matter and fluid at 3 T under readouts that
    make T1* three quarters of a T1 of 850 ms.

    Source: Deichmann and Haase 1992, doi:10.1016/0022-2364(92)90347-A; MOLLI is Messroghli et al. 2004,
    doi:10.1002/mrm.20110.
    """

    requires = ("ti",)
    source = "doi:10.1016/0022-2364(92)90347-A"
    suffix = "T1map"
    parameters = (
        Parameter("T1star", "T_1^*", "ms", 10.0, 6000.0, "time constant of the recovery under the readouts"),
        Parameter("b_over_a", "B/A", "1", 1.05, 5.0, "depth of the inversion over the level that readouts lead to"),
    )
    expected = {"T1star": (800.0, 350.0, 250.0), "b_over_a": (2.4, 0.5, 0.3)}
    expected_source = "T1 of Stanisz et al. 2005, doi:10.1002/mrm.20605, under common readouts"
    derived_parameters = (Parameter("T1", "T_1", "ms", 0.0, 24_000.0, "longitudinal relaxation time"),)
    typical_tissue = {
        "white matter": {"T1star": (640.0, 40.0), "b_over_a": (2.28, 0.04)},
        "grey matter": {"T1star": (890.0, 60.0), "b_over_a": (2.46, 0.05)},
        "csf": {"T1star": (1600.0, 120.0), "b_over_a": (3.50, 0.15)},
    }
    default_protocol = Acquisition(ti=torch.tensor([100.0, 180, 260, 1100, 1180, 1260, 2100, 2180, 3100, 3180, 4100]))

    @staticmethod
    def signal(acq, T1star, b_over_a):
        return (1 - b_over_a * torch.exp(-acq.ti / T1star)).abs()

    @classmethod
    def first_guess(cls, acq, y):
        T1star, a, b = best_recovery(acq, y, cls.signed)
        return {"T1star": T1star, "b_over_a": -b / a, "S0": a}

    @classmethod
    def derived(cls, theta):
        return {"T1": theta["T1star"] * (theta["b_over_a"] - 1)}
