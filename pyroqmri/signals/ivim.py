"""Intravoxel incoherent motion."""

import torch

from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class IVIM(SignalModel):
    r"""Bi-exponential decay of perfusing and diffusing water.

    .. math:: S(b)/S_0 = f e^{-b (D^* + D)} + (1 - f) e^{-b D}

    Source: Le Bihan et al. 1988, doi:10.1148/radiology.168.2.3393671.
    """

    requires = ("bval",)
    source = "doi:10.1148/radiology.168.2.3393671"
    parameters = (
        Parameter("f", "f", "1", 0.0, 0.7, "perfusion fraction"),
        Parameter("D_fast", "D^*", "um2/ms", 3.0, 200.0, "pseudo-diffusivity"),
        Parameter("D_slow", "D", "um2/ms", 0.01, 4.0, "tissue diffusivity"),
    )

    @staticmethod
    def signal(acq, f, D_fast, D_slow):
        return f * torch.exp(-acq.bval * (D_fast + D_slow)) + (1 - f) * torch.exp(-acq.bval * D_slow)

    @staticmethod
    def slopes(acq, f, D_fast, D_slow):
        fast, slow = torch.exp(-acq.bval * (D_fast + D_slow)), torch.exp(-acq.bval * D_slow)
        signal = f * fast + (1 - f) * slow
        return signal, (fast - slow, -acq.bval * f * fast, -acq.bval * signal)
