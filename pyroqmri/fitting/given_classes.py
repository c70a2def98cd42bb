"""Whether tissue that was given is what the voxels say."""

import math
from typing import Any

import torch
from torch import Tensor

from pyroqmri.guides import Guide, Structured
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population
from pyroqmri.recipe import Recipe
from pyroqmri.signals import BoundSignal

N_VOXELS = 2000
ROUNDS, FIRST_STEPS = 12, 8
RARE = 0.005  # share of voxels below which a class is not there


@torch.no_grad()
def check_given_classes(recipe: Recipe, signal: BoundSignal, guide: Guide, voxels: Voxels) -> list[str]:
    """A sentence for each given class that the evidence does not support, or that no voxel belongs to.

    The given classes are set free, one at a time, for some rounds of expectation-maximisation from where they
    were given; a gain in evidence beyond what as many free numbers gain by chance is a reason to doubt.
    """
    names = list(recipe.tables.get("given", {}))
    if not names or not isinstance(guide, Structured):
        return []
    index = torch.linspace(0, len(voxels) - 1, min(N_VOXELS, len(voxels))).long().to(voxels.y.device)
    part, population = voxels[index], guide.model.prior.classes()
    first = len(population.loc) - len(names)
    doubts = []
    for k, name in enumerate(names, first):
        share, gain, freed = set_free(guide, part, population, k)
        chance = signal.n_tissue * math.log(max(share * len(part), 2.0))  # half of BIC's penalty for 2 numbers each
        if share < RARE:
            doubts.append(f"hardly any voxel belongs to the fixed class {name!r} ({share:.1%}): it may not be needed")
        elif gain > chance:
            doubts.append(
                f"the data do not support the fixed class {name!r}: freeing it raises the evidence of "
                f"{len(part)} voxels by {gain:.0f} nats, where chance gives {chance:.0f}; it moves towards "
                f"{_in_words(signal, freed, k)}"
            )
    return doubts


def set_free(guide: Structured, voxels: Voxels, population: Population, k: int) -> tuple[float, float, Population]:
    """Share of voxels of class ``k``, and the gain in evidence and the population once its mean and sds are free."""
    n = guide.model.prior.n_tissue
    logits = guide.laplace(voxels, population, FIRST_STEPS)[1]
    share, before = float(logits.softmax(0)[k].mean()), float(logits.logsumexp(0).sum())
    # the rounds leave a class that is too narrow but slowly, one that is too wide at once
    free, evidence = population._replace(scale_tril=_with(population.scale_tril, k, 2 * population.scale_tril[k])), []
    for round_ in range(ROUNDS):
        modes, logits = guide.laplace(voxels, free, FIRST_STEPS if round_ == 0 else 3)
        evidence.append(float(logits.logsumexp(0).sum()))
        weights = logits.softmax(0)
        if weights[k].sum() < n + 1:  # fewer voxels than a class has numbers: it has gone
            break
        mine = weights[k].unsqueeze(-1) / weights[k].sum()
        loc = (mine * modes.z[k, :, :n]).sum(0)
        spread = (modes.z[k, :, :n] - loc).square() + modes.scale_tril[k, :, :n].square().sum(-1)
        free = Population(
            weights.mean(1).clamp_min(1e-6).log(),
            _with(free.loc, (k, slice(n)), loc),
            _with(free.scale_tril, (k, slice(n), slice(n)), (mine * spread).sum(0).sqrt().diag()),
        )
    return share, max(evidence) - before, free


def _with(whole: Tensor, place: Any, part: Tensor) -> Tensor:
    changed = whole.clone()
    changed[place] = part
    return changed


def _in_words(signal: BoundSignal, population: Population, k: int) -> str:
    """Mean and sd of each parameter of a class, as it would be given."""
    n = signal.n_tissue
    loc, sd = population.loc[k, :n].cpu(), population.scale_tril[k, :n, :n].diagonal().cpu()
    theta = signal.constrain_tissue(loc)
    words = []
    for i, p in enumerate(signal.tissue):
        width = float(p.slope(loc[i], signal.box(p, theta)) * sd[i])
        words.append(f"{p.name} {float(theta[p.name]):.3g} (sd {width:.2g}) {p.unit}")
    return ", ".join(words)
