"""The kurtosis tensor: its regression, and what is derived from it and the diffusion tensor."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.signals.tensor import ELEMENTS, eigensystem, tensor_design

LEAST, MOST = -3 / 7, 10.0  # of mapped kurtosis: water confined in spheres, and noise
# even in each axis first, for the others' bounds rest on these
QUARTIC = (
    "xxxx", "yyyy", "zzzz", "xxyy", "xxzz", "yyzz",
    "xxxy", "xxxz", "xyyy", "yyyz", "xzzz", "yzzz", "xxyz", "xyyz", "xyzz",
)  # fmt: skip
_PAIRS = ("xx", "yy", "zz", "xy", "xz", "yz")
_MULTIPLE = (1.0,) * 3 + (6.0,) * 3 + (4.0,) * 6 + (12.0,) * 3  # how often each stands in the whole tensor
_NODES = 48


def kurtosis_design(acq: Acquisition) -> Tensor:
    """Design matrix ``(M, 21)`` of log S/S0: six elements of D, and fifteen of MD^2 W as in QUARTIC."""
    assert acq.bval is not None and acq.bvec is not None
    axes = dict(zip("xyz", acq.bvec.unbind(-1), strict=True))
    forms = [torch.stack([axes[i] for i in name]).prod(0) for name in QUARTIC]
    quartic = torch.stack(forms, -1) * torch.tensor(_MULTIPLE).to(acq.bval)
    return torch.cat([tensor_design(acq)[..., :6], acq.bval.square().unsqueeze(-1) / 6 * quartic], -1)


def mean_square(theta: Mapping[str, Tensor]) -> Tensor:
    """Square ``(...)`` of the mean diffusivity."""
    return ((theta["Dxx"] + theta["Dyy"] + theta["Dzz"]) / 3).square()


def kurtosis_measures(theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Mean, axial and radial kurtosis and its fractional anisotropy, each ``(...)``, of 6 and 15 elements.

    .. math:: K(n) = MD^2\, W(n) / D(n)^2

    MK is its mean over all axes, RK over those across the axis of fastest diffusion, AK its value there. The first is

    .. math:: MK = MD^2 \sum_{ij} \tilde W_{iijj} \int_0^\infty \frac{s\, c_{ij}\, ds}
              {(1 + 2 s \lambda_i)(1 + 2 s \lambda_j) \prod_k \sqrt{1 + 2 s \lambda_k}}, \qquad c_{ii} = 3,\ c_{ij} = 3

    with W turned to the eigenvectors of D: the integrals of Tabesh et al. 2011, doi:10.1002/mrm.22655, without
    their singularities where eigenvalues are equal. The three are cut at -3/7 and 10, as dipy cuts them.
    """
    values, vectors = eigensystem(*(theta[name] for name in ELEMENTS))
    values = values.clamp_min(1e-4)
    even = _turned(theta, vectors)
    square = mean_square(theta)
    a, b, c = values.unbind(-1)
    p, q = b.sqrt(), c.sqrt()
    across = (p + q).square()
    radial = (
        even[..., 1, 1] * (2 * p + q) / (2 * p**3 * across)
        + even[..., 2, 2] * (2 * q + p) / (2 * q**3 * across)
        + even[..., 1, 2] * 3 / (p * q * across)
    )
    found = {
        "MK": square * (even * _sphere_means(values)).sum((-2, -1)),
        "AK": square * even[..., 0, 0] / a.square(),
        "RK": square * radial,
    }
    return {name: value.clamp(LEAST, MOST) for name, value in found.items()} | {"KFA": _anisotropy(theta)}


def _turned(theta: Mapping[str, Tensor], vectors: Tensor) -> Tensor:
    """Elements iijj ``(..., 3, 3)`` of the kurtosis tensor in the frame of ``vectors`` ``(..., 3, 3)``, its rows."""
    elements = torch.stack([theta[f"W{name}"] for name in QUARTIC], -1)
    matrix = elements[..., _places(elements.device)]
    x, y, z = vectors.unbind(-1)
    products = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)
    return products @ matrix @ products.mT


@cache
def _places(device: torch.device) -> Tensor:
    """Which of QUARTIC each entry of W as a form of pairs of axes is ``(6, 6)``."""
    return torch.tensor([[QUARTIC.index("".join(sorted(p + q))) for q in _PAIRS] for p in _PAIRS], device=device)


def _sphere_means(values: Tensor) -> Tensor:
    r"""What multiplies elements iijj ``(..., 3, 3)``: means over the sphere of n_i^2 n_j^2 / D(n)^2, for eigenvalues.

    A mean over the sphere is one over a normal vector, of which s gives the denominator; s = (1 / v^2 - 1) / 2 c, c
    being the middle eigenvalue, leaves a smooth integral over v from 0 to 1.
    """
    nodes, weights = _unit_quadrature(values.dtype, values.device)
    scale = values[..., 1:2].unsqueeze(-1)
    g = values.unsqueeze(-1) + (scale - values.unsqueeze(-1)) * nodes.square()
    common = 1.5 * weights * nodes.square() * (1 - nodes.square()) * (scale / g).prod(-2, keepdim=True).sqrt()
    inverse = 1 / g
    return (common * inverse) @ inverse.mT


@cache
def _unit_quadrature(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes between 0 and 1 ``(K,)`` and their weights."""
    v, w = np.polynomial.legendre.leggauss(_NODES)
    nodes, weights = (torch.from_numpy(x).to(dtype).to(device) for x in ((v + 1) / 2, w / 2))
    return nodes, weights


def _anisotropy(theta: Mapping[str, Tensor]) -> Tensor:
    """Distance of W from its isotropic part, over its size: 0 to 1 (Glenn et al. 2015, doi:10.1002/nbm.3257)."""
    W = {name: theta[f"W{name}"] for name in QUARTIC}
    mean = (W["xxxx"] + W["yyyy"] + W["zzzz"] + 2 * (W["xxyy"] + W["xxzz"] + W["yyzz"])) / 5
    isotropic = {"xxxx": 1.0, "yyyy": 1.0, "zzzz": 1.0, "xxyy": 1 / 3, "xxzz": 1 / 3, "yyzz": 1 / 3}
    size, off = torch.zeros_like(mean), torch.zeros_like(mean)
    for name, multiple in zip(QUARTIC, _MULTIPLE, strict=True):
        size = size + multiple * W[name].square()
        off = off + multiple * (W[name] - isotropic.get(name, 0.0) * mean).square()
    return ((off + 1e-12 * size) / size.clamp_min(1e-12)).sqrt()
