"""From a recipe and data to the objects it names."""

from collections.abc import Mapping
from typing import Any

from pyroqmri.acquisition import Acquisition
from pyroqmri.data import Preparation
from pyroqmri.decoders import DECODERS
from pyroqmri.guides import GUIDES, Guide
from pyroqmri.likelihoods import LIKELIHOODS, Likelihood
from pyroqmri.priors import PRIORS
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.voxel_model import VoxelModel


def build_signal(
    signal: str, acq: Acquisition, preparation: Preparation, fixed: Mapping[str, float], tied: Mapping[str, str]
) -> BoundSignal:
    """The signal at the acquisition that the model sees."""
    return BoundSignal(SIGNALS[signal], preparation.acquisition(acq), fixed, tied, preparation.s0 == "inferred")


def build_likelihood(recipe: Recipe, acq: Acquisition, preparation: Preparation) -> Likelihood:
    """The likelihood that the recipe names, knowing how many measurements each entry is the mean of."""
    kind = LIKELIHOODS[recipe.kind("likelihood")]
    return kind(preparation.n_average(acq), **recipe.table("likelihood"))


def build_pair(recipe: Recipe, signal: BoundSignal, likelihood: Likelihood, sigma: float) -> tuple[VoxelModel, Guide]:
    """The Pyro pair that the recipe names."""
    n_direction = signal.n_latents - signal.n_tissue
    decoder = _make(DECODERS, recipe, "decoder", signal.n_tissue, n_direction)
    prior = _make(PRIORS, recipe, "prior", decoder.n_tissue_latents, n_direction)
    model = VoxelModel(signal, prior, decoder, likelihood, sigma)
    n_measurements = len(signal.acquisition)
    return model, _make(GUIDES, recipe, "guide", model, n_measurements)


def _make(registry: Mapping[str, Any], recipe: Recipe, table: str, *arguments: Any) -> Any:
    return registry[recipe.kind(table)](*arguments, **recipe.table(table))
