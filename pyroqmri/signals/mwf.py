"""Myelin water on a spin-echo train."""

import math

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.echo_train import numbered, train, train_slopes

_T2_MY = (18.0, 4.0)  # ms: mean and sd over voxels


class MWF(SignalModel):
    r"""Pools of water with T2 of their own on a train of echoes that its pulses do not refocus fully.

    .. math:: S_n/S_0 = MWF\, E_n(T_{2,m}) + (1 - MWF)\,((1 - FWF)\, E_n(T_{2,ie}) + FWF\, E_n(T_{2,fw}))

    The echoes E of a pool are those of extended phase graphs at the refocusing angle :math:`\pi B_1`, with T1 1000 ms
    and B1 fitted, as in `t2_epg`. Water between the layers of myelin has a T2 of up to 40 ms, that in and between cells
    a longer one, so that the pools cannot change places. The usual two pools take fluid for the second one; a third,
    free water of 2000 ms, comes in with a range of its share, `range.FWF = [0, 1]`. Decays of several pools differ
    little: MWF of a voxel by itself is uncertain by some hundredths at an SNR of 100. The T2 of myelin water is open in
    single voxels, and over a scan it stands in for the shape of the distribution of MWF: its population is known
    beforehand, normal with mean 18 ms and sd 4 ms, and not learned (`expected.T2_my = [18, 6, 3]` lets it be learned).

    Source: MacKay et al. 1994, doi:10.1002/mrm.1910310614 (myelin water); Prasloski et al. 2012, doi:10.1002/mrm.23157
    (stimulated echoes and the angle); Whittall et al. 1997, doi:10.1002/mrm.1910370107 (T2 and MWF in the brain).
    """

    requires = ("te",)
    source = "doi:10.1002/mrm.1910310614"
    suffix = "MWFmap"
    parameters = (
        Parameter("MWF", "MWF", "1", 0.0, 0.6, "fraction of water between layers of myelin"),
        Parameter("T2_my", "T_{2,m}", "ms", 5.0, 40.0, "transverse relaxation time of myelin water", log=True),
        Parameter("T2_ie", "T_{2,ie}", "ms", 40.0, 3000.0, "that of the other water, in and between cells", log=True),
        Parameter("FWF", "FWF", "1", 0.0, 1.0, "share of free water in the other water"),
        Parameter("T2_fw", "T_{2,fw}", "ms", 500.0, 3000.0, "transverse relaxation time of free water", log=True),
        Parameter("B1", "B_1", "1", 0.4, 1.0, "refocusing angle over 180 degrees, or as far above as it is below"),
    )
    held = {"FWF": 0.0, "T2_fw": 2000.0}
    expected = {
        "MWF": (0.09, 0.05, 0.05), "T2_my": (_T2_MY[0], 6.0, _T2_MY[1]), "T2_ie": (80.0, 20.0, 10.0),
        "FWF": (0.05, 0.05, 0.05), "T2_fw": (2000.0, 300.0, 200.0), "B1": (0.85, 0.1, 0.07),
    }  # fmt: skip
    expected_source = (
        "Whittall et al. 1997, doi:10.1002/mrm.1910370107; B1 at 3 T as in Bernstein, King and Zhou 2004, Handbook of "
        "MRI Pulse Sequences"
    )
    nuisance = {"T2_my": _T2_MY}
    typical_tissue = {
        "white matter": {"MWF": (0.12, 0.03), "T2_my": (18.0, 2.5), "T2_ie": (75.0, 5.0), "B1": (0.85, 0.04)},
        "grey matter": {"MWF": (0.04, 0.015), "T2_my": (18.0, 2.5), "T2_ie": (90.0, 7.0), "B1": (0.85, 0.04)},
        "csf": {"MWF": (0.005, 0.002), "T2_my": (18.0, 2.5), "T2_ie": (1800.0, 200.0), "B1": (0.85, 0.04)},
    }
    default_protocol = Acquisition(te=torch.arange(10.0, 330, 10))

    @staticmethod
    def signal(acq, MWF, T2_my, T2_ie, FWF, T2_fw, B1):
        spacing, number = numbered(acq)
        echoes = train(int(number.max()), spacing, torch.stack([T2_my, T2_ie, T2_fw]), math.pi * B1)
        myelin, cells, free = echoes[..., number - 1]
        return MWF * myelin + (1 - MWF) * (cells + FWF * (free - cells))

    @staticmethod
    def slopes(acq, MWF, T2_my, T2_ie, FWF, T2_fw, B1):
        spacing, number = numbered(acq)
        found = train_slopes(int(number.max()), spacing, torch.stack([T2_my, T2_ie, T2_fw]), math.pi * B1)
        (myelin, cells, free), by_T2, by_angle = (part[..., number - 1] for part in found)
        other, shares = cells + FWF * (free - cells), (MWF, (1 - MWF) * (1 - FWF), (1 - MWF) * FWF)
        times = [share * by for share, by in zip(shares, by_T2, strict=True)]
        turned = math.pi * sum(share * by for share, by in zip(shares, by_angle, strict=True))
        mixed = (1 - MWF) * (free - cells)
        return MWF * myelin + (1 - MWF) * other, (myelin - other, times[0], times[1], mixed, times[2], turned)
