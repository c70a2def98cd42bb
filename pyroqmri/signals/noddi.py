"""Neurite orientation dispersion and density imaging."""

import math

import torch
from torch import Tensor

from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import principal_axis
from pyroqmri.signals.watson import moments, watson_slopes, watson_sticks


def concentration(ODI: Tensor) -> Tensor:
    """Concentration of Watson's distribution with an orientation dispersion index: 0 scatters evenly."""
    return torch.tan(math.pi / 2 * (1 - ODI))


class NODDI(SignalModel):
    r"""Water in dispersed sticks, around them, and free.

    .. math:: S(b, g)/S_0 = f_w e^{-b D_{iso}} + (1 - f_w) \left[ \nu \int W_\kappa(u \cdot n)\,
              e^{-b D_\parallel (g \cdot u)^2} du + (1 - \nu)\, e^{-b\, g^T \bar D g} \right]

    The axes of the sticks have a Watson distribution of concentration :math:`\kappa = 1 / \tan(\pi\, ODI / 2)`
    around n. Around them water diffuses by the mean :math:`\bar D` over W of tensors with
    :math:`D_\perp = (1 - \nu) D_\parallel`. The integral is a series up to order 16, which is off by less than 1e-6 at
    b D up to 4.5 and by 1e-4 at 10 (:mod:`pyroqmri.signals.watson`).

    The two diffusivities are held unless asked for: `--fix D_par=1.1` holds another value, as proposed for grey matter,
    and `--set range.D_par=[0.5,3]` frees it between these bounds. With `hierarchical` a freed one has a population.

    Tissue-weighted NDI and ODI are those times the fraction of water that is not free (Parker et al. 2021,
    doi:10.1016/j.neuroimage.2021.118749). Typical values: the source for white matter, and for the cortex Fukutomi et
    al. 2018, doi:10.1016/j.neuroimage.2018.02.017.

    Source: Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1016/j.neuroimage.2012.03.072"
    reach = 3.0
    parameters = (
        Parameter("NDI", r"\nu", "1", 0.0, 1.0, "neurite density index: fraction of tissue water in sticks"),
        Parameter("ODI", "ODI", "1", 0.02, 1.0, "orientation dispersion index"),
        Parameter("FWF", "f_w", "1", 0.0, 1.0, "free water fraction"),
        Parameter("D_par", r"D_\parallel", "um2/ms", 0.3, 3.0, "diffusivity along the sticks"),
        Parameter("D_iso", "D_{iso}", "um2/ms", 1.0, 4.0, "diffusivity of free water"),
        Direction("n", "n", "mean axis of the sticks"),
    )
    held = {"D_par": 1.7, "D_iso": 3.0}
    expected = {
        "NDI": (0.5, 0.2, 0.12),
        "ODI": (0.3, 0.15, 0.12),
        "FWF": (0.12, 0.1, 0.1),
        "D_par": (1.7, 0.3, 0.2),
        "D_iso": (3.0, 0.2, 0.1),
    }
    expected_source = (
        "Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072; Fukutomi et al. 2018, "
        "doi:10.1016/j.neuroimage.2018.02.017"
    )
    derived_parameters = (
        Parameter("NDI_mod", r"\nu_{mod}", "1", 0.0, 1.0, "tissue-weighted neurite density index"),
        Parameter("ODI_mod", "ODI_{mod}", "1", 0.0, 1.0, "tissue-weighted orientation dispersion index"),
    )
    default_protocol = shells(5, 50, 1.0, 2.0)
    typical_tissue = {
        "white matter": {"NDI": (0.60, 0.08), "ODI": (0.20, 0.06), "FWF": (0.08, 0.04)},
        "grey matter": {"NDI": (0.40, 0.06), "ODI": (0.48, 0.08), "FWF": (0.10, 0.05)},
        "csf": {"NDI": (0.45, 0.10), "ODI": (0.50, 0.10), "FWF": (0.93, 0.04)},
    }

    @staticmethod
    def signal(acq, NDI, ODI, FWF, D_par, D_iso, n):
        cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
        mean, _ = moments(concentration(ODI))
        sticks = watson_sticks(acq.bval, D_par, mean, cosine)
        around = torch.exp(acq.bval * D_par * (NDI * _hindered(mean[..., 1:2], cosine) - 1))
        return FWF * torch.exp(-acq.bval * D_iso) + (1 - FWF) * (NDI * sticks + (1 - NDI) * around)

    @staticmethod
    def slopes(acq, NDI, ODI, FWF, D_par, D_iso, n):
        cosine = torch.matmul(n, acq.bvec.mT).squeeze(-2)
        kappa = concentration(ODI)
        mean, change = moments(kappa)
        sticks = watson_slopes(acq.bval, D_par, mean, change, cosine)
        b, aligned = acq.bval, mean[..., 1:2]
        share = _hindered(aligned, cosine)
        around, free = torch.exp(b * D_par * (NDI * share - 1)), torch.exp(-b * D_iso)
        tissue = NDI * sticks.mean + (1 - NDI) * around
        pull = (1 - NDI) * b * D_par * around  # by the exponent over b D_par
        by_aligned = -NDI * (cosine.square() - 1 / 3) * pull
        by_kappa = NDI * sticks.by_kappa + by_aligned * change[..., 1:2]
        by_cosine = NDI * sticks.by_cosine - 2 * NDI * aligned * cosine * pull
        by_parallel = NDI * sticks.by_diffusivity + (1 - NDI) * around * b * (NDI * share - 1)
        columns = (
            (1 - FWF) * (sticks.mean - around + share * pull),
            (1 - FWF) * by_kappa * (-math.pi / 2 * (1 + kappa.square())),
            free - tissue,
            (1 - FWF) * by_parallel,
            -FWF * b * free,
            (1 - FWF) * by_cosine,
        )
        return FWF * free + (1 - FWF) * tissue, columns

    @classmethod
    def derived(cls, theta):
        tissue = 1 - theta["FWF"]
        return {"NDI_mod": theta["NDI"] * tissue, "ODI_mod": theta["ODI"] * tissue}

    @classmethod
    def initial_axis(cls, acq, y):
        return principal_axis(acq, y)


def _hindered(aligned: Tensor, cosine: Tensor) -> Tensor:
    """What a neurite density of 1 takes off the diffusivity around it, of which it is a share ``(..., M)``."""
    return 2 / 3 - aligned * (cosine.square() - 1 / 3)
