"""What is known of a voxel's parameters before it is measured."""

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.voxel_model import VoxelModel

POINTS = 2048


@torch.no_grad()
def population_sd(model: VoxelModel) -> dict[str, Tensor]:
    """Standard deviation of each free scalar parameter over the population, in the model's units.

    Empty where the prior depends on the voxel, so that there is no population to compare with.
    """
    if model.prior.looks_at_voxels:
        return {}
    points = normal_points(POINTS, model.n_latents, seed=0).to(model.sigma)
    z = GaussianMixture(*model.prior.predictive()).transport(points).unsqueeze(1)
    theta = model.signal.constrain(model.decoder(z), model.signal.any_frame(1))
    return {p.name: theta[p.name].std().cpu() for p in model.signal.tissue}
