"""Draws of an approximate posterior put right by importance weights, where the weights can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.errors import InputError
from pyroqmri.psis import efficiency, smoothed

MIN_DRAWS = 1000  # the Pareto shape of fewer is noise
WIDER = 1.25  # a proposal with heavier tails than the posterior leaves no weight without a bound


Ratio = Callable[[Tensor, GaussianMixture], Tensor]


@dataclass(frozen=True)
class Reweighting:
    """Settings of what is said of a voxel, as a recipe states them.

    Parameters
    ----------
    draws
        Points that stand for each voxel's posterior.
    reweight
        Correct them by Pareto-smoothed importance weights; takes 1,000 points or more.
    max_khat, min_efficiency
        Only voxels whose weights have a Pareto shape below, and an efficiency above, are corrected:
        elsewhere a few draws would stand for all.
    """

    draws: int = 256
    reweight: bool = False
    max_khat: float = 0.7
    min_efficiency: float = 0.1

    def __post_init__(self) -> None:
        if self.draws <= 0:
            raise InputError(f"posterior.draws must be above zero, got {self.draws}")
        if self.reweight and self.draws < MIN_DRAWS:
            raise InputError(f"posterior.reweight needs {MIN_DRAWS} posterior.draws or more, got {self.draws}")


class Reweighted:
    """A guide's posterior of some voxels, corrected; stands where a :class:`GaussianMixture` does.

    One pool of points a voxel, from the guide's posterior a little widened, carries the
    weights. What is asked for are equally weighted points resampled from it, so that
    moments, quantiles and draws all say the same.

    Parameters
    ----------
    q
        The guide's posterior, batch ``(n,)``.
    log_ratio
        Log of joint density over the density under a proposal ``(S, n)``, up to a constant a voxel; of draws
        ``(S, n, L)`` and the proposal that they are from.
    settings
        Number of points, and when to correct.
    """

    def __init__(self, q: GaussianMixture, log_ratio: Ratio, settings: Reweighting) -> None:
        self.q, self.log_ratio, self.settings = q, log_ratio, settings

    @cached_property
    def _pool(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points ``(S, n, L)``, weights ``(n, S)``, Pareto shapes ``(n,)`` and which voxels are corrected ``(n,)``."""
        loc = self.q.loc
        proposal = GaussianMixture(self.q.logits, loc, WIDER * self.q.scale_tril)
        z = proposal.transport(normal_points(self.settings.draws, loc.shape[-1], seed=0).to(loc))
        weights, khat = smoothed(self.log_ratio(z, proposal).T.contiguous().nan_to_num(nan=-1e30))
        trusted = (khat < self.settings.max_khat) & (efficiency(weights) > self.settings.min_efficiency)
        return z, weights, khat, trusted

    @property
    def khat(self) -> Tensor:
        """Pareto shape of the weights ``(n,)``."""
        return self._pool[2]

    @property
    def corrected(self) -> Tensor:
        """Voxels whose weights are used ``(n,)``."""
        return self._pool[3]

    def transport(self, base: Tensor) -> Tensor:
        """Draws ``(S, n, L)`` that stand for the posterior, as evenly as the weights allow; of the guide elsewhere."""
        even = (torch.arange(len(base), dtype=base.dtype, device=base.device) + 0.5) / len(base)
        return self._pick(even.expand(len(self.khat), -1), self.q.transport(base))

    def sample(self, sample_shape: torch.Size) -> Tensor:
        """Independent draws ``(S, n, L)``: from the pool where it is corrected, else of the guide."""
        uniform = torch.rand(len(self.khat), *sample_shape, dtype=self.q.loc.dtype, device=self.q.loc.device)
        return self._pick(uniform, self.q.sample(sample_shape))

    def _pick(self, levels: Tensor, otherwise: Tensor) -> Tensor:
        """Points of the pool at ``levels`` ``(n, S)`` of the cumulative weights."""
        z, weights, _, corrected = self._pool
        cumulative = weights.cumsum(-1)
        index = torch.searchsorted(cumulative / cumulative[:, -1:], levels.contiguous()).clamp_max(len(z) - 1)
        picked = z.gather(0, index.T.unsqueeze(-1).expand(-1, -1, z.shape[-1]))
        return torch.where(corrected.unsqueeze(-1), picked, otherwise)
