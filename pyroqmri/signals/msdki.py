"""Mean-signal diffusion kurtosis imaging."""

import torch

from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class MSDKI(SignalModel):
    r"""Kurtosis expansion of the signal averaged over gradient directions.

    .. math:: S(b)/S_0 = e^{-b D + b^2 D^2 K / 6}

    Above 20 times S0, which no tissue reaches, it goes on linearly: in the far
    corner of the box the exponential would leave float32.

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
        exponent = -bD + bD.square() * K / 6
        beyond = (exponent - 3).clamp_min(0)
        return torch.exp(exponent - beyond) * (1 + beyond)
