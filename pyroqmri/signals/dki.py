"""Diffusion kurtosis imaging."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import LogLinear, SignalModel
from pyroqmri.signals.dti import DTI
from pyroqmri.signals.kurtosis import LEAST, MOST, QUARTIC, kurtosis_design, kurtosis_measures, mean_square
from pyroqmri.signals.msdki import MAX_PRODUCT, expanded
from pyroqmri.signals.shells import shells
from pyroqmri.signals.tensor import ELEMENTS, exponents

_LARGEST = 10.0
_LOWEST = -1.0  # as of msdki
_FLOOR = 1e-6  # keeps the roots of bounds with a slope


def _element(name: str) -> Parameter:
    lower = _LOWEST if len(set(name)) == 1 else -_LARGEST
    return Parameter(f"W{name}", f"W_{{{name}}}", "1", lower, _LARGEST, f"kurtosis tensor element {name}")


def _theta(coefficients: Tensor) -> dict[str, Tensor]:
    theta: dict[str, Tensor] = dict(zip(ELEMENTS, coefficients[:6], strict=True))
    square = mean_square(theta)
    return theta | {f"W{name}": value / square for name, value in zip(QUARTIC, coefficients[6:], strict=True)}


class DKI(SignalModel):
    r"""Diffusion with a tensor D and a kurtosis tensor W.

    .. math:: \log S(b, g)/S_0 = -b\, g^T D\, g + \frac{b^2}{6} \overline{D}^2 \sum_{ijkl} g_i g_j g_k g_l W_{ijkl}

    D is positive definite as in `dti`. Bounds of W keep it along each axis of the scanner above -1, as `msdki` does,
    and kurtosis there below 2 over the diffusivity, beyond which the signal would rise again before b = 1.5. Those
    of the other elements are what no tensor above -1 along all axes exceeds, given the elements before them: each such
    tensor is inside the bounds, and so are some that are lower between the scanner's axes. Kurtosis of tissue is
    positive, but with a bound of zero noise of SNR 20 would leave single elements of most voxels at it. Above 20 times
    S0 the signal goes on linearly.

    MK, AK and RK are the closed forms of Tabesh et al. 2011, doi:10.1002/mrm.22655, cut at -3/7 and 10; KFA is that of
    Glenn et al. 2015, doi:10.1002/nbm.3257.

    Source: Jensen et al. 2005, doi:10.1002/mrm.20508.
    """

    requires = ("bval", "bvec")
    source = "doi:10.1002/mrm.20508"
    reach = 3.0
    parameters = (*DTI.parameters, *map(_element, QUARTIC))
    expected = (
        dict(DTI.expected)
        | {f"W{name}": (0.9, 0.4, 0.3) for name in QUARTIC[:3]}
        | {f"W{name}": (0.3, 0.2, 0.15) for name in QUARTIC[3:6]}
        | {f"W{name}": (0.0, 0.1, 0.15) for name in QUARTIC[6:]}
    )
    expected_source = "Jensen and Helpern 2010, doi:10.1002/nbm.1518; " + DTI.expected_source
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
        diffusion, kurtosis = (Dxx, Dyy, Dzz, Dxy, Dxz, Dyz), (Wxxxx, Wyyyy, Wzzzz, Wxxyy, Wxxzz, Wyyzz, Wxxxy, Wxxxz,
                               Wxyyy, Wyyyz, Wxzzz, Wyzzz, Wxxyz, Wxyyz, Wxyzz)  # fmt: skip
        square = ((Dxx + Dyy + Dzz) / 3).square()
        tensors = torch.cat(torch.broadcast_tensors(*diffusion, *(square * w for w in kurtosis)), -1)
        return expanded(exponents(tensors, kurtosis_design(acq)))

    @staticmethod
    def slopes(acq, **theta):
        elements = torch.cat(torch.broadcast_tensors(*(theta[p.name] for p in DKI.parameters)), -1)
        design, mean = kurtosis_design(acq), elements[..., :3].sum(-1, keepdim=True) / 3
        fourth = exponents(elements[..., 6:], design[..., 6:])
        exponent = exponents(elements[..., :6], design[..., :6]) + mean.square() * fourth
        rate = torch.exp(exponent.clamp_max(3))  # the signal is linear beyond
        diagonal = 2 / 3 * mean * fourth * rate  # W is counted in units of MD^2
        columns = [rate * column for column in design[..., :6].unbind(-1)]
        columns[:3] = [column + diagonal for column in columns[:3]]
        scaled = mean.square() * rate
        return expanded(exponent), (*columns, *(scaled * column for column in design[..., 6:].unbind(-1)))

    @classmethod
    def box(cls, name, theta):
        if not name.startswith("W"):
            return DTI.box(name, theta)
        i, j = name[1], name[-1]
        if len(set(name[1:])) == 1:
            upper = MAX_PRODUCT * theta[f"D{i}{i}"] / mean_square(theta)
            return torch.full_like(upper, _LOWEST), upper.clamp_max(_LARGEST)
        if name[1:] in ("xxyy", "xxzz", "yyzz"):
            lower = -(_above(theta, i) * _above(theta, j)).sqrt() / 3 + _LOWEST / 3
            both = MAX_PRODUCT / 6 * (theta[f"D{i}{i}"] + theta[f"D{j}{j}"]) / mean_square(theta)
            return lower, (both + (_below(theta, i) * _below(theta, j)).sqrt() / 3).clamp_max(_LARGEST)
        reach = _reach(theta, name[1:])
        return -reach, reach

    @classmethod
    def derived(cls, theta):
        return DTI.derived(theta) | kurtosis_measures(theta)


def _above(theta: Mapping[str, Tensor], i: str) -> Tensor:
    """How far kurtosis along an axis is above its bound."""
    return (theta[f"W{4 * i}"] - _LOWEST).clamp_min(_FLOOR)


def _below(theta: Mapping[str, Tensor], i: str) -> Tensor:
    """How far it is below its upper one."""
    return (MAX_PRODUCT * theta[f"D{2 * i}"] / mean_square(theta) - theta[f"W{4 * i}"]).clamp_min(_FLOOR)


def _across(theta: Mapping[str, Tensor], i: str, j: str) -> Tensor:
    """The largest coefficient of (x_i x_j)^2 in the squares that a form which is nowhere negative is a sum of."""
    i, j = sorted((i, j))
    even = 6 * theta[f"W{i}{i}{j}{j}"] - 2 * _LOWEST
    return (even + 2 * (_above(theta, i) * _above(theta, j)).sqrt()).clamp_min(_FLOOR)


def _reach(theta: Mapping[str, Tensor], name: str) -> Tensor:
    """The largest size of an element that is odd in two axes, by the minors of that sum of squares."""
    thrice = next((i for i in name if name.count(i) == 3), None)
    if thrice is not None:
        other = next(i for i in name if i != thrice)
        return (_above(theta, thrice) * _across(theta, thrice, other)).sqrt() / 2
    twice = next(i for i in name if name.count(i) == 2)
    j, k = (i for i in name if i != twice)
    one = (_above(theta, twice) * _across(theta, j, k)).sqrt()
    return (one + (_across(theta, twice, j) * _across(theta, twice, k)).sqrt()) / 6
