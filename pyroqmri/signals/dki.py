"""Diffusion kurtosis imaging."""

import torch
from torch import Tensor

from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import LogLinear, SignalModel
from pyroqmri.signals.dti import DTI
from pyroqmri.signals.kurtosis import LEAST, MOST, QUARTIC, kurtosis_design, kurtosis_measures, mean_square
from pyroqmri.signals.msdki import MAX_PRODUCT, expanded
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import ELEMENTS

_LARGEST = 10.0
_FLOOR = 1e-6  # keeps the roots of bounds with a slope


def _element(name: str) -> Parameter:
    lower = LEAST if len(set(name)) == 1 else -_LARGEST
    return Parameter(f"W{name}", f"W_{{{name}}}", "1", lower, _LARGEST, f"kurtosis tensor element {name}")


def _theta(coefficients: Tensor) -> dict[str, Tensor]:
    theta = dict(zip(ELEMENTS, coefficients[:6], strict=True))
    square = mean_square(theta)
    return theta | {f"W{name}": value / square for name, value in zip(QUARTIC, coefficients[6:], strict=True)}


class DKI(SignalModel):
    r"""Diffusion with a tensor D and a kurtosis tensor W.

    .. math:: \log S(b, g)/S_0 = -b\, g^T D\, g + \frac{b^2}{6} \overline{D}^2 \sum_{ijkl} g_i g_j g_k g_l W_{ijkl}

    D is positive definite as in `dti`. Bounds of W keep it along each axis of the scanner above -3/7, the kurtosis of
    water confined in spheres, and kurtosis there below 2 over the diffusivity, beyond which the signal would rise again
    before b = 1.5. Those of the other elements are what no tensor above -3/7 along all axes exceeds, given the elements
    before them: each such tensor is inside the bounds, and so are some that are lower between the scanner's axes.
    Above 20 times S0 the signal goes on linearly.

    MK, AK and RK are the closed forms of Tabesh et al. 2011, doi:10.1002/mrm.22655, cut at -3/7 and 10; KFA is that of
    Glenn et al. 2015, doi:10.1002/nbm.3257.

    Source: Jensen et al. 2005, doi:10.1002/mrm.20508.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1002/mrm.20508"
    reach = 3.0
    parameters = (*DTI.parameters, *map(_element, QUARTIC))
    derived_parameters = (
        *(p for p in DTI.derived_parameters if isinstance(p, Parameter)),
        Parameter("MK", "MK", "1", LEAST, MOST, "mean kurtosis"),
        Parameter("AK", "AK", "1", LEAST, MOST, "axial kurtosis"),
        Parameter("RK", "RK", "1", LEAST, MOST, "radial kurtosis"),
        Parameter("KFA", "KFA", "1", 0.0, 1.0, "kurtosis fractional anisotropy"),
        *(p for p in DTI.derived_parameters if isinstance(p, Direction)),
    )
    default_protocol = shells(6, 45, 1.0, 2.0)
    log_linear = LogLinear(kurtosis_design, _theta, predicted=True)

    @staticmethod
    def signal(acq, Dxx, Dyy, Dzz, Dxy, Dxz, Dyz, Wxxxx, Wyyyy, Wzzzz, Wxxyy, Wxxzz, Wyyzz, Wxxxy, Wxxxz, Wxyyy, Wyyyz,
               Wxzzz, Wyzzz, Wxxyz, Wxyyz, Wxyzz):  # fmt: skip
        square = ((Dxx + Dyy + Dzz) / 3).square()
        kurtosis = (Wxxxx, Wyyyy, Wzzzz, Wxxyy, Wxxzz, Wyyzz, Wxxxy, Wxxxz, Wxyyy, Wyyyz, Wxzzz, Wyzzz, Wxxyz, Wxyyz,
                    Wxyzz)  # fmt: skip
        tensors = (Dxx, Dyy, Dzz, Dxy, Dxz, Dyz, *(square * w for w in kurtosis))
        return expanded(torch.cat(torch.broadcast_tensors(*tensors), -1) @ kurtosis_design(acq).mT)

    @classmethod
    def box(cls, name, theta):
        if not name.startswith("W"):
            return DTI.box(name, theta)
        i, j = name[1], name[-1]
        if len(set(name[1:])) == 1:
            upper = MAX_PRODUCT * theta[f"D{i}{i}"] / mean_square(theta)
            return torch.full_like(upper, LEAST), upper.clamp_max(_LARGEST)
        if name[1:] in ("xxyy", "xxzz", "yyzz"):
            lower = -(_above(theta, i) * _above(theta, j)).sqrt() / 3 + LEAST / 3
            both = MAX_PRODUCT / 6 * (theta[f"D{i}{i}"] + theta[f"D{j}{j}"]) / mean_square(theta)
            return lower, (both + (_below(theta, i) * _below(theta, j)).sqrt() / 3).clamp_max(_LARGEST)
        reach = _reach(theta, name[1:])
        return -reach, reach

    @classmethod
    def derived(cls, theta):
        return DTI.derived(theta) | kurtosis_measures(theta)


def _above(theta: dict[str, Tensor], i: str) -> Tensor:
    """How far kurtosis along an axis is above its bound."""
    return (theta[f"W{4 * i}"] - LEAST).clamp_min(_FLOOR)


def _below(theta: dict[str, Tensor], i: str) -> Tensor:
    """How far it is below its upper one."""
    return (MAX_PRODUCT * theta[f"D{2 * i}"] / mean_square(theta) - theta[f"W{4 * i}"]).clamp_min(_FLOOR)


def _across(theta: dict[str, Tensor], i: str, j: str) -> Tensor:
    """The largest coefficient of (x_i x_j)^2 in the squares that a form which is nowhere negative is a sum of."""
    i, j = sorted((i, j))
    even = 6 * theta[f"W{i}{i}{j}{j}"] - 2 * LEAST
    return (even + 2 * (_above(theta, i) * _above(theta, j)).sqrt()).clamp_min(_FLOOR)


def _reach(theta: dict[str, Tensor], name: str) -> Tensor:
    """The largest size of an element that is odd in two axes, by the minors of that sum of squares."""
    thrice = next((i for i in name if name.count(i) == 3), None)
    if thrice is not None:
        other = next(i for i in name if i != thrice)
        return (_above(theta, thrice) * _across(theta, thrice, other)).sqrt() / 2
    twice = next(i for i in name if name.count(i) == 2)
    j, k = (i for i in name if i != twice)
    one = (_above(theta, twice) * _across(theta, j, k)).sqrt()
    return (one + (_across(theta, twice, j) * _across(theta, twice, k)).sqrt()) / 6
