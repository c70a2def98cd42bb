"""Multi-parameter mapping: one program for flip angles, echoes and magnetisation transfer."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel

_ECHOES = torch.arange(1, 7) * 2.3
_RESIDUAL = 0.4  # how saturation departs from the square of B1, Weiskopf et al. 2013


class MPM(SignalModel):
    r"""Spoiled gradient echoes over flip angles, echo times, and with or without a magnetisation transfer pulse.

    .. math:: S/S_0 = \frac{(1 - \delta)\,\sin(B_1 \alpha)\,(1 - E_1)}{1 - (1 - \delta)\,E_1 \cos(B_1 \alpha)}\,
              e^{-TE\, R_2^*}, \qquad E_1 = e^{-TR\, R_1}

    A pulse just before the excitation takes the share :math:`\delta = MTsat/100 \cdot B_1^2 (1 - 0.4 B_1) / 0.6` of the
    longitudinal magnetisation; without it :math:`\delta` is 0. S0 is the proton density times the receive sensitivity.
    Where angles and saturation are small MTsat is that of Helms et al. 2008, doi:10.1002/mrm.21732, and R1 that of the
    rational approximation. `mt` is 1 where the pulse is on and 0 where it is off. B1 is the actual over the nominal
    flip angle; its effect on MTsat, and typical tissue at 3 T, are near those of Weiskopf et al. 2013,
    doi:10.3389/fnins.2013.00095.

    Source: Helms et al. 2008, doi:10.1002/mrm.21732.
    """

    requires = ("te", "tr", "flip", "mt")
    source = "doi:10.1002/mrm.21732"
    suffix = "MTsat"
    inputs = ("B1",)
    parameters = (
        Parameter("R1", "R_1", "1/s", 0.1, 20.0, "longitudinal relaxation rate", log=True),
        Parameter("R2star", "R_2^*", "1/s", 0.5, 2000.0, "effective transverse relaxation rate", log=True),
        Parameter("MTsat", "MT_{sat}", "%", 0.0, 15.0, "saturation by one magnetisation transfer pulse"),
    )
    expected = {"R1": (0.8, 0.3, 0.25), "R2star": (20.0, 10.0, 8.0), "MTsat": (1.2, 0.6, 0.5)}
    expected_source = "Weiskopf et al. 2013, doi:10.3389/fnins.2013.00095"
    typical_tissue = {
        "white matter": {"R1": (1.04, 0.05), "R2star": (21.0, 1.5), "MTsat": (1.76, 0.1)},
        "grey matter": {"R1": (0.65, 0.04), "R2star": (16.0, 1.5), "MTsat": (0.85, 0.08)},
        "csf": {"R1": (0.25, 0.02), "R2star": (3.0, 0.5), "MTsat": (0.10, 0.03)},
    }
    default_protocol = Acquisition(
        te=_ECHOES.repeat(3), tr=torch.full((18,), 25.0),
        flip=torch.deg2rad(torch.tensor([6.0, 21.0, 6.0])).repeat_interleave(6),
        mt=torch.tensor([0.0, 0.0, 1.0]).repeat_interleave(6),
    )  # fmt: skip

    @staticmethod
    def signal(acq, R1, R2star, MTsat, B1=1.0):
        angle = B1 * acq.flip
        left = 1 - acq.mt * MTsat / 100 * B1**2 * (1 - _RESIDUAL * B1) / (1 - _RESIDUAL)
        # 1 - E and 1 - left E cos in forms that keep their digits where TR is short and angles are small
        recovered = -torch.expm1(-acq.tr * R1 / 1000)
        lost = recovered + (1 - recovered) * (1 - left * torch.cos(angle))
        return left * torch.sin(angle) * recovered / lost * torch.exp(-acq.te * R2star / 1000)

    @staticmethod
    def slopes(acq, R1, R2star, MTsat, B1=1.0):
        angle, pulse = B1 * acq.flip, acq.mt / 100 * B1**2 * (1 - _RESIDUAL * B1) / (1 - _RESIDUAL)
        left, recovered = 1 - pulse * MTsat, -torch.expm1(-acq.tr * R1 / 1000)
        short = 1 - left * torch.cos(angle)
        lost, decayed = recovered + (1 - recovered) * short, torch.exp(-acq.te * R2star / 1000) * torch.sin(angle)
        signal = left * recovered / lost * decayed
        by_R1 = acq.tr / 1000 * (1 - recovered) * left * short / lost.square() * decayed
        return signal, (by_R1, -acq.te / 1000 * signal, -pulse * recovered / lost.square() * decayed)

    @classmethod
    def amplitude(cls, acq):
        R1, R2star, MTsat = (torch.tensor(value) for value, _ in cls.typical_tissue["white matter"].values())
        return float(cls.signal(acq, R1, R2star, MTsat).max())
