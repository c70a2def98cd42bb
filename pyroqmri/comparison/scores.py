"""What recipes are ranked by: each voxel's predictive scores under one posterior."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.laplace.measured_s0 import s0_error
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.psis import smoothed
from pyroqmri.posterior.sampled import Plain, normal_part, plain
from pyroqmri.progress import Report

N_DRAWS = 500
KHAT_BAD = 0.7
NEAR_SHARE, NEAR, WIDE_SHARE, WIDTH, PRIOR_SHARE = 0.25, 1.25, 0.3, 2.5, 0.2
_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True)
class Scores:
    """Scores of n voxels in nats, larger is better; each ``(n,)`` float64.

    Attributes
    ----------
    index
        Which of the voxels that were asked about.
    loo
        Sum over the measurements of the log density of each given the others, by PSIS with the
        correction for draws from an approximate posterior.
    waic
        Sum over the measurements of the log predictive density less the posterior variance of the log density.
    evidence
        Log density of all measurements given the population: the parameters are integrated
        out by importance sampling.
    khat
        Pareto shape of the weights of ``evidence``.
    bad_loo
        Share of the measurements whose weights have a Pareto shape above 0.7 once they are left out.
    """

    index: Tensor
    loo: Tensor
    waic: Tensor
    evidence: Tensor
    khat: Tensor
    bad_loo: Tensor


@torch.no_grad()
def voxel_scores(
    posterior: Posterior,
    voxels: Tensor | None = None,
    n_draws: int = N_DRAWS,
    seed: int = 0,
    loo: bool = True,
    report: Report | None = None,
) -> Scores:
    """Scores of fitted voxels; memory does not grow with their number.

    Densities are those of the measurements in the scan's own units, so that recipes
    may scale them differently. Draws come from the guide, some from one twice as wide and some from the prior,
    and are weighted to the posterior.

    Parameters
    ----------
    posterior
        Of a Bayesian fit.
    voxels
        Which of the fitted voxels; all when None.
    n_draws, seed
        Draws of each voxel.
    loo
        Also the scores that need every measurement left out in turn; NaN without.
    report
        Called with the number of voxels done.

    Source: Vehtari et al. 2017, doi:10.1007/s11222-016-9696-4; correction for an approximate posterior: Magnusson
    et al. 2019, arXiv:1904.10679; WAIC: Watanabe 2010.
    """
    batch = posterior.batch
    every = torch.arange(len(batch.voxels)) if voxels is None else voxels
    n_measurements = batch.voxels.y.shape[1]
    parts: list[list[Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for where in _chunks(every, n_draws * n_measurements):
            prepared = posterior.guide.prepare(batch.voxels[where].to(posterior.model.sigma.device))
            _, pointwise, ratio = log_terms(posterior, prepared, n_draws)
            # a density in other units differs by the logarithm of the unit
            unit = -batch.reference[where if len(batch.reference) > 1 else slice(None)].double().log()
            parts.append(_score(pointwise, ratio, unit, loo))
            if report is not None:
                report(int(where[-1]) + 1)
    if not parts:
        return Scores(batch.index[every], *(torch.empty(0, dtype=torch.float64) for _ in fields(Scores)[1:]))
    return Scores(batch.index[every], *(torch.cat(column) for column in zip(*parts, strict=True)))


def _chunks(index: Tensor, per_voxel: int) -> Iterator[Tensor]:
    if len(index):
        yield from index.split(max(1, _CHUNK_VALUES // per_voxel))


def log_terms(posterior: Posterior, voxels: Voxels, n_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws ``(S, n, L)``, log-likelihoods of each measurement ``(S, n, M)`` and log importance ratios ``(S, n)``."""
    model, population = posterior.model, posterior.model.prior.classes()
    q = Proposal(plain(posterior.guide.z_dist(voxels)), GaussianMixture(*population))
    z = q.sample(n_draws)
    signal = model.simulate(z, voxels)
    found, variance = model.seen(signal, voxels), model.likelihood.of(voxels).s0_variance(voxels.noise)
    pointwise = found.log_prob.double()
    gain = 0.0 if variance is None else s0_error(signal, found.score, found.fisher, variance).gain
    return z, pointwise, pointwise.sum(-1) + gain + model.prior.log_prob(z, population, voxels) - q.log_prob(z)


class Proposal:
    """The guide's posterior, shares of its draws from ``NEAR`` and ``WIDTH`` times its width, and one from the prior.

    Variational posteriors are light in the tails, where importance weights then explode, and one without a
    measurement that told much is as wide as the prior. What is compared are models, not how
    well each was approximated.

    Parameters
    ----------
    q
        The guide's posterior of n voxels.
    classes
        The prior's classes, one mixture for all voxels; the prior itself may have another shape.
    """

    def __init__(self, q: Plain, classes: GaussianMixture) -> None:
        normal = normal_part(q)
        n = len(normal.loc)
        near, wide = (GaussianMixture(normal.logits, normal.loc, by * normal.scale_tril) for by in (NEAR, WIDTH))
        shares = (1 - NEAR_SHARE - WIDE_SHARE - PRIOR_SHARE, NEAR_SHARE, WIDE_SHARE, PRIOR_SHARE)
        self.parts = [*zip((q, near, wide, classes.expand(torch.Size([n]))), shares, strict=True)]

    def sample(self, n: int) -> Tensor:
        """Draws ``(S, n, L)``."""
        draws = torch.stack([part.sample(torch.Size([n])) for part, _ in self.parts])
        shares = torch.tensor([share for _, share in self.parts], dtype=draws.dtype, device=draws.device)
        pick = torch.multinomial(shares, draws[0, ..., 0].numel(), replacement=True).view(draws.shape[1:-1])
        return torch.take_along_dim(draws, pick[None, ..., None], 0).squeeze(0)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density ``(S, n)`` of draws ``(S, n, L)``."""
        return torch.stack([part.log_prob(z) + math.log(share) for part, share in self.parts]).logsumexp(0)


def _score(pointwise: Tensor, ratio: Tensor, unit: Tensor, with_loo: bool) -> list[Tensor]:
    """LOO, WAIC, evidence, Pareto shape and share of bad shapes of a chunk, each ``(n,)``."""
    n_draws, n, m = pointwise.shape
    raw = ratio.T.double()
    weights, khat = smoothed(raw)
    # smoothed weights sum to one; most are the raw ones over the sum, which is what is wanted; some vanish
    evidence = (raw - torch.where(weights > 0, weights, torch.nan).log()).nanmedian(-1).values - math.log(n_draws)
    loo = waic = bad = torch.full((n,), torch.nan, dtype=torch.float64)
    if with_loo:
        each = pointwise.permute(1, 2, 0)
        left, shape = smoothed((raw.unsqueeze(1) - each).reshape(n * m, n_draws))
        loo = (left.view(n, m, n_draws).log() + each).logsumexp(-1).sum(-1)
        bad = (shape.view(n, m) > KHAT_BAD).double().mean(-1)
        w = weights.unsqueeze(1)
        spread = (w * each.square()).sum(-1) - (w * each).sum(-1).square()
        waic = ((each + w.log()).logsumexp(-1) - spread.clamp_min(0)).sum(-1)
    scale = m * unit
    return [x.cpu() for x in (loo + scale, waic + scale, evidence + scale, khat, bad)]
