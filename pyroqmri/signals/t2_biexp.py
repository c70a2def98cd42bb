"""Transverse relaxation of two pools of water."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel

_LONGEST = 5000.0  # ms


class T2Biexp(SignalModel):
    r"""Decay over echo times of two pools that do not exchange, such as myelin water and the rest.

    .. math:: S(TE)/S_0 = f e^{-TE/T_{2,short}} + (1 - f) e^{-TE/T_{2,long}}

    The long time is longer than the short one by construction, so that the pools cannot change places.

    Source: MacKay et al. 1994, doi:10.1002/mrm.1910310614.
    """

    requires = ("te",)
    source = "doi:10.1002/mrm.1910310614"
    suffix = "T2map"
    parameters = (
        Parameter("f", "f", "1", 0.0, 1.0, "fraction of the pool that decays faster"),
        Parameter("T2_short", "T_{2,short}", "ms", 0.05, 200.0, "relaxation time of the faster pool", log=True),
        Parameter("T2_long", "T_{2,long}", "ms", 0.05, _LONGEST, "relaxation time of the other pool", log=True),
    )
    expected = {"f": (0.12, 0.08, 0.06), "T2_short": (20.0, 10.0, 6.0), "T2_long": (85.0, 35.0, 20.0)}
    expected_source = "MacKay et al. 1994, doi:10.1002/mrm.1910310614 (water between 10 and 50 ms is that of myelin)"
    typical_tissue = {
        "white matter": {"f": (0.12, 0.03), "T2_short": (18.0, 3.0), "T2_long": (80.0, 6.0)},
        "grey matter": {"f": (0.05, 0.02), "T2_short": (18.0, 3.0), "T2_long": (95.0, 8.0)},
        "csf": {"f": (0.02, 0.01), "T2_short": (18.0, 3.0), "T2_long": (1800.0, 200.0)},
    }
    default_protocol = Acquisition(te=torch.arange(10.0, 330, 10))

    @staticmethod
    def signal(acq, f, T2_short, T2_long):
        return f * torch.exp(-acq.te / T2_short) + (1 - f) * torch.exp(-acq.te / T2_long)

    @classmethod
    def box(cls, name, theta):
        if name != "T2_long":
            return None
        return theta["T2_short"], torch.full_like(theta["T2_short"], _LONGEST)
