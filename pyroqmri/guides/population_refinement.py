"""The population where a normal posterior of each voxel draws it away: raised to the evidence by importance weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pyro import poutine
from torch import Tensor

from pyroqmri.decoders import IdentityDecoder
from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides.base import Guide
from pyroqmri.guides.structured import Structured
from pyroqmri.laplace.mode import safe_cholesky
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import GaussianPrior, Mixture, Population, Prior
from pyroqmri.voxel_model import VoxelModel

GAP = 0.05  # nats a voxel that a normal posterior may leave out before the population is refined
DRIFT = 0.007  # nats a voxel that the trained guide may leave out before a population that it drew in is refined
GUIDE_GAP = 0.02  # the same of the trained guide before its posteriors are reweighted
VOXELS, DRAWS, FEW = 1000, 64, 300
ROUNDS, ITERATIONS = 10, 40
GAIN, LOSS = 0.003, 0.05  # nats a voxel: a round that gains less is the last, one that loses more is taken back
_NEAR, _FAR = 1.25, 2.5  # times the guide's sd
_OWN_NEAR, _OWN_FAR = 1.1, 2.0  # the same of moments of the draws before, which know the posterior's own shape
_POOR = 0.05  # share of effective draws below which weights are of no use


def can_refine(model: VoxelModel, guide: Guide) -> bool:
    """Whether the population is a point that is learned, of the parameters themselves, and the guide follows it."""
    prior = model.prior
    learned = any(p.requires_grad for p in prior.parameters()) and not prior.follows_draws
    normal = prior.is_written_by(GaussianPrior) or prior.is_written_by(Mixture)
    own = not prior.looks_at_voxels and isinstance(model.decoder, IdentityDecoder)
    return learned and own and normal and type(guide) is Structured


@torch.no_grad()
def left_out(model: VoxelModel, guide: Guide, voxels: Voxels) -> float:
    """Nats a voxel by which the evidence exceeds the ELBO of the guide's posterior, as the median of some voxels.

    Not a number where so few draws carry the weight that nothing can be seen.
    """
    some = evenly(voxels, FEW)
    q = guide.z_dist(some)
    z = q.sample(torch.Size([DRAWS]))
    ratio = (model.log_joint(z, some) - q.log_prob(z)).nan_to_num(nan=-1e30)
    effective = 1 / (ratio.softmax(0).square().sum(0) * DRAWS)
    gap = ratio.logsumexp(0) - math.log(DRAWS) - ratio.mean(0)
    return float(gap.median()) if float(effective.median()) > _POOR else math.nan


def refine_population(model: VoxelModel, guide: Guide, voxels: Voxels) -> None:
    r"""Climb the voxels' evidence in the population, in place.

    .. math:: \log p(y_n \mid m, s, \Omega) \approx \log \frac1S \sum_s
              \frac{p(y_n \mid z_{ns})\, p(z_{ns} \mid m, s, \Omega)}{r_n(z_{ns})}

    Draws of a round stay where they are, so their evidence is a smooth function of the population, which is climbed to
    its top without another signal. The next round draws from the guide under the new population, widened, and
    from normals with the moments of the weighted draws before. The ELBO of normal posteriors favours populations
    under which posteriors are nearest to normal, along ridges and near bounds.

    Parameters
    ----------
    model, guide
        The pair, for which :func:`can_refine` holds.
    voxels
        Training voxels as ``guide.prepare`` left them.
    """
    some, prior, own, best = evenly(voxels, VOXELS), model.prior, None, -math.inf
    kept = [p.detach().clone() for p in prior.parameters()]
    for _ in range(ROUNDS):
        drawn = draw_latents(model, guide, some, own)
        before = float(drawn.evidence(prior.classes()).detach())
        if not before > best - LOSS:
            _put_back(prior, kept)
            return
        best, kept = max(best, before), [p.detach().clone() for p in prior.parameters()]
        after = _climb(prior, drawn, len(voxels))
        if not math.isfinite(after) or not all(p.isfinite().all() for p in prior.parameters()):
            _put_back(prior, kept)  # data that determine nothing leave the evidence flat
            return
        own = drawn.moments(prior.classes())
        if after - before < GAIN:
            return


@torch.no_grad()
def _put_back(prior: Prior, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(prior.parameters(), values, strict=True):
        parameter.copy_(value)


@dataclass(frozen=True)
class Drawn:
    """Draws of some voxels' latents that stand for their posteriors under any population.

    Attributes
    ----------
    z
        Draws ``(S, N, L)``.
    rest
        Log of all that the weights consist of but the density of the tissue latents ``(S, N)``.
    features
        Products of tissue latents ``(S, N, F)`` whose weighted sum is the log density of a normal.
    centre
        What the latents are taken from in the products ``(P,)``.
    """

    z: Tensor
    rest: Tensor
    features: Tensor
    centre: Tensor

    @classmethod
    def of(cls, z: Tensor, rest: Tensor, n_tissue: int) -> "Drawn":
        """The draws with their products."""
        tissue = z[..., :n_tissue].double()
        centre = tissue.mean((0, 1))
        offset = tissue - centre
        i, j = torch.tril_indices(n_tissue, n_tissue, device=z.device)
        return cls(z, rest.double(), torch.cat([offset[..., i] * offset[..., j], offset], -1), centre)

    def weighted(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Log weights ``(S, N)`` of the draws and of their classes ``(S, N, C)``, of :func:`natural` coefficients."""
        each = self.features @ coefficients[:, :-1].mT + coefficients[:, -1]
        return self.rest + each.logsumexp(-1), each

    def log_weights(self, population: Population) -> Tensor:
        """Log weights ``(S, N)`` of the draws under a population of normal classes."""
        return self.weighted(natural(population, self.centre))[0]

    def evidence(self, population: Population) -> Tensor:
        """Mean log evidence of a voxel."""
        return self.log_weights(population).logsumexp(0).mean() - math.log(len(self.rest))

    @torch.no_grad()
    def moments(self, population: Population) -> GaussianMixture:
        """Normals with the weighted mean and covariance of each voxel's draws, batch ``(N,)``."""
        weights = self.log_weights(population).softmax(0).to(self.z)
        loc = (weights.unsqueeze(-1) * self.z).sum(0)
        offset = (self.z - loc).movedim(0, 1)
        covariance = (weights.T.unsqueeze(-1) * offset).mT @ offset
        return GaussianMixture.single(loc, safe_cholesky(covariance))


def natural(population: Population, centre: Tensor) -> Tensor:
    """Coefficients ``(C, F + 1)`` of the products of :class:`Drawn`, and a constant: log weight and density of classes.

    Float64, which the large terms of narrow classes need.
    """
    n = len(centre)
    tril = population.scale_tril[:, :n, :n].double()
    precision, loc = torch.cholesky_inverse(tril), population.loc[:, :n].double() - centre
    i, j = torch.tril_indices(n, n, device=loc.device)
    double = torch.where(i == j, 0.5, 1.0).to(loc)
    pull = (precision @ loc.unsqueeze(-1)).squeeze(-1)
    log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = population.log_weights.double() - (loc * pull).sum(-1) / 2 - log_det - n / 2 * math.log(2 * math.pi)
    return torch.cat([-double * precision[:, i, j], pull, constant.unsqueeze(-1)], -1)


@torch.no_grad()
def draw_latents(model: VoxelModel, guide: Guide, voxels: Voxels, own: GaussianMixture | None) -> Drawn:
    """Draws from the guide, widened, and from ``own`` normals of the voxels where there are any."""
    q = guide.z_dist(voxels)
    assert isinstance(q, GaussianMixture)
    parts = [(q, _NEAR), (q, _FAR)] + ([] if own is None else [(own, _OWN_NEAR), (own, _OWN_FAR)])
    proposal = GaussianMixture(
        torch.cat([part.logits for part, _ in parts], -1),
        torch.cat([part.loc for part, _ in parts], -2),
        torch.cat([factor * part.scale_tril for part, factor in parts], -3),
    )
    z, n = proposal.sample(torch.Size([DRAWS])), model.prior.n_tissue
    axes = -(z[..., n:].square() + math.log(2 * math.pi)).sum(-1) / 2
    rest = model.y_dist(z, voxels).log_prob(voxels.y) + axes - proposal.log_prob(z)
    return Drawn.of(z, rest.nan_to_num(nan=-1e30), n)


def _climb(prior: Prior, drawn: Drawn, n_voxels: int) -> float:
    """Set the population to where the evidence of the draws, with the hyperprior, is highest; that evidence."""
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        hyperprior = poutine.trace(prior.population).get_trace().log_prob_sum() / n_voxels
        total = -drawn.evidence(prior.classes()) - hyperprior
        total.backward()
        return total.detach()

    optimizer.step(loss)  # type: ignore[arg-type]
    optimizer.zero_grad()
    return float(drawn.evidence(prior.classes()).detach())


def evenly(voxels: Voxels, n: int) -> Voxels:
    """At most ``n`` voxels, spread evenly over all."""
    return voxels[torch.linspace(0, len(voxels) - 1, min(n, len(voxels))).long().to(voxels.y.device)]
