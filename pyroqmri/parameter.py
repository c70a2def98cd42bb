"""The one place for a parameter's bounds, unit and symbol."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_EPS = 1e-6  # keeps the inverse of a bound finite
_DECADES = 100.0  # upper over lower bound from which a log scale is worth having
SCAN_UNIT = "a.u."  # of what scales with the measurements; inside a model it is over the scan's scale
_TINY = 1e-30  # stands for zero and less, which have no logarithm

Box = tuple[Tensor, Tensor]  # lower and upper bounds, a voxel each
Bounds = tuple[Tensor | float, Tensor | float]


@dataclass(frozen=True)
class Parameter:
    r"""A bounded scalar tissue parameter.

    The unconstrained coordinate ``u`` and the value are tied by a probit box,

    .. math:: \theta = a + (b - a)\,\Phi(u),

    so that a standard normal ``u`` is exactly a uniform :math:`\theta`. Where the bounds span decades, ``log`` puts
    the logarithms of :math:`\theta, a, b` into that equation, and a standard normal ``u`` is a uniform
    :math:`\log\theta`. Where the bounds depend on other parameters, ``box`` has them for each voxel
    (:meth:`pyroqmri.signals.SignalModel.box`).

    Parameters
    ----------
    name, symbol, unit, doc
        What options and files call it, its LaTeX, its unit and what it is.
    lower, upper
        Bounds in that unit.
    log
        Whether the bounds are those of its logarithm; they are above zero then.

    Raises
    ------
    TypeError
        When the bounds do not increase, are not finite, or have no logarithm where ``log`` asks for one.
    """

    name: str
    symbol: str
    unit: str
    lower: float
    upper: float
    doc: str
    log: bool = False

    n_latents = 1
    is_direction = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise TypeError(
                f"parameter {self.name}: bounds must be finite and increase, got {self.lower}, {self.upper}"
            )

        if self.log and self.lower <= 0:
            raise TypeError(f"parameter {self.name}: bounds of a logarithm must be above zero, got {self.lower}")

    def within(self, lower: float, upper: float) -> "Parameter":
        """The parameter in narrower bounds, on a log scale only where these still span two decades, or are its own."""
        own = (lower, upper) == (self.lower, self.upper)
        log = self.log and lower > 0 and (own or upper / lower >= _DECADES)
        return replace(self, lower=lower, upper=upper, log=log)

    def constrain(self, u: Tensor, box: Bounds | None = None) -> Tensor:
        """Map unconstrained values of any shape into the bounds."""
        return self.at(torch.special.ndtr(u), box)

    def slope(self, u: Tensor, box: Bounds | None = None) -> Tensor:
        """Derivative of :meth:`constrain`."""
        return self.stretch(torch.special.ndtr(u), box) * torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)

    def unconstrain(self, value: Tensor, box: Bounds | None = None) -> Tensor:
        """Map values inside the bounds back; values at a bound give a finite number."""
        return torch.special.ndtri(self.share(value, box).clamp(_EPS, 1 - _EPS))

    def at(self, share: Tensor, box: Bounds | None = None) -> Tensor:
        """Values a share of the way from the lower bound, 0, to the upper one, 1."""
        lower, upper = self._bounds(box)
        return lower * (upper / lower) ** share if self.log else lower + (upper - lower) * share

    def stretch(self, share: Tensor, box: Bounds | None = None) -> Tensor:
        """Derivative of :meth:`at`."""
        lower, upper = self._bounds(box)
        if not self.log:
            return torch.ones_like(share) * (upper - lower)
        return self.at(share, box) * _log(upper / lower)

    def share(self, value: Tensor, box: Bounds | None = None) -> Tensor:
        """The inverse of :meth:`at`; below 0 or above 1, or NaN, where values lie outside the bounds."""
        lower, upper = self._bounds(box)
        if not self.log:
            return (value - lower) / (upper - lower)
        return (value / lower).clamp_min(_TINY).log() / _log(upper / lower)

    def _bounds(self, box: Bounds | None) -> Bounds:
        return (self.lower, self.upper) if box is None else box


def _log(x: Tensor | float) -> Tensor | float:
    return x.log() if isinstance(x, Tensor) else math.log(x)


@dataclass(frozen=True)
class Direction:
    r"""An axis in space, exactly uniform and antipodally symmetric a priori.

    Two standard normal coordinates ``s`` and a frame :math:`(n_0, e_1, e_2)` give

    .. math:: n = c\,n_0 + \sqrt{(1 - e^{-|s|^2}) / |s|^2}\,(s_1 e_1 + s_2 e_2),
              \qquad c = e^{-|s|^2/2}.

    Then :math:`n \cdot n_0` is U(0, 1), so ``n`` is uniform on the half sphere
    around :math:`n_0` whatever the frame: the frame is a choice of coordinates,
    not of a prior. Near ``s = 0`` it is the tangent plane.
    """

    name: str
    symbol: str
    doc: str

    unit = "1"
    n_latents = 2
    is_direction = True

    def constrain(self, s: Tensor, frame: Tensor) -> Tensor:
        """Unit vectors (..., 3) from ``s`` (..., 2) and ``frame`` (..., 3, 3), rows n0, e1, e2."""
        r2 = s.square().sum(-1, keepdim=True)
        small = r2 < 1e-6
        safe = torch.where(small, torch.ones_like(r2), r2)
        ratio = torch.where(small, 1 - r2 / 2, -torch.expm1(-safe) / safe)
        coordinates = torch.cat([torch.exp(-r2 / 2), ratio.sqrt() * s], -1)
        return (coordinates.unsqueeze(-1) * frame).sum(-2)

    def unconstrain(self, n: Tensor, frame: Tensor) -> Tensor:
        """Coordinates (..., 2) of axes (..., 3), of either sign; those at a right angle to n0 are kept finite."""
        n0, across = frame[..., 0, :], frame[..., 1:, :]
        cosine = (n * n0).sum(-1, keepdim=True)
        c = cosine.abs().clamp(_EPS, 1.0)
        sideways = (across * n.unsqueeze(-2)).sum(-1) * torch.where(cosine < 0, -1.0, 1.0)
        length = sideways.norm(dim=-1, keepdim=True).clamp_min(_EPS)
        return (-2 * c.log()).sqrt() * sideways / length

    def slopes(self, s: Tensor, frame: Tensor) -> Tensor:
        """Derivatives ``(..., 2, 3)`` of :meth:`constrain` by each coordinate."""
        r2 = s.square().sum(-1, keepdim=True).unsqueeze(-1)
        small = r2 < 1e-4
        safe = torch.where(small, torch.ones_like(r2), r2)
        ratio = torch.where(small, 1 - r2 / 2, -torch.expm1(-safe) / safe)
        bend = torch.where(small, -0.5 + r2 / 3, (torch.exp(-safe) - ratio) / safe) / ratio.sqrt()  # of 2 sqrt(ratio)
        n0, across = frame[..., :1, :], frame[..., 1:, :]
        along = (s.unsqueeze(-1) * across).sum(-2, keepdim=True)
        return ratio.sqrt() * across + s.unsqueeze(-1) * (bend * along - torch.exp(-r2 / 2) * n0)


def frame_around(axis: Tensor) -> Tensor:
    """Right-handed orthonormal frames (..., 3, 3) whose first row is ``axis`` (..., 3)."""
    n0 = axis / axis.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    x, y, z = n0.unbind(-1)
    # Duff et al. 2017: continuous but for the sign of z, no cross products
    sign = torch.where(z >= 0, torch.ones_like(z), -torch.ones_like(z))
    a = -1 / (sign + z)
    b = x * y * a
    e1 = torch.stack([1 + sign * x * x * a, sign * b, -sign * x], -1)
    e2 = torch.stack([b, sign + y * y * a, -y], -1)
    return torch.stack([n0, e1, e2], -2)
