"""What a fit says about some voxels."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.guides import Guide
from pyroqmri.laplace.start import CHUNK
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior.among_neighbours import AmongNeighbours, stated_by_neighbours
from pyroqmri.posterior.estimates import Estimates
from pyroqmri.posterior.goodness_of_fit import GoodnessOfFit, judge_fit
from pyroqmri.posterior.importance import MIN_DRAWS, Latents, Reweighted, Reweighting, corrected_or_plain, uncorrected
from pyroqmri.posterior.log_likelihood import log_likelihood
from pyroqmri.posterior.population_average import PopulationAverage
from pyroqmri.posterior.population_sd import population_sd
from pyroqmri.posterior.psis import pareto_khat
from pyroqmri.posterior.recalibration import POINTS, Recalibration
from pyroqmri.posterior.sampled import Plain
from pyroqmri.posterior.summaries import axis_summary, cone_angle, empty_summary, quantiles, with_derived
from pyroqmri.posterior.unlike import compared_latents, marginal, unlike_population
from pyroqmri.progress import progress_bar
from pyroqmri.voxel_model import VoxelModel

CHUNK_VALUES = 1_000_000  # numbers that a chunk's largest array may hold: few enough for a cache
QUANTILES = (0.05, 0.95)


class Posterior(AmongNeighbours, Estimates):
    """Posterior of N voxels under a trained pair.

    Moments and quantiles are streamed over chunks of voxels; the same points serve every voxel, so that no map
    carries Monte Carlo speckle.

    Parameters
    ----------
    model, guide
        The trained pair.
    batch
        Voxels as the fit's preparation left them.
    n_draws
        Points that stand for each voxel's posterior.
    progress
        Show a bar.
    recalibration
        Correction of the intervals, if the fit has one.
    reweighting
        How draws are corrected by importance weights, if they are.
    """

    def __init__(
        self,
        model: VoxelModel,
        guide: Guide,
        batch: Batch,
        n_draws: int = 256,
        progress: bool = False,
        recalibration: Recalibration | None = None,
        reweighting: Reweighting | None = None,
    ) -> None:
        super().__init__(model.signal, batch)
        self.recalibration, self.likelihood = recalibration, model.likelihood
        wanted = reweighting is not None and reweighting.wanted(axes=model.signal.direction is not None)
        self.reweighting = reweighting if wanted else None
        self.has_khat = reweighting is not None and reweighting.reweight  # of every voxel
        self.model, self.guide, self.n_draws, self.progress = model, guide, n_draws, progress
        self._average, self._compared = PopulationAverage(model.prior), compared_latents(model)
        self.witness: Callable[..., None] = lambda *draws: None  # sees those behind maps
        self.elbo: Sequence[float] = ()  # this and what follows: for whoever writes the posterior down
        self.elbo_steps: Sequence[int] = ()
        self.class_names: Sequence[str] = ()
        self.recipe = ""

    def _chunks(self, n_per_voxel: int) -> Iterator[tuple[Voxels, Latents]]:
        """Prepared voxels with their posterior, so few that ``n_per_voxel`` numbers for each fit in memory."""
        pool = 0 if self.reweighting is None else 8 * self.reweighting.pool
        n = max(1, CHUNK_VALUES // max(n_per_voxel, pool))
        device = self.model.sigma.device
        for i in range(0, len(self.batch.voxels), CHUNK):
            voxels = self.guide.prepare(self.batch.voxels[i : i + CHUNK].to(device))
            q = self.guide.z_dist(voxels) if len(voxels) else None
            for j in range(0, len(voxels), n):
                part = voxels[j : j + n]
                found = self._average(q[j : j + n] if isinstance(q, GaussianMixture) else self.guide.z_dist(part))
                yield part, self._corrected(found, part)

    def z_dist(self, voxels: Voxels) -> Latents:
        """Posterior of the latents of prepared voxels, corrected where the posterior is."""
        return self._corrected(self._average(self.guide.z_dist(voxels)), voxels)

    def _corrected(self, q: Plain, voxels: Voxels) -> Latents:
        if self.reweighting is None:
            return q
        found = Reweighted(q, lambda z, index: self._log_ratio(z, voxels[index]), self.reweighting, voxels.n_seen)
        return found if len(found.index) else q

    def _log_ratio(self, z: Tensor, voxels: Voxels, q: Plain | None = None) -> Tensor:
        """Log of the joint density ``(S, n)`` at draws ``(S, n, L)``, over that of ``q``: the importance weights."""
        joint = self.model.log_joint(z, voxels, CHUNK_VALUES, self._average.predictive)
        return joint if q is None else joint - q.log_prob(z)

    def _theta(self, z: Tensor, voxels: Voxels) -> dict[str, Tensor]:
        """Quantities of draws ``(S, n, L)``; axes are turned to the side of their mean, angles lie around its own."""
        theta = self.rescale(self.model.theta(z, voxels))
        return with_derived(theta, self.signal)

    def _draws(self, z: Tensor, voxels: Voxels, q: Latents) -> dict[str, Tensor]:
        """Quantities of draws ``(S, n, L)`` of ``q``, recalibrated."""
        theta = self._theta(z, voxels)
        if self.recalibration is None:
            return theta
        points = normal_points(POINTS, self.model.n_latents, seed=0).to(z)
        return self.recalibration(theta, self._theta(q.transport(points), voxels), self.parameters)

    @cached_property
    @torch.no_grad()
    def _summary(self) -> dict[str, Tensor]:
        """Everything that the maps need, in one pass over the voxels."""
        points = normal_points(self.n_draws, self.model.n_latents, seed=0).to(self.model.sigma)
        parts, done, n_measurements = list[dict[str, Tensor]](), 0, self.batch.voxels.y.shape[1]
        with progress_bar("posterior", len(self.batch.voxels), self.progress) as report:
            for voxels, q in self._chunks(16 * n_measurements + 8 * self.n_draws):
                parts.append(self._summarise(voxels, q, points))
                done += len(voxels)
                report(done)
        if not parts:
            each = [f"{what} {name}" for what in ("mean", "sd", *QUANTILES) for name in self.names]
            return empty_summary([*each, *GoodnessOfFit._fields], [p.name for p in self.signal.axes])
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}

    @property
    def best_theta(self):
        """Parameters of the fitted voxels ``(n,)`` that fit best among draws, in the model's units."""
        return {k.removeprefix("best "): v for k, v in self._summary.items() if k.startswith("best ")}

    def _summarise(self, voxels: Voxels, q: Latents, points: Tensor) -> dict[str, Tensor]:
        z = q.transport(points)
        theta = self._draws(z, voxels, q)
        self.witness(z, theta, voxels)
        some = z[:: max(1, self.n_draws // 16)]
        discrepancy = self.model.discrepancy(some, voxels)
        best = some[discrepancy.argmin(0), torch.arange(len(voxels), device=z.device)]
        out = judge_fit(discrepancy, voxels.n_counted, lambda i: self.model.residuals(best[i], voxels[i])).found()
        found = self.model.theta(best, voxels)
        out |= self.direction_misfit(voxels, found) | {f"best {name}": value for name, value in found.items()}
        classes = self.model.prior.classes()
        if self._compared:
            out["unlike"] = unlike_population(z[..., self._compared], marginal(classes, self._compared))
        if len(classes.log_weights) > 1:
            out["responsibilities"] = GaussianMixture(*classes).responsibilities(z).mean(0)
            own = uncorrected(q)
            if isinstance(own, GaussianMixture) and own.logits.shape[-1] == len(classes.log_weights):
                out["responsibilities"] = corrected_or_plain(q, out["responsibilities"], own.probs)
        out |= stated_by_neighbours(uncorrected(q), voxels, self.signal)
        out |= {"khat": q.khat} if self.has_khat and isinstance(q, Reweighted) else {}
        for p in self.signal.axes:
            out |= axis_summary(theta[p.name], p.name)
        axes = {p.name: out[f"axis {p.name}"] for p in self.signal.axes}
        for name, parameter in self.parameters.items():
            draws = theta[name]
            if axes and parameter.unit == "rad":
                centre = self.signal.signal.derived(axes)[name]
                out |= {f"mean {name}": centre, f"sd {name}": (draws - centre).square().mean(0).sqrt()}
            else:
                out[f"mean {name}"], out[f"sd {name}"] = draws.mean(0), draws.std(0)
        out |= self._quantiles(QUANTILES, theta, voxels, q)
        return {k: v.cpu() for k, v in out.items()}

    def _quantiles(
        self, levels: Sequence[float], theta: dict[str, Tensor], voxels: Voxels, q: Latents
    ) -> dict[str, Tensor]:
        """Each level's quantile of each quantity ``(n,)``: of its draws; exact where a latent of its own is behind."""
        exact, found, own = dict[str, Tensor](), dict[str, Tensor](), uncorrected(q)
        if self.recalibration is None and self.model.is_identity and isinstance(own, GaussianMixture):
            for level in levels:
                at = self.rescale(self.model.theta(own.marginal_quantile(level), voxels))
                exact |= {f"{level} {p.name}": at[p.name] for p in self.signal.tissue if self.signal.box(p, at) is None}
        for name in self.names:
            keys = [f"{level} {name}" for level in levels]
            if isinstance(q, Reweighted) or keys[0] not in exact:
                found |= dict(zip(keys, quantiles(theta[name], levels), strict=True))
        return found | {key: corrected_or_plain(q, found.get(key, value), value) for key, value in exact.items()}

    def _get(self, what: str) -> dict[str, Tensor]:
        return {name: self.scatter(self._summary[f"{what} {name}"]) for name in self.names}

    def population_sd(self):
        """Standard deviation of each free parameter over the population; empty where the prior depends on the voxel."""
        return population_sd(self.model)

    @property
    def mean(self):
        """Posterior mean of each quantity ``(N,)``; angles are those of the mean axis."""
        return self._get("mean")

    @property
    def sd(self):
        """Posterior standard deviation of each quantity ``(N,)``."""
        return self._get("sd")

    def quantile(self, q):
        """Posterior quantile of each quantity ``(N,)``."""
        for kept in QUANTILES:
            if math.isclose(q, kept):
                return self._get(str(kept))
        points = normal_points(self.n_draws, self.model.n_latents, seed=0).to(self.model.sigma)
        parts: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for voxels, latents in self._chunks(8 * self.n_draws):
                theta = self._draws(latents.transport(points), voxels, latents)
                parts.append({k: v.cpu() for k, v in self._quantiles([q], theta, voxels, latents).items()})
        return {n: self.scatter(torch.cat([torch.empty(0), *(p[f"{q} {n}"] for p in parts)])) for n in self.names}

    def draws(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Independent posterior draws of each quantity ``(n, N)``; a direction is ``(n, N, 3)``."""
        parts: list[dict[str, Tensor]] = []
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            for voxels, q in self._chunks(8 * n):
                theta = self._draws(q.sample(torch.Size([n])), voxels, q)
                parts.append({k: v.movedim(0, 1).cpu() for k, v in theta.items() if v.dim() > 1})
        if not parts:
            axes = {p.name: torch.empty(0, n, 3) for p in self.signal.axes}
            parts = [{name: torch.empty(0, n) for name in self.names} | axes]
        return {k: self.scatter(torch.cat([p[k] for p in parts])).movedim(1, 0) for k in parts[0]}

    def log_likelihood(self, n: int | None = None, seed: int = 0) -> Tensor:
        """Log-likelihood of each measurement that the model sees, under ``n`` draws: ``(n, N, M)``, float32.

        ``n`` is 100 by default, or what half a gigabyte has room for. :func:`pyroqmri.compare` keeps no draw.
        """
        return log_likelihood(self, n, seed)

    @property
    def axes(self):
        """Mean axis of each direction ``(N, 3)`` by its name."""
        return {p.name: self.scatter(self._summary[f"axis {p.name}"]) for p in self.signal.axes}

    def cone(self, q: float, name: str | None = None) -> Tensor:
        """Half-angle in degrees of the cone around the mean axis that contains probability ``q``, ``(N,)``."""
        return self.scatter(cone_angle(self._summary[f"angles {self.direction_name(name)}"], q))

    @property
    def goodness_of_fit(self):
        """What each voxel's measurements say against the posterior ``(N,)``."""
        return GoodnessOfFit.gathered(self._summary, self.scatter)

    @cached_property
    @torch.no_grad()
    def khat(self) -> Tensor:
        """Pareto shape of the importance weights of 1,000 draws or more ``(N,)``: above 0.7 the fit is no good."""
        if self.has_khat and len(self.batch.voxels):
            return self.scatter(self._summary["khat"])
        parts = [torch.empty(0)]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for voxels, q in self._chunks(8 * MIN_DRAWS):
                q = uncorrected(q)
                parts.append(pareto_khat(self._log_ratio(q.sample(torch.Size([MIN_DRAWS])), voxels, q).T).cpu())
        return self.scatter(torch.cat(parts))

    @property
    def responsibilities(self) -> Tensor | None:
        """Probability of each tissue class ``(N, C)``, or None for a prior with one."""
        return self.scatter(self._summary["responsibilities"]) if "responsibilities" in self._summary else None

    def to_arviz(self, voxels: slice = slice(0, 100), n_draws: int = 200, seed: int = 0, ijk: Any = None) -> Any:
        """The posterior as ArviZ knows it, see :func:`pyroqmri.diagnostics.posterior_to_arviz`."""
        from pyroqmri.diagnostics import posterior_to_arviz

        return posterior_to_arviz(self, voxels, n_draws, seed, ijk=ijk)

    def region(self, mask: Any, n_draws: int = 1000, seed: int = 0, own_population: bool = False) -> Any:
        """Mean and spread over some voxels with their uncertainty, see :func:`pyroqmri.posterior.region`."""
        from pyroqmri.posterior.region import region

        return region(self, mask, n_draws, seed, own_population)
