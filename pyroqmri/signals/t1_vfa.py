"""Longitudinal relaxation from flip angles."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.known_b1 import EXPECTED, FREE_B1, POPULATION

_TYPICAL_T1 = 1000.0


class T1VFA(SignalModel):
    r"""Spoiled gradient echo over flip angles, which B1 scales where a map of it is given.

    .. math:: S(\alpha)/S_0 = \frac{\sin(B_1 \alpha)\,(1 - E_1)}{1 - E_1 \cos(B_1 \alpha)}, \qquad E_1 = e^{-TR/T_1}

    B1 is the actual flip angle over the nominal one, a voxel each (`--input B1=map.nii.gz`); without it it is 1.

    Source: Deoni et al. 2003, doi:10.1002/mrm.10407.
    """

    requires = ("flip", "tr")
    source = "doi:10.1002/mrm.10407"
    suffix = "T1map"
    inputs = ("B1",)
    parameters = (Parameter("T1", "T_1", "ms", 10.0, 6000.0, "longitudinal relaxation time"),)
    expected = {"T1": (1200.0, 500.0, 350.0)}
    expected_source = "Stanisz et al. 2005, doi:10.1002/mrm.20605"
    typical_tissue = {
        "white matter": {"T1": (850.0, 50.0)},
        "grey matter": {"T1": (1350.0, 90.0)},
        "csf": {"T1": (4200.0, 250.0)},
    }
    default_protocol = Acquisition(flip=torch.deg2rad(torch.tensor([2.0, 4, 8, 12, 16, 20])), tr=torch.full((6,), 15.0))

    @staticmethod
    def signal(acq, T1, B1=1.0):
        angle = B1 * acq.flip
        # 1 - E and 1 - cos in forms that keep their digits where TR is short and angles are small
        recovered = -torch.expm1(-acq.tr / T1)
        return torch.sin(angle) * recovered / (recovered + (1 - recovered) * 2 * torch.sin(angle / 2).square())

    @classmethod
    def amplitude(cls, acq):
        return float(cls.signal(acq, torch.tensor(_TYPICAL_T1)).max())


class T1VFAFreeB1(T1VFA):
    r"""Spoiled gradient echo over flip angles where no map of B1 was measured: B1 is fitted with a known population.

    .. math:: S(\alpha)/S_0 = \frac{\sin(B_1 \alpha)\,(1 - E_1)}{1 - E_1 \cos(B_1 \alpha)}, \qquad
              E_1 = e^{-TR/T_1}, \qquad B_1 \sim N(1, 0.1^2)

    Small angles determine T1 times the square of B1 and little else, so that T1 stays uncertain by a fifth where B1
    does by a tenth, which is what intervals of `hierarchical` then are. The population of B1 is not learned. Estimates
    of one voxel by itself do not use it and scatter widely; a map of B1 and `t1_vfa` are better than either.

    Source: Deoni et al. 2003, doi:10.1002/mrm.10407; B1 at 3 T, Boudreau et al. 2017, doi:10.1002/jmri.25692.
    """

    inputs = ()
    parameters = (*T1VFA.parameters, FREE_B1)
    expected = {**T1VFA.expected, "B1": EXPECTED}
    nuisance = {"B1": POPULATION}
    typical_tissue = {name: {**tissue, "B1": POPULATION} for name, tissue in T1VFA.typical_tissue.items()}
