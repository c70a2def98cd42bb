"""Diffusion tensor imaging."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import LogLinear, SignalModel
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import ELEMENTS, exponents, fastest_axis, fractional_anisotropy, tensor_design


def _off_diagonal(name: str) -> Parameter:
    return Parameter(f"D{name}", f"D_{{{name}}}", "um2/ms", -4.0, 4.0, f"tensor element {name}")


def _design(acq: Acquisition) -> Tensor:
    return tensor_design(acq)[..., :6]


def _theta(coefficients: Tensor) -> dict[str, Tensor]:
    return dict(zip(ELEMENTS, coefficients, strict=True))


class DTI(SignalModel):
    r"""Gaussian diffusion with a tensor D.

    .. math:: S(b, g)/S_0 = e^{-b\, g^T D\, g}

    The tensor is positive definite by construction: each off-diagonal element has the bounds that the elements
    before it leave it, :math:`|D_{xy}| < \sqrt{D_{xx} D_{yy}}` for the first, so a standard normal of the
    unconstrained coordinates has uniform diagonal elements and uniform partial correlations.

    Source: Basser et al. 1994, doi:10.1016/S0006-3495(94)80775-1.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1016/S0006-3495(94)80775-1"
    reach = 1.5
    parameters = (
        Parameter("Dxx", "D_{xx}", "um2/ms", 0.001, 4.0, "tensor element xx"),
        Parameter("Dyy", "D_{yy}", "um2/ms", 0.001, 4.0, "tensor element yy"),
        Parameter("Dzz", "D_{zz}", "um2/ms", 0.001, 4.0, "tensor element zz"),
        _off_diagonal("xy"),
        _off_diagonal("xz"),
        _off_diagonal("yz"),
    )
    expected = {name: (1.0, 0.5, 0.35) for name in ELEMENTS[:3]} | {name: (0.0, 0.1, 0.25) for name in ELEMENTS[3:]}
    expected_source = "Pierpaoli et al. 1996, doi:10.1148/radiology.201.3.8939209 (brain), with room for other organs"
    derived_parameters = (
        Parameter("MD", "MD", "um2/ms", 0.0, 4.0, "mean diffusivity"),
        Parameter("FA", "FA", "1", 0.0, 1.0, "fractional anisotropy"),
        Parameter("AD", "AD", "um2/ms", 0.0, 12.0, "axial diffusivity"),
        Parameter("RD", "RD", "um2/ms", 0.0, 4.0, "radial diffusivity"),
        Direction("V1", "V_1", "axis of fastest diffusion"),
    )
    default_protocol = shells(6, 30, 1.0)
    log_linear = LogLinear(_design, _theta, predicted=True)  # weighed as dipy does

    @staticmethod
    def signal(acq, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz):
        elements = torch.cat(torch.broadcast_tensors(Dxx, Dyy, Dzz, Dxy, Dxz, Dyz), -1)
        return torch.exp(exponents(elements, _design(acq)))

    @staticmethod
    def slopes(acq, **theta):
        design = _design(acq)
        elements = torch.cat(torch.broadcast_tensors(*(theta[name] for name in ELEMENTS)), -1)
        signal = torch.exp(exponents(elements, design))
        return signal, tuple(signal * column for column in design.unbind(-1))

    @classmethod
    def box(cls, name, theta):
        if name == "Dxy":
            reach = (theta["Dxx"] * theta["Dyy"]).sqrt()
            return -reach, reach
        if name == "Dxz":
            reach = (theta["Dxx"] * theta["Dzz"]).sqrt()
            return -reach, reach
        if name != "Dyz":
            return None
        # det D > 0 leaves Dyz this distance from Dxy Dxz / Dxx, the square root of the product of two Schur complements
        xx, centre = theta["Dxx"], theta["Dxy"] * theta["Dxz"] / theta["Dxx"]
        left = (theta["Dyy"] - theta["Dxy"].square() / xx).clamp_min(1e-9)
        right = (theta["Dzz"] - theta["Dxz"].square() / xx).clamp_min(1e-9)
        reach = (left * right).sqrt()
        return centre - reach, centre + reach

    @classmethod
    def derived(cls, theta):
        xx, yy, zz, xy, xz, yz = (theta[name] for name in ELEMENTS)
        trace = xx + yy + zz
        with torch.no_grad():
            axis = fastest_axis(xx, yy, zz, xy, xz, yz)
        x, y, z = axis.unbind(-1)
        # the slope of an eigenvalue is that of n' D n with n held
        along = x * x * xx + y * y * yy + z * z * zz + 2 * (x * y * xy + x * z * xz + y * z * yz)
        return {
            "MD": trace / 3,
            "FA": fractional_anisotropy(xx, yy, zz, xy, xz, yz),
            "AD": along,
            "RD": (trace - along) / 2,
            "V1": axis,
        }
