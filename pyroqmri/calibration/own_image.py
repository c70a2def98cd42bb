"""An image whose truth is known, to check a fit on whose prior is a field."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.calibration.simulated_voxels import SimulatedVoxels, measured, tissue_of
from pyroqmri.distributions.markov_field import MarkovField
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.markov.graph import graph_of
from pyroqmri.markov.law import LEVELS
from pyroqmri.measurements.arguments import as_seed
from pyroqmri.priors import Gmrf

TILE = 12  # voxels along each side of a region
APART = 2  # of the voxels along each axis one in so many is judged: errors of neighbours are alike


@torch.no_grad()
def own_image(
    fit: Fit, n: int, seed: int, snr: float | None = None, given: Mapping[str, Any] | None = None
) -> SimulatedVoxels:
    """A plane drawn from the field that a fit learned, measured on its protocol at its noise level.

    Regions of 12 x 12 voxels have borders between them, and the share of voxels that leave the field is drawn from the
    population. One in four voxels is judged, n of them or a few more.

    Parameters
    ----------
    n, seed, snr, given
        As :func:`pyroqmri.calibration.simulated_voxels.own_voxels` takes them.

    Raises
    ------
    InputError
        When the fit's prior is no field.
    """
    if not fit.is_field:
        raise InputError(f"recipe {fit.recipe.name} knows no neighbours; check it on single voxels")
    side = APART * int(np.ceil(np.sqrt(n)))
    position = np.argwhere(np.ones((side, side, 1)))
    assert fit.model is not None
    assert isinstance(fit.model.prior, Gmrf)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(as_seed(seed))
        z = tiled_field(fit.model.prior, position).to(fit.model.sigma)
        own = tissue_of(fit, z, seed, given)
    sigma = fit.sigma if snr is None else own.level / snr
    y = measured(fit, own.clean, sigma, seed)
    found = own.voxels(fit, "an image of the fit's own field", y, sigma)
    judged = np.flatnonzero((position[:, :2] % APART == 0).all(1))
    return replace(found, position=torch.from_numpy(position), judged=torch.from_numpy(judged))


def tiled_field(prior: Gmrf, position: np.ndarray) -> Tensor:
    """Latents ``(N, L)`` of voxels at ``position`` ``(N, 3)``, from torch's random state."""
    graph, law = graph_of(position), prior.law()
    tile = position[graph.pairs] // TILE
    crossing = (tile[:, 0] != tile[:, 1]).any(1)
    weights = law.weights(graph) * np.where(crossing, LEVELS.min(), 1.0)
    population = prior.classes()
    z = MarkovField(graph, law, prior.n_latents, population.loc, weights).sample()
    others = population.loc + torch.randn_like(z) @ population.scale_tril[0].mT
    return torch.where((torch.rand(len(z)) < law.leave).to(z.device)[:, None], others, z)
