"""A log density at many points of a normal posterior's own coordinates, from its values at a few."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.distributions import normal_points

LEVELS = (128, 256)  # points that the density is evaluated at: the first, where they do not do the next, then all
SPREAD = 1.75  # sd of these points
TOLERANCE = 0.14  # of the error that leaving a point out shows, in shares of the posterior's mass
_LENGTH, _NUGGET = 4.0, 1e-4  # of the covariance: smooth over the whole posterior, and exact to a hundredth of a nat
_LOWEST = -100.0  # nats below the highest value, where it does not matter how far
_SEED = 3


@dataclass(frozen=True)
class Interpolation:
    """Values of any smooth function at S points, from those at K others.

    Kriging: a quadratic, which a normal's log density is, and a Gaussian process for what it leaves. The points are
    the same for all voxels, and so are both matrices.

    Attributes
    ----------
    to_all
        Takes values at the K points to those at the S points ``(S, K)``.
    left_out
        Takes them to the error at each of the K points that all others would make there ``(K, K)``.
    proposal
        Log density of the K points up to a constant ``(K,)``.
    """

    to_all: Tensor
    left_out: Tensor
    proposal: Tensor

    @classmethod
    def between(cls, few: Tensor, many: Tensor) -> "Interpolation":
        """From points ``(K, L)`` to ``(S, L)``."""
        few, many = few.double(), many.double()
        square = few.square().sum(-1)
        noise = _NUGGET * torch.exp(square / 4)  # where the posterior hardly reaches, less exact
        inverse = torch.linalg.inv(_covariance(few, few) + noise.diag())
        trend = _quadratic(few)
        weights = inverse @ trend
        fitted = torch.linalg.solve(trend.mT @ weights, weights.mT)
        rest = inverse - weights @ fitted
        to_all = _quadratic(many) @ fitted + _covariance(many, few) @ rest
        return cls(to_all.float(), (rest / rest.diagonal().unsqueeze(-1)).float(), (-square / (2 * SPREAD**2)).float())

    def error(self, values: Tensor) -> Tensor:
        """What is wrong ``(n,)`` with values at the S points, judged by those at the K points ``(K, n)``.

        Root mean square, over the posterior's mass, of the relative error of its density where a point is left out.
        """
        weight = (values - self.proposal.to(values).unsqueeze(-1)).softmax(0)
        off = 1 - (-(self.left_out.to(values) @ values).abs()).exp()
        return (weight * off.square()).sum(0).sqrt()


def few_points(n: int, n_latents: int) -> Tensor:
    """Points ``(n, L)`` that a density is evaluated at; those of a smaller number are the first of a larger one."""
    return SPREAD * normal_points(n, n_latents, seed=_SEED)[:, 1:]


def levels(n_latents: int, n_all: int) -> tuple[int, ...]:
    """Numbers of points to try, so many that they determine a quadratic twice over; none where all are as cheap."""
    needed = (n_latents + 1) * (n_latents + 2)
    return tuple(n for n in LEVELS if needed <= n <= n_all // 2)


def interpolated(log_density: Callable[[Tensor, Tensor], Tensor], points: Tensor, n_voxels: int) -> Tensor:
    """Log density ``(S, n)`` at points ``(S, L)`` in each of n voxels, up to a constant a voxel.

    It is evaluated at a few points first, at more where those are not enough, and at all in voxels in which nothing
    smooth goes through them.

    Parameters
    ----------
    log_density
        Of points ``(K, L)`` and voxels ``(k,)``: values ``(K, k)``.
    points
        In the coordinates in which the posterior is about standard normal.
    n_voxels
        How many voxels there are.
    """
    found = points.new_empty(len(points), n_voxels)
    left, known = torch.arange(n_voxels, device=points.device), points.new_empty(0, n_voxels)
    for n in levels(points.shape[-1], len(points)):
        new = few_points(n, points.shape[-1])[len(known) :].to(points)
        known = torch.cat([known, log_density(new, left)])
        step = _steps(n, points.cpu())
        values = (known - known.amax(0)).nan_to_num(nan=_LOWEST).clamp_min(_LOWEST)
        enough = step.error(values) < TOLERANCE
        found[:, left[enough]] = step.to_all.to(points) @ values[:, enough]
        left, known = left[~enough], known[:, ~enough]
        if not len(left):
            return found
    found[:, left] = log_density(points, left)
    return found


_kept: dict[tuple[int, int, int], tuple[Tensor, Interpolation]] = {}


def _steps(n: int, points: Tensor) -> Interpolation:
    """The interpolation from ``n`` points to ``points``, which are the same for all chunks of voxels."""
    key = n, points.shape[0], points.shape[1]
    if key not in _kept or not torch.equal(_kept[key][0], points):
        _kept[key] = points, Interpolation.between(few_points(n, points.shape[-1]), points)
    return _kept[key][1]


def _quadratic(x: Tensor) -> Tensor:
    i, j = torch.tril_indices(x.shape[-1], x.shape[-1])
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, i] * x[:, j]], -1)


def _covariance(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(a, b).square() / (2 * _LENGTH**2))
