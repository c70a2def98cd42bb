"""Where a voxel's neighbours come in: what a field states about each voxel, and how its strengths are learned."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pyroqmri.guides.structured import Structured
from pyroqmri.laplace.start import CHUNK
from pyroqmri.markov.graph import Graph, graph_of
from pyroqmri.markov.law import Law
from pyroqmri.markov.learn import LEFT, Plan, find_borders, learn
from pyroqmri.markov.smooth import Sites, Smoothed, smooth
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.misfit.blur import Blur, blur_of
from pyroqmri.priors import Gmrf
from pyroqmri.voxel_model import VoxelModel

LEARNED_ON = 20_000  # voxels; strengths of more are hardly better
FIRST_STEPS, STEPS = 8, 2  # towards the modes without neighbours, and in each round
BORDER_ROUNDS, BORDER_DRAWS = 3, 16  # until borders of an image that nothing is learned from stay where they are
BLUR_VOXELS = 4000
SURE = 3.0  # standard errors by which neighbours must be more alike than others
TOGETHER, MOST_TOGETHER = 2.0, 2.0  # log odds that a voxel leaves for each neighbour that has, of so many at most
FASTER = 0.99  # so that a loop ends
NOTHING = 1e-6  # strength of a field that is not there


class Likelihoods:
    """Likelihoods of an image's voxels as normals of the field's latents, expanded anew around each posterior.

    Parameters
    ----------
    guide
        Of the pair.
    voxels
        Prepared, with their positions.
    counted
        How many voxels' noise is shared: their neighbours count for one over it.
    """

    def __init__(self, guide: Structured, voxels: Voxels, graph: Graph, counted: float) -> None:
        self.graph, self.left = graph, np.zeros(graph.n)
        self.guide, self.model, self.voxels, self.counted = guide, guide.model, voxels, counted
        prior = self.model.prior
        assert isinstance(prior, Gmrf)
        self.n_tissue, self.most = prior.n_tissue, prior.most_leaving
        self.z: Tensor | None = None

    @torch.no_grad()
    def __call__(self, found: Smoothed | None, law: Law) -> Sites:
        """Sites around the modes that the messages of ``found`` lead to; those of the population where None."""
        parts, points = [], []
        share = self.share(law)
        for i in range(0, len(self.voxels), CHUNK):
            where = slice(i, i + CHUNK)
            near = None if found is None else self._near(found, where)
            voxels = self.voxels[where]
            if found is not None:
                voxels = with_messages(self.model, voxels, found, share, where)
            population = self.model.prior.at(self.model.prior.classes(), voxels)
            steps = FIRST_STEPS if near is None else STEPS
            modes, logits = self.guide.laplace(voxels, population, steps, near, only_near=near is not None)
            z = modes.z
            points.append(torch.stack([z[0], z[-1]]))
            left = logits.softmax(0)[1] if len(z) > 1 else z.new_zeros(len(voxels))
            parts.append((*self._site(z[0], voxels), left.double().cpu().numpy()))
        self.z = torch.cat(points, 1)
        shift, information, left = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        counts, self.left = (1 - left) / self.counted, left
        return Sites(shift * counts[:, None], information * counts[:, None, None], left)

    def share(self, law: Law) -> np.ndarray:
        """Probability that each voxel goes with its neighbours ``(N,)``, by how many of those have left.

        On average at most as many leave as the prior lets: where measurements cannot tell who does, those that have
        left draw the others after them.
        """
        if law.leave == 0:
            return np.ones(self.graph.n)
        i, j = self.graph.pairs.T
        beside = np.bincount(i, self.left[j], self.graph.n) + np.bincount(j, self.left[i], self.graph.n)
        odds = law.leave / (1 - law.leave) * np.exp(TOGETHER * np.minimum(beside, MOST_TOGETHER))
        while (leaving := (odds / (1 + odds)).mean()) > self.most:
            odds *= self.most / leaving * FASTER
        return 1 / (1 + odds)

    def _near(self, found: Smoothed, where: slice) -> Tensor:
        """Latents ``(2, n, L)``: the field's mean with the direction where it was, and the voxel by itself."""
        assert self.z is not None
        z = self.z[:, where].clone()
        mean = torch.from_numpy(found.mean[where]).to(z)
        z[0, :, : self.n_tissue] += (mean - z[0, :, : self.n_tissue]).clamp(-1, 1)
        return z

    def _site(self, z: Tensor, voxels: Voxels) -> tuple[np.ndarray, np.ndarray]:
        """Shift and information of the field's latents, those of a direction averaged over."""
        assert voxels.short is not None
        found, n = self.model.expand_short(z, voxels.short), self.n_tissue
        information = found.information.double()
        shift = found.gradient.double() + (information @ z.double().unsqueeze(-1)).squeeze(-1)
        if z.shape[-1] > n:
            inner = information[:, n:, n:] + torch.eye(z.shape[-1] - n).to(information)
            across = torch.linalg.solve(inner, information[:, n:, :n]).mT
            shift = shift[:, :n] - (across @ shift[:, n:, None]).squeeze(-1)
            information = information[:, :n, :n] - across @ information[:, n:, :n]
        information = (information + information.mT) / 2
        return shift.cpu().numpy(), information.cpu().numpy()


def with_messages(
    model: VoxelModel, voxels: Voxels, found: Smoothed, share: np.ndarray, where: slice = slice(None)
) -> Voxels:
    """The voxels with what the rest of the image states about each; axes stay uniform."""
    n, size = model.prior.n_tissue, model.prior.n_latents
    precision = found.messages.precision[where]
    # of the inverse: the factor of a matrix turned about, turned back
    factor = np.linalg.cholesky(precision[:, ::-1, ::-1])[:, ::-1, ::-1].transpose(0, 2, 1)
    tril = torch.eye(size).to(voxels.y).repeat(len(voxels), 1, 1)
    tril[:, :n, :n] = torch.from_numpy(np.tril(np.linalg.inv(factor))).to(tril)
    loc = torch.zeros(len(voxels), size).to(voxels.y)
    loc[:, :n] = torch.from_numpy(found.messages.loc[where]).to(loc)
    return replace(voxels, nearby_loc=loc, nearby_tril=tril, nearby_share=torch.from_numpy(share[where]).to(loc))


def learn_field(guide: Structured, voxels: Voxels) -> bool:
    """Learn mean, population and strengths of the field from prepared voxels, in place; False where there is none.

    Neighbours that differ as much as any two voxels have nothing to share: a heavy-tailed increment would only copy the
    shape of the population.
    """
    prior = guide.model.prior
    assert isinstance(prior, Gmrf) and voxels.position is not None
    some = voxels[slab(voxels.position)]
    assert some.position is not None
    graph, law = graph_of(some.position.cpu().numpy()), _first_law(prior)
    expand = Likelihoods(guide, some, graph, counted(guide, some))
    expand(None, law)
    assert expand.z is not None
    if not alike(graph, expand.z[0, :, : prior.n_tissue].double().cpu().numpy()):
        prior.take(replace(law, shared=NOTHING * law.shared, leave=0.0))
        return False
    plan = Plan(prior.rounds, max(8, prior.draws // 2), prior.borders)
    prior.take(learn(graph, law, expand, plan)[0])
    return True


def alike(graph: Graph, z: np.ndarray, seed: int = 0) -> bool:
    """Whether neighbours' values ``(N, P)`` differ less than those of voxels from anywhere: by ranks, at 3 sd."""
    if len(graph.pairs) == 0:
        return False
    scale = np.maximum(np.subtract(*np.quantile(z, [0.84, 0.16], axis=0)), 1e-9)
    other = np.random.default_rng(seed).permutation(graph.pairs[:, 1])
    near, far = (((z[graph.pairs[:, 0]] - z[to]) / scale) ** 2 for to in (graph.pairs[:, 1], other))
    near, far = near.sum(1), far.sum(1)
    lower = np.searchsorted(np.sort(far), near, side="right") / len(far)
    # every voxel is in several pairs: as many independent ones as there are voxels
    return bool(0.5 - lower.mean() > SURE * np.sqrt(1 / (6 * graph.n)))


def _first_law(prior: Gmrf) -> Law:
    """Strengths to start from: neighbours as different as any two voxels."""
    law = prior.law()
    precision = np.linalg.inv(law.population)
    return replace(law, own=precision, shared=precision, along=np.ones(3), leave=LEFT if prior.leaving else 0.0)


def place(guide: Structured, voxels: Voxels) -> Voxels:
    """Prepared voxels with what the rest of the image states about each, under the strengths that were learned."""
    prior = guide.model.prior
    assert isinstance(prior, Gmrf) and voxels.position is not None
    if len(voxels) == 0:
        return voxels
    graph, law = graph_of(voxels.position.cpu().numpy()), prior.law()
    expand = Likelihoods(guide, voxels, graph, counted(guide, voxels))
    weights, found, sites = law.weights(graph), None, expand(None, law)
    for _ in range(BORDER_ROUNDS):
        found = smooth(graph, law, weights, sites, BORDER_DRAWS, start=None if found is None else found.mean)
        weights = find_borders(graph, law, weights, found) if prior.borders else weights
        sites = expand(found, law)
    assert found is not None
    found = smooth(graph, law, weights, sites, prior.draws, start=found.mean)
    return with_messages(guide.model, voxels, found, expand.share(law))


def counted(guide: Structured, voxels: Voxels) -> float:
    """How many voxels' noise is shared: by these residuals, or by the scan that was learned from where that is more."""
    prior = guide.model.prior
    assert isinstance(prior, Gmrf)
    return max(float(prior.counted), blur(guide.model, voxels).counted)


@torch.no_grad()
def blur(model: VoxelModel, voxels: Voxels) -> Blur:
    """How much of their noise neighbours share, by the residuals of some prepared voxels at their own modes."""
    assert voxels.position is not None
    some = voxels[slab(voxels.position, BLUR_VOXELS)]
    assert some.mode is not None and some.position is not None
    return blur_of(model.residuals(some.mode, some), model.signal.acquisition, some.position)


def slab(position: Tensor, most: int = LEARNED_ON) -> Tensor:
    """Indices of the voxels to learn from: all, or the middle ones along the image's last axis."""
    n = len(position)
    if n <= most:
        return torch.arange(n, device=position.device)
    x, y, z = (position - position.amin(0)).T
    order = ((z * (y.amax() + 1) + y) * (x.amax() + 1) + x).argsort()
    first = (n - most) // 2
    return order[first : first + most].sort().values
