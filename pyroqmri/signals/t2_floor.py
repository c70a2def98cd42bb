"""Transverse relaxation above a noise floor."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class T2Floor(SignalModel):
    r"""Exponential decay over echo times that ends at a floor.

    .. math:: S(TE)/S_0 = e^{-TE/T_2} + c

    The floor stands for what magnitudes of noise add up to when noise is taken for Gaussian; the Rician likelihood
    has that floor by itself, and :class:`T2Decay` is enough.

    Source: Milford et al. 2015, doi:10.1371/journal.pone.0145255.
    """

    requires = ("te",)
    source = "doi:10.1371/journal.pone.0145255"
    suffix = "T2map"
    parameters = (
        Parameter("T2", "T_2", "ms", 0.05, 5000.0, "transverse relaxation time", log=True),
        Parameter("floor", "c", "1", 0.0, 0.3, "noise floor over S0"),
    )
    expected = {"T2": (80.0, 40.0, 25.0), "floor": (0.03, 0.03, 0.02)}
    expected_source = "Stanisz et al. 2005, doi:10.1002/mrm.20605; a floor of common noise levels"
    typical_tissue = {
        "white matter": {"T2": (75.0, 5.0), "floor": (0.03, 0.005)},
        "grey matter": {"T2": (95.0, 8.0), "floor": (0.03, 0.005)},
        "csf": {"T2": (1800.0, 200.0), "floor": (0.03, 0.005)},
    }
    default_protocol = Acquisition(te=torch.arange(10.0, 330, 10))

    @staticmethod
    def signal(acq, T2, floor):
        return torch.exp(-acq.te / T2) + floor
