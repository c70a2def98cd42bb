"""What the rest of an image states about each of its voxels, for fits whose prior is a field."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.parts import is_field
from pyroqmri.guides import Guide, Structured
from pyroqmri.guides.placing import BLUR_VOXELS, blur, learn_field, place, slab
from pyroqmri.guides.population_refinement import GAP, left_out, refine_population
from pyroqmri.markov.graph import graph_of
from pyroqmri.measurements.arguments import as_positions
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.misfit.blur import Blur, blur_of, blurred
from pyroqmri.priors import Gmrf
from pyroqmri.progress import say_phase
from pyroqmri.recipe import Recipe
from pyroqmri.svi import Training, fit_svi

if TYPE_CHECKING:
    from pyroqmri.fitting.fit import Fit

FEWER, FEWEST = 3, 10  # times fewer steps of a network that knows its voxels alone, once among neighbours, and least


class Nearby(NamedTuple):
    """What the rest of an image states about the latents of each of N voxels; NaN where a voxel cannot be fitted.

    Attributes
    ----------
    loc
        Mean ``(N, L)``.
    tril
        Cholesky factor of the covariance ``(N, L, L)``.
    share
        Probability beforehand that each goes with its neighbours ``(N,)``.
    """

    loc: Tensor
    tril: Tensor
    share: Tensor

    def at(self, where: slice | Tensor) -> "Nearby":
        """That of some voxels."""
        return Nearby(*(part[where] for part in self))

    def given_to(self, batch: Batch) -> Batch:
        """A batch of the N voxels that has it."""
        loc, tril, share = (part[batch.index] for part in self)
        voxels = replace(batch.voxels, nearby_loc=loc, nearby_tril=tril, nearby_share=share)
        return replace(batch, voxels=voxels)


def nearby_of(guide: Guide | None, batch: Batch) -> Nearby:
    """What all other voxels of a placed batch state about each.

    Raises
    ------
    InputError
        When the fit's prior is no field.
    """
    if guide is None or not guide.model.prior.is_field:
        raise InputError("neighbours are of fits whose prior is a field; use recipe spatial")
    assert isinstance(guide, Structured)
    device, n, size = guide.model.sigma.device, len(batch.status), guide.model.n_latents
    with torch.no_grad():
        voxels = place(guide, guide.prepare(batch.voxels.to(device)))
    found = Nearby(*(torch.full((n, *shape), torch.nan) for shape in ((size,), (size, size), ())))
    for whole, part in zip(found, (voxels.nearby_loc, voxels.nearby_tril, voxels.nearby_share), strict=True):
        if part is not None:
            whole[batch.index] = part.to(whole)
    return found


def position_of(plan: Recipe, voxels: Any, mask: Any, n: int) -> Tensor | None:
    """Where the ``n`` voxels lie, which a field needs to know."""
    position = as_positions(voxels, mask, n)
    if is_field(plan):
        check_places(plan.name, position)
    return position


def with_shared(noise: NoiseLevel, plan: Recipe, y: Tensor, acq: Acquisition, position: Tensor | None) -> NoiseLevel:
    """The noise level with how neighbours share their noise, by measurements ``(N, M)``, where a field needs it."""
    if not is_field(plan) or position is None:
        return noise
    good = torch.nonzero(y.isfinite().all(1)).squeeze(-1)
    some = good[slab(position[good], BLUR_VOXELS)]
    return replace(noise, shared=blur_of(y[some], acq, position[some]).correlation)


def learn_neighbours(fit: "Fit", guide: Guide, voxels: Voxels, progress: bool) -> Voxels:
    """Voxels that a field has been learned from, with what the others state about each; as they are without a field."""
    if not guide.model.prior.is_field:
        return voxels
    assert isinstance(guide, Structured)
    _learn_population(fit, guide, replace(voxels, position=None), progress)
    say_phase("learning what neighbours share", progress)
    assert isinstance(guide.model.prior, Gmrf)
    # means over directions have no residuals within a shell; what they are means of has
    found = max(Blur(fit.noise.shared), blur(guide.model, voxels), key=lambda seen: seen.counted)
    guide.model.prior.counted.fill_(found.counted)
    if not learn_field(guide, voxels):
        fit.warnings.append(
            "neighbouring voxels are no more alike than any two voxels, so each is mapped by itself, as in recipe "
            "hierarchical: the positions are not those of the rows of y, or this tissue has no structure in space"
        )
    guide.model.prior.requires_grad_(False)  # of a voxel among its neighbours, the population says nothing more
    if found.counted > 1:
        fit.warnings.append(blurred(found))
    return place(guide, voxels)


def _learn_population(fit: "Fit", guide: Guide, alone: Voxels, progress: bool) -> None:
    """Train population and guide on voxels by themselves, as without a field: neighbours only add to that."""
    if left_out(guide.model, guide, alone) > GAP:
        refine_population(guide.model, guide, alone)
        guide.model.prior.requires_grad_(False)
    if guide.trains:
        plan = Training(**fit.recipe.table("training"))
        trace = fit_svi(guide.model, guide, alone, plan, seed=fit.seed, progress=progress)
        fit.warnings += [trace.not_converged] if trace.not_converged else []


def training_of(fit: "Fit") -> Training:
    """The recipe's plan of a training; of a field, whose guide has been trained on single voxels, a shorter one."""
    plan = Training(**fit.recipe.table("training"))
    if not fit.is_field:
        return plan
    steps = min(plan.steps, max(FEWEST, plan.steps // FEWER))
    # as many looks at the loss as of the whole plan: enough to see whether it has converged
    return replace(plan, steps=steps, check_every=max(1, plan.check_every * steps // plan.steps))


def among_neighbours(
    fit: "Fit", batch: Batch, position: Tensor | None, covariates: Mapping[str, Tensor], neighbours: "bool | Nearby"
) -> Batch:
    """A batch of a fit's voxels as :meth:`pyroqmri.Fit.posterior` is given them, placed where its prior is a field.

    Raises
    ------
    InputError
        When a field is not given where the voxels lie.
    """
    if not fit.is_field:
        return batch.placed(position, covariates)
    if neighbours is False:
        return batch.placed(None, covariates)
    if neighbours is not True:
        return neighbours.given_to(batch)
    check_places(fit.recipe.name, position)
    return nearby_of(fit.guide, batch.placed(position, covariates)).given_to(batch)


def check_places(recipe: str, position: Tensor | None) -> None:
    """Raise InputError where nothing gives the positions of voxels that a field needs, or two of them are the same."""
    if position is None:
        raise InputError(
            f"recipe {recipe} needs to know where the voxels lie: give voxels=, integer indices (N, 3) of the rows of "
            "y, or mask=, an image (X, Y, Z) whose voxels inside are the rows in C order"
        )
    graph_of(position.numpy())


def refuse_field(recipe: str, is_field: bool) -> None:
    """Raise InputError for a fit whose voxels cannot be simulated one by one."""
    if is_field:
        raise InputError(
            f"recipe {recipe} maps images, and single voxels were to be simulated for it; check it on an image of its "
            "own field (--truth own), or use a fit by recipe hierarchical here"
        )
