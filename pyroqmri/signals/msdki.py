"""Mean-signal diffusion kurtosis imaging."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import LogLinear, SignalModel
from pyroqmri.signals.shells import shells

MAX_PRODUCT = 2.0  # of D and K, ms/um2 being the unit of b


def _design(acq: Acquisition) -> Tensor:
    assert acq.bval is not None
    return torch.stack([-acq.bval, acq.bval.square() / 6], -1)


def _theta(coefficients: Tensor) -> dict[str, Tensor]:
    D, variance = coefficients
    return {"D": D, "K": variance / D.square()}


def expanded(exponent: Tensor) -> Tensor:
    """Exponential ``(...)`` that goes on linearly above 20: a kurtosis expansion at large b would leave float32."""
    beyond = (exponent - 3).clamp_min(0)
    return torch.exp(exponent - beyond) * (1 + beyond)


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
    reach = 3.0
    parameters = (
        Parameter("D", "D", "um2/ms", 0.0, 4.0, "mean-signal diffusivity"),
        Parameter("K", "K", "1", -1.0, 3.0, "mean-signal kurtosis"),
    )
    expected = {"D": (1.2, 0.6, 0.3), "K": (0.8, 0.5, 0.3)}
    expected_source = "Jensen and Helpern 2010, doi:10.1002/nbm.1518 (brain), with room for other organs"
    default_protocol = shells(6, 30, 1.0, 2.0, 3.0)
    typical_tissue = {
        "white matter": {"D": (1.0, 0.10), "K": (1.1, 0.15)},
        "grey matter": {"D": (1.2, 0.10), "K": (0.7, 0.12)},
        "csf": {"D": (3.0, 0.1), "K": (0.05, 0.05)},
    }
    log_linear = LogLinear(_design, _theta, predicted=False)  # weighed as dipy does

    @classmethod
    def box(cls, name, theta):
        if name != "K":
            return None
        table = cls.parameters[1]
        assert isinstance(table, Parameter)
        upper = MAX_PRODUCT / theta["D"].clamp_min(MAX_PRODUCT / table.upper)
        return torch.full_like(upper, table.lower), upper

    @staticmethod
    def signal(acq, D, K):
        bD = acq.bval * D
        return expanded(-bD + bD.square() * K / 6)
