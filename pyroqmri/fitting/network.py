"""The training of a recipe that is a network."""

from typing import Any

import torch

from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.measurements.preparation import Batch
from pyroqmri.networks.plan import plan_training
from pyroqmri.networks.supervised import train_network


def learn_network(fit: Fit, batch: Batch, truth: Any, first: Fit | None, device: torch.device, progress: bool) -> None:
    """Train the network of a fit; ``truth`` and ``first`` as in :func:`pyroqmri.fit`."""
    folder = fit.recipe.table("truth").get("population", "")
    population = load_fit(folder) if truth is None and folder else truth
    if isinstance(population, Fit):
        if population.model is None:
            raise InputError(f"the fit by {population.recipe.name} has no population to draw a network's truth from")
        population = population.model, population.preparation.scale
    start = None if first is None else first.network
    if first is not None and start is None:
        raise InputError(f"the fit by {first.recipe.name} has no network to start another one from")
    scan = fit.signal, fit.acquisition, fit.preparation, batch
    training_plan = plan_training(fit.recipe, *scan, population, fit.seed, device, start)
    trained = train_network(training_plan, progress)
    fit.network, fit.trace = trained.network, trained.trace
    fit.seconds |= trained.seconds
    fit.warnings += trained.notes
