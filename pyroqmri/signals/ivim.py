"""Intravoxel incoherent motion."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel


class IVIM(SignalModel):
    r"""Bi-exponential decay of perfusing and diffusing water.

    .. math:: S(b)/S_0 = f e^{-b (D^* + D)} + (1 - f) e^{-b D}

    Perfusing water decays with D* + D, as in the source. Where another tool has
    f exp(-b D*) + (1 - f) exp(-b D), as in DIPY and in OSIPI's collection, its D* is `D_fast` + `D_slow` here.

    Source: Le Bihan et al. 1988, doi:10.1148/radiology.168.2.3393671.
    """

    requires = ("bval",)
    source = "doi:10.1148/radiology.168.2.3393671"
    negligible_b = 0.0  # blood has decayed by 7 % at b = 1 s/mm2 where D* is 70
    reach = 1.0
    parameters = (
        Parameter("f", "f", "1", 0.0, 1.0, "perfusion fraction"),
        Parameter("D_fast", "D^*", "um2/ms", 4.0, 1000.0, "pseudo-diffusivity, which adds to D_slow", log=True),
        Parameter("D_slow", "D", "um2/ms", 0.01, 4.0, "tissue diffusivity"),
    )
    expected = {"f": (0.12, 0.08, 0.07), "D_fast": (25.0, 20.0, 15.0), "D_slow": (1.0, 0.5, 0.3)}
    expected_source = "Le Bihan 2019, doi:10.1016/j.neuroimage.2017.12.062 (brain to liver)"
    # the b-values of Epstein et al. 2022, arXiv:2205.05587, four times each
    default_protocol = Acquisition(
        bval=torch.tensor(sorted([0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.4, 0.8] * 4))
    )
    typical_tissue = {
        "white matter": {"f": (0.06, 0.02), "D_fast": (12.0, 3.0), "D_slow": (0.75, 0.08)},
        "grey matter": {"f": (0.10, 0.03), "D_fast": (15.0, 4.0), "D_slow": (0.85, 0.08)},
        "csf": {"f": (0.04, 0.02), "D_fast": (20.0, 6.0), "D_slow": (3.0, 0.1)},
    }

    @staticmethod
    def signal(acq, f, D_fast, D_slow):
        return f * torch.exp(-acq.bval * (D_fast + D_slow)) + (1 - f) * torch.exp(-acq.bval * D_slow)

    @staticmethod
    def slopes(acq, f, D_fast, D_slow):
        fast, slow = torch.exp(-acq.bval * (D_fast + D_slow)), torch.exp(-acq.bval * D_slow)
        signal = f * fast + (1 - f) * slow
        return signal, (fast - slow, -acq.bval * f * fast, -acq.bval * signal)
