"""Apparent diffusion coefficient."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import LogLinear, SignalModel


def _design(acq: Acquisition) -> Tensor:
    assert acq.bval is not None
    return -acq.bval.unsqueeze(-1)


class ADC(SignalModel):
    r"""Mono-exponential decay of trace-weighted images, or of means over gradient directions.

    .. math:: S(b)/S_0 = e^{-b D}

    Measurements with gradient directions are averaged over them first. Tissue decays so up to about b = 1: beyond,
    `msdki` describes it, and below b = 0.2 perfusion adds to the decay (`ivim`).

    Typical values: Pierpaoli et al. 1996, doi:10.1148/radiology.201.3.8939209.

    Source: Le Bihan et al. 1986, doi:10.1148/radiology.161.2.3763909.
    """

    requires = ("bval",)
    powder_average = True
    source = "doi:10.1148/radiology.161.2.3763909"
    reach = 1.2
    parameters = (Parameter("D", "D", "um2/ms", 0.0, 4.0, "apparent diffusion coefficient"),)
    expected = {"D": (1.0, 0.5, 0.3)}
    expected_source = "Pierpaoli et al. 1996, doi:10.1148/radiology.201.3.8939209 (brain), with room for other organs"
    default_protocol = Acquisition(bval=torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(4))
    typical_tissue = {
        "white matter": {"D": (0.70, 0.06)},
        "grey matter": {"D": (0.85, 0.08)},
        "csf": {"D": (3.0, 0.1)},
    }
    log_linear = LogLinear(_design, lambda coefficients: {"D": coefficients[0]}, predicted=True)

    @staticmethod
    def signal(acq, D):
        return torch.exp(-acq.bval * D)

    @staticmethod
    def slopes(acq, D):
        signal = torch.exp(-acq.bval * D)
        return signal, (-acq.bval * signal,)
