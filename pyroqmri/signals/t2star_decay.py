"""Effective transverse relaxation."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import LogLinear, SignalModel


def _design(acq: Acquisition) -> Tensor:
    assert acq.te is not None
    return -acq.te.unsqueeze(-1)


def _theta(rate: Tensor) -> dict[str, Tensor]:
    return {"T2star": 1 / rate[0]}


class T2StarDecay(SignalModel):
    r"""Exponential decay over the echoes of a gradient echo.

    .. math:: S(TE)/S_0 = e^{-TE/T_2^*}

    Loaded with iron, liver reaches a T2* below 1 ms, which needs echoes as short as that. The noise floor of
    magnitudes is part of the Rician likelihood; no constant is fitted for it. Typical tissue is that of the brain at
    3 T, Peters et al. 2007, doi:10.1016/j.mri.2007.02.014; there is no such figure for fluid, whose value is a choice.

    Source: Chavhan et al. 2009, doi:10.1148/rg.295095034.
    """

    requires = ("te",)
    source = "doi:10.1148/rg.295095034"
    suffix = "T2starmap"
    parameters = (Parameter("T2star", "T_2^*", "ms", 0.1, 2000.0, "effective transverse relaxation time", log=True),)
    expected = {"T2star": (50.0, 25.0, 15.0)}
    expected_source = "Peters et al. 2007, doi:10.1016/j.mri.2007.02.014 (1.5 to 7 T)"
    derived_parameters = (Parameter("R2star", "R_2^*", "1/s", 0.5, 10_000.0, "effective transverse relaxation rate"),)
    typical_tissue = {
        "white matter": {"T2star": (53.0, 5.0)},
        "grey matter": {"T2star": (66.0, 8.0)},
        "csf": {"T2star": (300.0, 50.0)},
    }
    default_protocol = Acquisition(te=torch.arange(3.0, 63, 5))
    log_linear = LogLinear(_design, _theta, predicted=True, final=False)  # a noise floor bends logarithms

    @staticmethod
    def signal(acq, T2star):
        return torch.exp(-acq.te / T2star)

    @classmethod
    def derived(cls, theta):
        return {"R2star": 1000 / theta["T2star"]}
