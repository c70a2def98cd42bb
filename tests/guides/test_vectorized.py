"""Particles side by side say what particles one after another say, for every generative recipe that is shipped."""

import math
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

from pyroqmri.fitting.build import build_pair
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.guides import Guide
from pyroqmri.likelihoods import LIKELIHOODS
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import rician, shells, tissue

ELBOS: dict[str, type[Any]] = {
    "uniform": Trace_ELBO,
    "hierarchical": Trace_ELBO,
    "hierarchical_mixture": TraceEnum_ELBO,
    "vae_unig": Trace_ELBO,
    "vae_gmm": TraceEnum_ELBO,
    "vae_gmm_relaxed": Trace_ELBO,
}
N, SIGMA = 25, 0.05


def started(name: str, n_directions: int) -> tuple[VoxelModel, Guide, Voxels]:
    """A recipe's pair as training starts it; many directions of one shell are compressed, few are not."""
    acq = shells(0, n_directions, 1.0, 2.0)
    signal, recipe = BoundSignal(MSDKI, acq), load_recipe(name)
    model, guide = build_pair(recipe, signal, LIKELIHOODS[recipe.kind("likelihood")](), SIGMA)
    voxels = guide.prepare(rician(signal(tissue(N)), SIGMA))
    model.start(voxels)
    guide.start(voxels)
    return model, guide, voxels


@pytest.mark.parametrize(
    ("name", "n_directions"),
    [
        *((name, 3) for name in ELBOS),
        ("hierarchical_mixture", 20),
        pytest.param("vae_gmm_relaxed", 20, marks=pytest.mark.slow),
    ],
)
def test_the_loss_is_the_sequential_one(name, n_directions):
    model, guide, voxels = started(name, n_directions)
    elbo = ELBOS[name](num_particles=1, max_plate_nesting=1)
    side_by_side = ELBOS[name](num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(1)
    with torch.no_grad():
        one = torch.tensor([elbo.loss(model, guide, voxels) for _ in range(50)])
        four = torch.tensor([side_by_side.loss(model, guide, voxels) for _ in range(30)])
    # five standard errors of the difference fail once in two million
    error = math.sqrt(float(one.var()) / len(one) + float(four.var()) / len(four))
    assert abs(float(one.mean() - four.mean())) < 5 * error
    # of four independent particles half; particles that were one and the same would spread as much as one
    assert float(four.std() / one.std()) < 0.75


@pytest.mark.parametrize("name", ELBOS)
def test_gradients_reach_what_they_reach_one_after_another(name):
    model, guide, voxels = started(name, 3)
    parameters = [*model.parameters(), *guide.parameters()]
    reached = []
    for side_by_side in (False, True):
        torch.manual_seed(0)
        loss = ELBOS[name](num_particles=4, vectorize_particles=side_by_side, max_plate_nesting=1)
        slopes = torch.autograd.grad(
            loss.differentiable_loss(model, guide, voxels, 10 * N), parameters, allow_unused=True
        )
        assert all(slope is None or torch.isfinite(slope).all() for slope in slopes)
        reached.append([slope is not None and bool((slope != 0).any()) for slope in slopes])
    assert reached[0] == reached[1]
    assert any(reached[0])
