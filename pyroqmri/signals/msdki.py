"""Mean-signal diffusion kurtosis imaging."""

import torch

from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class MSDKI(SignalModel):
    r"""Kurtosis expansion of the signal averaged over gradient directions.

    .. math:: S(b)/S_0 = e^{-b D + b^2 D^2 K / 6}

    Source: Henriques et al. 2019, doi:10.1002/mrm.27606.
    """

    requires = ("bval",)
    powder_average = True
    source = "doi:10.1002/mrm.27606"
    parameters = (
        Parameter("D", "D", "um2/ms", 0.0, 4.0, "mean-signal diffusivity"),
        Parameter("K", "K", "1", -1.0, 3.0, "mean-signal kurtosis"),
    )

    @staticmethod
    def signal(acq, D, K):
        bD = acq.bval * D
        return torch.exp(-bD + bD.square() * K / 6)
