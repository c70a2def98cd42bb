"""Transverse relaxation over a spin-echo train whose pulses do not refocus all."""

import math

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.echo_train import numbered, train, train_slopes

# a coarse dictionary, which searches start from
_T2, _B1 = torch.logspace(0.7, 3.4, 28), torch.linspace(0.45, 0.98, 9)


class T2EPG(SignalModel):
    r"""Echoes of a train of equal refocusing pulses, with the stimulated ones, by extended phase graphs.

    .. math:: \sum_n z^n S_n/S_0 = \frac{1}{2} + \frac{1}{2} \sqrt{\frac{
              (1 + z E_2)\,(1 - z (E_1 + E_2) \cos\alpha + z^2 E_1 E_2)}{
              (1 - z E_2)\,(1 - z (E_1 - E_2) \cos\alpha - z^2 E_1 E_2)}}, \qquad \alpha = \pi B_1

    The echoes of extended phase graphs are the coefficients of this function of z, with :math:`E_{1,2} =
    e^{-\tau/T_{1,2}}`. The echo spacing :math:`\tau` is the shortest echo time, or the smallest step between two where
    that is shorter, and echo times are multiples of it. B1, the actual over the nominal refocusing angle of 180
    degrees, is fitted (`t2_epg_given_b1` takes a map of it), `fixed={"B1": 1}` fixes it, and angles as far above 180
    degrees as below have the same echoes, so its bounds end at 1. T1 is taken as 1000 ms, and the slice to have one
    angle throughout.

    Source: Lukzen and Savelov 2007, J Magn Reson 185:71-76 (generating function); Lebel and Wilman 2010,
    doi:10.1002/mrm.22487 (fit); Hennig 1988, doi:10.1016/0022-2364(88)90128-X (phase graphs).
    """

    requires = ("te",)
    source = "doi:10.1002/mrm.22487"
    suffix = "T2map"
    parameters = (
        Parameter("T2", "T_2", "ms", 1.0, 5000.0, "transverse relaxation time", log=True),
        Parameter("B1", "B_1", "1", 0.4, 1.0, "refocusing angle over 180 degrees, or as far above as it is below"),
    )
    expected = {"T2": (80.0, 40.0, 25.0), "B1": (0.85, 0.1, 0.07)}
    expected_source = (
        "Stanisz et al. 2005, doi:10.1002/mrm.20605; B1 at 3 T as in Bernstein, King and Zhou 2004, Handbook of MRI "
        "Pulse Sequences"
    )
    typical_tissue = {
        "white matter": {"T2": (75.0, 5.0), "B1": (0.85, 0.04)},
        "grey matter": {"T2": (95.0, 8.0), "B1": (0.85, 0.04)},
        "csf": {"T2": (1800.0, 200.0), "B1": (0.85, 0.04)},
    }
    default_protocol = Acquisition(te=torch.arange(10.0, 330, 10))

    @staticmethod
    def signal(acq, T2, B1):
        spacing, number = numbered(acq)
        return train(int(number.max()), spacing, T2, math.pi * B1)[..., number - 1]

    @staticmethod
    def slopes(acq, T2, B1):
        spacing, number = numbered(acq)
        echoes, by_T2, by_angle = train_slopes(int(number.max()), spacing, T2, math.pi * B1)
        return echoes[..., number - 1], (by_T2[..., number - 1], math.pi * by_angle[..., number - 1])

    @classmethod
    def first_guess(cls, acq, y):
        T2, B1 = (g.reshape(-1, 1) for g in torch.meshgrid(_T2.to(y), _B1.to(y), indexing="ij"))
        shapes = cls.signal(acq, T2, B1)
        lengths = shapes.norm(dim=-1)
        matched = y @ (shapes / lengths.unsqueeze(-1)).mT
        largest, best = matched.max(-1)
        return {"T2": T2[best, 0], "B1": B1[best, 0], "S0": largest / lengths[best]}


class T2EPGGivenB1(T2EPG):
    r"""Echoes of a train of equal refocusing pulses, with the stimulated ones, at angles that a map of B1 gives.

    .. math:: \sum_n z^n S_n/S_0 = \frac{1}{2} + \frac{1}{2} \sqrt{\frac{
              (1 + z E_2)\,(1 - z (E_1 + E_2) \cos\alpha + z^2 E_1 E_2)}{
              (1 - z E_2)\,(1 - z (E_1 - E_2) \cos\alpha - z^2 E_1 E_2)}}, \qquad \alpha = \pi B_1

    As `t2_epg`, with B1 an input, a voxel each (`--input B1=map.nii.gz`), which may lie above 1.

    Source: Lebel and Wilman 2010, doi:10.1002/mrm.22487.
    """

    inputs = ("B1",)
    parameters = T2EPG.parameters[:1]
    expected = {"T2": T2EPG.expected["T2"]}
    typical_tissue = {name: {"T2": tissue["T2"]} for name, tissue in T2EPG.typical_tissue.items()}

    @staticmethod
    def signal(acq, T2, B1=1.0):
        return T2EPG.signal(acq, T2, torch.as_tensor(B1, dtype=T2.dtype))

    @staticmethod
    def slopes(acq, T2, B1=1.0):
        echoes, slopes = T2EPG.slopes(acq, T2, torch.as_tensor(B1, dtype=T2.dtype))
        return echoes, slopes[:1]
