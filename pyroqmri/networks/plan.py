"""From a recipe and data to what a network is trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.preparation import Batch, Preparation
from pyroqmri.networks.labels import LABELS
from pyroqmri.networks.network import ParameterNetwork, Shape
from pyroqmri.networks.supervised import TrainingPlan
from pyroqmri.networks.training import NetworkTraining
from pyroqmri.networks.training_truth import (
    Scanner,
    Simulation,
    given_truth,
    population_truth,
    ranges_of,
    uniform_truth,
)
from pyroqmri.recipe import Recipe
from pyroqmri.signals import BoundSignal
from pyroqmri.voxel_model import VoxelModel

MIN_VOXELS = 10  # whose noise and scale the simulation takes over


def plan_training(
    recipe: Recipe,
    signal: BoundSignal,
    acquisition: Acquisition,
    preparation: Preparation,
    batch: Batch,
    truth: "Mapping[str, Any] | tuple[VoxelModel, float] | None",
    seed: int,
    device: torch.device,
    first: ParameterNetwork | None = None,
) -> TrainingPlan:
    """What a recipe teaches a network at a scan's protocol and noise.

    Parameters
    ----------
    truth
        Parameters of the simulated voxels: arrays by name, or a population's model with its unit of S0;
        uniform when None.
    first
        A trained network of the same protocol to start from.

    Raises
    ------
    InputError
        When the data or the settings do not allow it.
    """
    if len(batch.voxels) < MIN_VOXELS:
        raise InputError(f"only {len(batch.voxels)} voxels can be fitted, and a network needs at least {MIN_VOXELS}")
    if recipe.table("likelihood").get("learn"):
        raise InputError(f"recipe {recipe.name} is a network and cannot learn sigma; use --sigma estimate")
    if preparation.coils > 1:
        raise InputError(f"recipe {recipe.name} is a network, whose labels are those of one coil; use a voxel model")
    if first is not None and first.mlp.shape != build_network(recipe, signal).mlp.shape:
        raise InputError(f"the network to start from has layers {first.mlp.shape}, recipe {recipe.name} needs others")
    scanner = Scanner(signal, acquisition, preparation, batch, recipe.kind("likelihood"))
    labels = LABELS[recipe.kind("labels")](preparation.seen(acquisition).n_average, **recipe.table("labels"))
    return TrainingPlan(
        scanner, _truth(recipe, signal, batch, truth, seed), labels, shape_of(recipe),
        NetworkTraining(**recipe.table("training")), recipe.table("weights"), seed, device, first,
    )  # fmt: skip


def _truth(recipe: Recipe, signal: BoundSignal, batch: Batch, truth: Any, seed: int) -> dict[str, Tensor]:
    settings, scale = Simulation(**recipe.table("truth")), float(batch.reference[0])
    ranges = ranges_of(signal, recipe.table("range"), batch)
    if truth is None:
        return uniform_truth(signal, ranges, settings, batch, seed)
    if isinstance(truth, Mapping):
        return given_truth(signal, truth, scale, seed)
    model, unit = truth
    return population_truth(signal, model, settings.voxels, unit / scale, seed)


def shape_of(recipe: Recipe) -> Shape:
    """The hidden layers that a recipe states."""
    return Shape(**recipe.table("network"))


def build_network(recipe: Recipe, signal: BoundSignal) -> ParameterNetwork:
    """The recipe's network with weights to be filled in."""
    return ParameterNetwork(signal, shape_of(recipe)).requires_grad_(False)
