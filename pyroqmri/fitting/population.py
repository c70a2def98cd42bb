"""The population of a fit: raised to the evidence of its voxels, and what maps need beside its best value."""

import time

from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.population_shape import note_shape
from pyroqmri.fitting.schema import weighted
from pyroqmri.guides.population_posterior import spread_population
from pyroqmri.guides.population_refinement import DRIFT, GUIDE_GAP, can_refine, left_out, refine_population
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.progress import say_phase
from pyroqmri.svi import seeded


def refine(fit: Fit, voxels: Voxels, progress: bool) -> None:
    """Raise the population to the evidence of the voxels."""
    assert fit.model is not None and fit.guide is not None
    say_phase("refining the population", progress)
    begin = time.monotonic()
    with seeded(fit.seed, voxels.y):
        refine_population(fit.model, fit.guide, voxels)
    fit.seconds["refine"] = fit.seconds.get("refine", 0.0) + time.monotonic() - begin


def finish_population(fit: Fit, voxels: Voxels, refined: bool, progress: bool) -> None:
    """What maps need of the population beside its best value, and weights where the guide is not enough.

    A population that was learned with the guide is raised to the evidence where normal posteriors leave some of it
    out: they are too narrow then, and draw the population's spread in with them, a little at every step.

    Parameters
    ----------
    fit
        With the trained pair.
    voxels
        Training voxels as the guide prepared them.
    refined
        Whether the population was raised to the evidence before the training, which then left it as it was.
    progress
        Show what is done.
    """
    model, guide = fit.model, fit.guide
    assert model is not None and guide is not None
    if refined:
        model.prior.requires_grad_(True)
        if fit.sigma_record["learned_factor"] is not None:
            refine(fit, voxels, progress)
    if not can_refine(model, guide):
        return
    with seeded(fit.seed, voxels.y):
        gap = left_out(model, guide, voxels)
    if not refined and gap > DRIFT:
        refine(fit, voxels, progress)
    with seeded(fit.seed, voxels.y):
        spread_population(model, guide, voxels)
    if refined and gap > GUIDE_GAP:
        fit.recipe = weighted(fit.recipe)
    note_shape(fit, voxels, refined)
