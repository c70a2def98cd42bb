"""From voxels to a region, with the voxels' uncertainty carried through."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior.posterior import Latents, Posterior
from pyroqmri.posterior.region_population import gibbs_choices

POOL = 400  # draws of a voxel to choose from
OWN_VOXELS = 2000


@dataclass(frozen=True)
class Region:
    """What a posterior says of a region of interest.

    Every draw is a whole region: the mean and the spread are taken over its voxels
    within each draw, and their uncertainty over the draws. The mean of posterior means has
    no uncertainty, and the spread of posterior means is not the spread of tissue, because
    every mean is drawn towards the population's.

    Attributes
    ----------
    n_voxels, n_left_out
        Voxels that were averaged, and those of the mask that could not be fitted.
    units
        Of each quantity.
    mean_draws, spread_draws
        Mean over the voxels, and standard deviation between them, in each draw ``(S,)``.

    Notes
    -----
    Voxels are independent given the population and the noise level, which are point
    estimates: an error of those is common to all voxels and is not in these numbers.
    """

    n_voxels: int
    n_left_out: int
    units: dict[str, str]
    mean_draws: dict[str, Tensor]
    spread_draws: dict[str, Tensor]

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the region."""
        return {k: float(v.mean()) for k, v in self.mean_draws.items()}

    @property
    def sd(self) -> dict[str, float]:
        """Posterior standard deviation of the region's mean."""
        return {k: float(v.std()) for k, v in self.mean_draws.items()}

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation between the region's voxels, noise taken out."""
        return {k: float(v.mean()) for k, v in self.spread_draws.items()}

    def interval(self, p: float = 0.9) -> dict[str, tuple[float, float]]:
        """Central interval of the region's mean that holds probability ``p``."""
        if not 0 < p < 1:
            raise ValueError(f"an interval's probability lies between 0 and 1, got {p}")
        ends = torch.tensor([(1 - p) / 2, (1 + p) / 2])
        found = {k: torch.quantile(v, ends.to(v)) for k, v in self.mean_draws.items()}
        return {k: (float(v[0]), float(v[1])) for k, v in found.items()}

    def __str__(self) -> str:
        lines = [f"{self.n_voxels} voxels" + (f", {self.n_left_out} left out" if self.n_left_out else "")]
        for name, unit in self.units.items():
            said = "" if unit == "1" else f" {unit}"
            lines.append(
                f"{name}: {self.mean[name]:.4g} +- {self.sd[name]:.2g}{said}, {self.spread[name]:.2g} between voxels"
            )
        return "\n".join(lines)


def region(posterior: Posterior, mask: Any, n_draws: int = 1000, seed: int = 0, own_population: bool = False) -> Region:
    """Mean and spread of each scalar quantity over the voxels of a mask.

    Parameters
    ----------
    posterior
        Of N voxels.
    mask
        Which of them, ``(N,)`` bool; an image mask is ``mask[brain]`` of the mask that was fitted.
    n_draws, seed
        Of the joint posterior.
    own_population
        Whether the region has a mean and a spread of its own, learned from its voxels, in place of the population that
        the fit learned from all: for a region of one tissue that is compared with those of other subjects.

    Raises
    ------
    InputError
        When the mask has another length, or holds no voxel that was fitted.
    """
    inside = torch.as_tensor(np.asarray(mask)).bool()
    n_asked = len(posterior.batch.status)
    if inside.shape != (n_asked,):
        raise InputError(
            f"the mask of a region must be ({n_asked},), one entry per posterior voxel, got {tuple(inside.shape)}"
        )
    chosen = torch.nonzero(inside[posterior.batch.index]).squeeze(-1)
    if len(chosen) == 0:
        raise InputError(f"none of the {int(inside.sum())} voxels of the region could be fitted; give another mask")
    if own_population and len(chosen) > OWN_VOXELS:
        raise InputError(
            f"a population of its own is learned from {OWN_VOXELS} voxels at most and the region has {len(chosen)}; "
            "so many hardly need one: leave own_population out"
        )
    names = posterior.names
    sums = {name: torch.zeros(2, n_draws, dtype=torch.float64) for name in names}
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        size = max(1, 4_000_000 // n_draws)
        for i in range(0, len(chosen), size):
            part = posterior.batch.voxels[chosen[i : i + size]].to(posterior.model.sigma.device)
            voxels = posterior.guide.prepare(part)
            q = posterior.z_dist(voxels)
            z = _under_own(posterior, q, voxels, n_draws) if own_population else q.sample(torch.Size([n_draws]))
            theta = posterior._draws(z, voxels, q)
            for name in names:
                values = theta[name].double().cpu()
                sums[name] += torch.stack([values.sum(-1), values.square().sum(-1)])
    n = len(chosen)
    mean = {k: v[0] / n for k, v in sums.items()}
    spread = {k: (v[1] / n - mean[k].square()).clamp_min(0).mul(n / max(n - 1, 1)).sqrt() for k, v in sums.items()}
    units = {name: posterior.parameters[name].unit for name in names}
    return Region(n, int(inside.sum()) - n, units, mean, spread)


def _under_own(posterior: Posterior, q: Latents, voxels: Voxels, n: int) -> Tensor:
    """Draws ``(n, N, L)`` of all voxels of a region under its own population."""
    z = q.sample(torch.Size([POOL]))
    lead = z.shape[-1] - (posterior.signal.n_latents - posterior.signal.n_tissue)  # axes have no population
    prior = posterior.model.prior
    population = prior.classes()
    # the latents of an axis are standard normal under either population
    log_shared = prior.log_prob(z, population, voxels) + z[..., lead:].square().sum(-1) / 2
    log_weights, loc, tril = population
    shared = GaussianMixture(log_weights, loc[..., :lead], tril[..., :lead, :lead])
    return z[gibbs_choices(z[..., :lead], shared, log_shared, n), torch.arange(z.shape[1])]
