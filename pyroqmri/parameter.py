"""The one place for a parameter's bounds, unit and symbol."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = 1e-6  # keeps the inverse of a bound finite

Box = tuple[Tensor, Tensor]  # lower and upper bounds, a voxel each


@dataclass(frozen=True)
class Parameter:
    r"""A bounded scalar tissue parameter.

    The unconstrained coordinate ``u`` and the value are tied by a probit box,

    .. math:: \theta = a + (b - a)\,\Phi(u),

    so that a standard normal ``u`` is exactly a uniform :math:`\theta`. Where the bounds depend on
    other parameters, ``box`` has them for each voxel (:meth:`pyroqmri.signals.SignalModel.box`).
    """

    name: str
    symbol: str
    unit: str
    lower: float
    upper: float
    doc: str

    n_latents = 1
    is_direction = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise TypeError(
                f"parameter {self.name}: bounds must be finite and increase, got {self.lower}, {self.upper}"
            )

    def constrain(self, u: Tensor, box: Box | None = None) -> Tensor:
        """Map unconstrained values of any shape into the bounds."""
        lower, upper = (self.lower, self.upper) if box is None else box
        return lower + (upper - lower) * torch.special.ndtr(u)

    def slope(self, u: Tensor, box: Box | None = None) -> Tensor:
        """Derivative of :meth:`constrain`."""
        lower, upper = (self.lower, self.upper) if box is None else box
        return (upper - lower) * torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)

    def unconstrain(self, value: Tensor, box: Box | None = None) -> Tensor:
        """Map values inside the bounds back; values at a bound give a finite number."""
        lower, upper = (self.lower, self.upper) if box is None else box
        p = (value - lower) / (upper - lower)
        return torch.special.ndtri(p.clamp(_EPS, 1 - _EPS))


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
