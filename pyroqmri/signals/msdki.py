"""Mean-signal diffusion kurtosis imaging."""

import torch

from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel

MAX_PRODUCT = 2.0  # of D and K, ms/um2 being the unit of b


class MSDKI(SignalModel):
    r"""Kurtosis expansion of the signal averaged over gradient directions.

    .. math:: S(b)/S_0 = e^{-b D + b^2 D^2 K / 6}

    The product D K stays below 2: beyond, the expansion would rise again before b = 1.5,
    which no decay does. K therefore ends at 2 / D where D is large.
    Above 20 times S0 the signal goes on linearly: at large b the exponential would leave float32.

    Source: Henriques et al. 2019, doi:10.1002/mrm.27606.
    """

    requires = ("bval",)
    powder_average = True
    source = "doi:10.1002/mrm.27606"
    parameters = (
        Parameter("D", "D", "um2/ms", 0.0, 4.0, "mean-signal diffusivity"),
        Parameter("K", "K", "1", -1.0, 3.0, "mean-signal kurtosis"),
    )

    @classmethod
    def box(cls, name, theta):
        if name != "K":
            return None
        table = cls.parameters[1]
        upper = MAX_PRODUCT / theta["D"].clamp_min(MAX_PRODUCT / table.upper)
        return torch.full_like(upper, table.lower), upper

    @staticmethod
    def signal(acq, D, K):
        bD = acq.bval * D
        exponent = -bD + bD.square() * K / 6
        beyond = (exponent - 3).clamp_min(0)
        return torch.exp(exponent - beyond) * (1 + beyond)
