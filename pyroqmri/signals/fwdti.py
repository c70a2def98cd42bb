"""Free-water diffusion tensor imaging."""

from dataclasses import replace

import torch

from pyroqmri.parameter import Parameter
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.dti import DTI
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import ELEMENTS, exponents, tensor_design

FREE = 3.0  # um2/ms, of water at body temperature


def _tissue(p: Parameter) -> Parameter:
    return replace(
        p, lower=p.lower if p.lower > 0 else -FREE, upper=FREE, doc=p.doc.replace("element", "element of tissue")
    )


class FWDTI(SignalModel):
    r"""Gaussian diffusion with a tensor D, and free water.

    .. math:: S(b, g)/S_0 = f_w e^{-b D_w} + (1 - f_w) e^{-b\, g^T D\, g}, \qquad D_w = 3 \mu m^2/ms

    D is positive definite as in `dti`, and its diagonal elements are below the diffusivity of free water. Two shells,
    such as b = 0.5 and 1.5, separate the two (Hoy et al. 2014, doi:10.1016/j.neuroimage.2014.09.053). From one shell
    they follow from the shape of the decay over directions alone, which noise hides: with `hierarchical` the fraction
    is then drawn to the population's mean, and its sd is nearly the population's.

    Source: Pasternak et al. 2009, doi:10.1002/mrm.22055.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1002/mrm.22055"
    reach = 1.5
    parameters = (
        *(_tissue(p) for p in DTI.parameters if isinstance(p, Parameter)),
        Parameter("FWF", "f_w", "1", 0.0, 1.0, "free water fraction"),
    )
    expected = dict(DTI.expected) | {"FWF": (0.15, 0.15, 0.15)}
    expected_source = DTI.expected_source + "; Pasternak et al. 2009, doi:10.1002/mrm.22055"
    derived_parameters = DTI.derived_parameters
    default_protocol = shells(6, 32, 0.5, 1.5)

    @staticmethod
    def signal(acq, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz, FWF):
        elements = torch.cat(torch.broadcast_tensors(Dxx, Dyy, Dzz, Dxy, Dxz, Dyz), -1)
        return FWF * torch.exp(-FREE * acq.bval) + (1 - FWF) * torch.exp(
            exponents(elements, tensor_design(acq)[..., :6])
        )

    @staticmethod
    def slopes(acq, FWF, **theta):
        design = tensor_design(acq)[..., :6]
        elements = torch.cat(torch.broadcast_tensors(*(theta[name] for name in ELEMENTS)), -1)
        free, tissue = torch.exp(-FREE * acq.bval), torch.exp(exponents(elements, design))
        kept = (1 - FWF) * tissue
        return FWF * free + kept, (*(kept * column for column in design.unbind(-1)), free - tissue)

    @classmethod
    def box(cls, name, theta):
        return DTI.box(name, theta)

    @classmethod
    def derived(cls, theta):
        return DTI.derived(theta)
