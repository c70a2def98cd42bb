"""Transverse relaxation."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class T2Decay(SignalModel):
    r"""Exponential decay over echo times.

    .. math:: S(TE)/S_0 = e^{-TE/T_2}

    The first echo of a multi-echo train carries no stimulated echoes and stands above the others: the setting
    `data.first_echo = 2` leaves it out.

    Source: Meiboom and Gill 1958, doi:10.1063/1.1716296.
    """

    requires = ("te",)
    source = "doi:10.1063/1.1716296"
    suffix = "T2map"
    parameters = (Parameter("T2", "T_2", "ms", 0.05, 5000.0, "transverse relaxation time", log=True),)
    expected = {"T2": (80.0, 40.0, 25.0)}
    expected_source = "Stanisz et al. 2005, doi:10.1002/mrm.20605 (tissues at 1.5 and 3 T)"
    typical_tissue = {
        "white matter": {"T2": (75.0, 5.0)},
        "grey matter": {"T2": (95.0, 8.0)},
        "csf": {"T2": (1800.0, 200.0)},
    }
    default_protocol = Acquisition(te=torch.arange(10.0, 330, 10))

    @staticmethod
    def signal(acq, T2):
        return torch.exp(-acq.te / T2)
