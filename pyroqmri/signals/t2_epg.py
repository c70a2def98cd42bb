"""Transverse relaxation over a spin-echo train whose pulses do not refocus all."""

import math

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel

_T1 = 1000.0  # ms
_POINTS, _ALIASED = 256, 1e-12  # of the transform, and what is left of the echo that far on


class T2EPG(SignalModel):
    r"""Echoes of a train of equal refocusing pulses, with the stimulated ones, by extended phase graphs.

    .. math:: \sum_n z^n S_n/S_0 = \frac{1}{2} + \frac{1}{2} \sqrt{\frac{
              (1 + z E_2)\,(1 - z (E_1 + E_2) \cos\alpha + z^2 E_1 E_2)}{
              (1 - z E_2)\,(1 - z (E_1 - E_2) \cos\alpha - z^2 E_1 E_2)}}, \qquad \alpha = \pi B_1

    The echoes of extended phase graphs are the coefficients of this function of z, with :math:`E_{1,2} =
    e^{-\tau/T_{1,2}}`. The echo spacing :math:`\tau` is the shortest echo time, or the smallest step between two where
    that is shorter, and echo times are multiples of it. B1, the actual over the nominal refocusing angle of 180
    degrees, is fitted: it does not come from a map, `fixed={"B1": 1}` fixes it, and angles as far above 180 degrees as
    below have the same echoes, so its bounds end at 1. T1 is taken as 1000 ms, and the slice to have one angle
    throughout.

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
        spacing = _spacing(acq.te)
        number = torch.round(acq.te / spacing).long()
        echoes = train(int(number.max()), spacing, T2, math.pi * B1)
        return echoes[..., number - 1]


def _spacing(te: Tensor) -> float:
    times = torch.unique(te)
    return float(torch.cat([times[:1], times.diff()]).min())


def train(n: int, spacing: float, T2: Tensor, angle: Tensor) -> Tensor:
    """The first ``n`` echoes ``(..., n)`` after an excitation by 90 degrees, of T2 and angles ``(..., 1)``.

    They are the coefficients of a generating function, found on a circle inside the unit disc by a Fourier transform.
    """
    E1, E2, cosine = math.exp(-spacing / _T1), torch.exp(-spacing / T2), torch.cos(angle)
    size = max(_POINTS, 4 * n)
    radius = _ALIASED ** (1 / size)
    turn = torch.arange(size // 2 + 1, dtype=T2.dtype, device=T2.device) * (2 * math.pi / size)
    z = torch.polar(torch.full_like(turn, radius), -turn)
    above = (1 + z * E2) * (1 - z * ((E1 + E2) * cosine) + z.square() * (E1 * E2))
    # each factor has its roots outside the unit disc, so that neither square root meets its cut
    below = (1 - z * E2) * (1 - z * ((E1 - E2) * cosine) - z.square() * (E1 * E2))
    scaled = torch.fft.irfft((1 + torch.sqrt(above / below)) / 2, n=size)[..., 1 : n + 1]
    return scaled * radius ** -torch.arange(1, n + 1, dtype=T2.dtype, device=T2.device)
