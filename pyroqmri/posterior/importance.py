"""Draws of an approximate posterior put right by importance weights, where the weights can be trusted."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.errors import InputError
from pyroqmri.posterior.interpolation import interpolated
from pyroqmri.posterior.psis import efficiency, smoothed
from pyroqmri.posterior.sampled import Plain, normal_part

MIN_DRAWS = 1000  # the Pareto shape of fewer is noise
# a proposal with heavier tails than the posterior leaves no weight without a bound: half of it is twice as wide again
WIDER, WIDE, WIDE_SHARE = 1.25, 2.5, 0.5
LOOSE = 0.1  # rad, sd of an axis from which its posterior may be no normal in the tangent plane any more
LOOSE_DRAWS = 512  # they serve such a voxel as well as twice as many
LOOSE_KHAT, LOOSE_EFFICIENCY = 1.0, 0.03  # poor weights are better there than none: cones of the guide hold a third
COSTLY = 48  # measurements from which on a density is interpolated
ANY_AXIS = 0.5  # share of a loose axis's proposal that is spread over the half sphere


Density = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reweighting:
    """Settings of what is said of a voxel, as a recipe states them.

    Parameters
    ----------
    draws
        Points that stand for each voxel's posterior.
    reweight
        Correct them by Pareto-smoothed importance weights; takes 1,000 points or more.
    loose_axes
        Correct voxels in which the axis of a signal is open: no normal in a tangent plane describes it.
    max_khat, min_efficiency
        Only voxels whose weights have a Pareto shape below, and an efficiency above, are corrected:
        elsewhere a few draws would stand for all.
    interpolate
        Take the weights of most points from those of a few where that is as good.
    """

    draws: int = 256
    reweight: bool = False
    loose_axes: bool = True
    max_khat: float = 0.7
    min_efficiency: float = 0.1
    interpolate: bool = True

    def __post_init__(self) -> None:
        if self.draws <= 0:
            raise InputError(f"posterior.draws must be above zero, got {self.draws}")
        if self.reweight and self.draws < MIN_DRAWS:
            raise InputError(f"posterior.reweight needs {MIN_DRAWS} posterior.draws or more, got {self.draws}")

    @property
    def pool(self) -> int:
        """Points that carry the weights of a voxel."""
        return self.draws if self.reweight else max(self.draws, LOOSE_DRAWS)

    def wanted(self, axes: bool) -> bool:
        """Whether anything is to be corrected; ``axes``: the last two latents are those of an axis."""
        return self.reweight or (self.loose_axes and axes)


def loose_axes(q: GaussianMixture) -> Tensor:
    """Indices of voxels whose axis, the last two latents, a normal does not describe."""
    sd = q.variance[..., -2:].amax(-1).sqrt()
    return torch.nonzero(sd > LOOSE).squeeze(-1)


def wide(q: GaussianMixture, any_axis: bool = False) -> GaussianMixture:
    """What draws are from: the posterior widened, a share of it more so, or with the axis anywhere for ``any_axis``."""
    near, far, loc = WIDER * q.scale_tril, WIDE * q.scale_tril, q.loc
    if any_axis:
        loc, far = q.loc.clone(), near.clone()
        loc[..., -2:], far[..., -2:, :] = 0, 0
        far[..., [-2, -1], [-2, -1]] = 1
    share = ANY_AXIS if any_axis else WIDE_SHARE
    logits = torch.cat([q.logits + math.log(1 - share), q.logits + math.log(share)], -1)
    return GaussianMixture(logits, torch.cat([q.loc, loc], -2), torch.cat([near, far], -3))


class Reweighted:
    """A guide's posterior of some voxels, corrected; stands where a :class:`GaussianMixture` does.

    One pool of points a voxel, from the guide's posterior a little widened, carries the
    weights. What is asked for are equally weighted points resampled from it, so that
    moments, quantiles and draws all say the same.

    Parameters
    ----------
    q
        The guide's posterior, batch ``(n,)``.
    log_joint
        Log joint density ``(S, k)``, up to a constant a voxel, of draws ``(S, k, L)`` and which voxels they are
        ``(k,)``.
    settings
        Number of points, and when to correct.
    n_measurements
        Of a voxel: a density of few is evaluated sooner than interpolated.
    """

    def __init__(self, q: Plain, log_joint: Density, settings: Reweighting, n_measurements: int = 0) -> None:
        self.q, self.log_joint, self.settings = q, log_joint, settings
        self.interpolates = settings.interpolate and n_measurements >= COSTLY
        self.normal = normal_part(q)
        self.loose, loc = not settings.reweight, self.normal.loc
        self.index = loose_axes(self.normal) if self.loose else torch.arange(len(loc), device=loc.device)

    @cached_property
    def _pool(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points ``(S, k, L)``, weights ``(k, S)``, Pareto shapes ``(k,)`` and which voxels are corrected ``(k,)``."""
        points = normal_points(self.settings.pool, self.normal.loc.shape[-1], seed=0).to(self.normal.loc)
        one = self.normal.loc.shape[-2] == 1 and not self.loose
        z, log_ratio = self._shared(points) if one else self._each(points)
        weights, khat = smoothed(log_ratio.T.contiguous().nan_to_num(nan=-1e30))
        settings = self.settings
        most, least = (LOOSE_KHAT, LOOSE_EFFICIENCY) if self.loose else (settings.max_khat, settings.min_efficiency)
        trusted = (khat < most) & (efficiency(weights) > least)
        return z, weights, khat, trusted

    def _each(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Draws ``(S, k, L)`` of each voxel's proposal and the log of joint density over its ``(S, k)``."""
        proposal = wide(self.normal[self.index], any_axis=self.loose)
        z = proposal.transport(points)
        return z, self.log_joint(z, self.index) - proposal.log_prob(z)

    def _shared(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The same for single normals: in their own coordinates all voxels have the same draws."""
        loc, tril = self.normal.loc[self.index, 0], self.normal.scale_tril[self.index, 0]
        n = loc.shape[-1]
        proposal = wide(GaussianMixture.single(loc.new_zeros(n), torch.eye(n).to(loc)))
        x = proposal.transport(points)

        def place(x: Tensor, which: Tensor) -> Tensor:
            return torch.addmm(loc[which].flatten(), x, tril[which].flatten(0, 1).mT).view(len(x), len(which), n)

        def log_joint(x: Tensor, which: Tensor) -> Tensor:
            return self.log_joint(place(x, which), self.index[which])

        every = torch.arange(len(loc), device=loc.device)
        z = place(x, every)
        found = interpolated(log_joint, x, len(loc)) if self.interpolates else self.log_joint(z, self.index)
        return z, found - proposal.log_prob(x).unsqueeze(-1)

    @property
    def khat(self) -> Tensor:
        """Pareto shape of the weights ``(k,)``."""
        return self._pool[2]

    @property
    def corrected(self) -> Tensor:
        """Whether each voxel's weights are used ``(n,)``."""
        found = torch.zeros(len(self.normal.loc), dtype=torch.bool, device=self.normal.loc.device)
        found[self.index] = self._pool[3]
        return found

    def transport(self, base: Tensor) -> Tensor:
        """Draws ``(S, n, L)`` that stand for the posterior, as evenly as the weights allow; of the guide elsewhere."""
        even = (torch.arange(len(base), dtype=base.dtype, device=base.device) + 0.5) / len(base)
        return self._put(even.expand(len(self.index), -1), lambda: self.q.transport(base))

    def sample(self, sample_shape: torch.Size) -> Tensor:
        """Independent draws ``(S, n, L)``: from the pool where it is corrected, else of the guide."""
        uniform = torch.rand(len(self.index), *sample_shape, dtype=self.normal.loc.dtype, device=self.normal.loc.device)
        return self._put(uniform, lambda: self.q.sample(sample_shape))

    def _put(self, levels: Tensor, plain: Callable[[], Tensor]) -> Tensor:
        """The draws; where corrected, points of the pool at ``levels`` ``(k, S)`` of the cumulative weights."""
        z, weights, _, trusted = self._pool
        cumulative = weights.cumsum(-1)
        index = torch.searchsorted(cumulative / cumulative[:, -1:], levels.contiguous()).clamp_max(len(z) - 1)
        picked = z.gather(0, index.T.unsqueeze(-1).expand(-1, -1, z.shape[-1]))
        if len(self.index) == len(self.normal.loc) and bool(trusted.all()):
            return picked
        draws = plain()
        draws[:, self.index] = torch.where(trusted.unsqueeze(-1), picked, draws[:, self.index])
        return draws


Latents = Plain | Reweighted


def uncorrected(q: Latents) -> Plain:
    """The guide's posterior before any correction."""
    return q.q if isinstance(q, Reweighted) else q


def corrected_or_plain(q: Latents, corrected: Tensor, plain: Tensor) -> Tensor:
    """Values ``(n, ...)`` of the corrected posterior where there is one, those of the guide's elsewhere."""
    if not isinstance(q, Reweighted):
        return plain
    return torch.where(q.corrected.view(-1, *(1,) * (plain.dim() - 1)), corrected, plain)
