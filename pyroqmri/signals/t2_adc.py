"""Diffusion and relaxation at once."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class T2ADC(SignalModel):
    r"""Decay over b-values and echo times together, from scans that vary both.

    .. math:: S(b, TE)/S_0 = e^{-b D - TE/T_2}

    Source: Veraart et al. 2018, doi:10.1016/j.neuroimage.2017.09.030, with one compartment.
    """

    requires = ("bval", "te")
    source = "doi:10.1016/j.neuroimage.2017.09.030"
    reach = 2.0
    parameters = (
        Parameter("T2", "T_2", "ms", 0.05, 5000.0, "transverse relaxation time", log=True),
        Parameter("D", "D", "um2/ms", 0.0, 4.0, "apparent diffusivity"),
    )
    expected = {"T2": (80.0, 40.0, 25.0), "D": (1.0, 0.5, 0.3)}
    expected_source = (
        "Stanisz et al. 2005, doi:10.1002/mrm.20605, and Pierpaoli et al. 1996, doi:10.1148/radiology.201.3.8939209"
    )
    typical_tissue = {
        "white matter": {"T2": (75.0, 5.0), "D": (0.75, 0.06)},
        "grey matter": {"T2": (95.0, 8.0), "D": (0.85, 0.07)},
        "csf": {"T2": (1800.0, 200.0), "D": (3.0, 0.1)},
    }
    default_protocol = Acquisition(
        bval=torch.tensor([0.0, 0.5, 1, 2]).repeat(4), te=torch.tensor([60.0, 80, 100, 140]).repeat_interleave(4)
    )

    @staticmethod
    def signal(acq, T2, D):
        return torch.exp(-acq.bval * D - acq.te / T2)
