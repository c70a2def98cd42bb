"""A population whose neighbouring voxels share what they have in common."""

from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Categorical, MultivariateNormal
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyroqmri.distributions.gaussian_mixture import GaussianMixture
from pyroqmri.distributions.markov_field import MarkovField
from pyroqmri.errors import InputError
from pyroqmri.markov.graph import graph_of
from pyroqmri.markov.law import Law
from pyroqmri.priors.base import Population
from pyroqmri.priors.hierarchical import Hierarchical


class Gmrf(Hierarchical):
    r"""Learned population, and a Markov random field of its latents over the image.

    .. math:: p(z) \propto \exp \Big( -\tfrac12 \sum_i (z_i - m)^\top C (z_i - m)
              - \tfrac12 \sum_{i \sim j} w_{ij} (z_i - z_j)^\top T (z_i - z_j) \Big), \qquad
              w_{ij} \in \{1, 4^{-1}, \ldots, 4^{-6}\}

    The increments of neighbours are a mixture of normals from narrow to wide, so that borders cost little:
    ``find_borders`` in :mod:`pyroqmri.markov.learn`. What is sampled depends on the voxels:

    - voxels that :func:`pyroqmri.guides.placing.place` has placed: each from what the rest of the image states about
      it, or from the population where it has left the field, so that batches of any size can be trained on;
    - voxels with a position alone: all of them from the field, jointly, before any border is known;
    - voxels without a position: each from the population, as in :class:`Hierarchical`.

    Latents of a direction are in the frame of their own voxel and stay independent.

    Parameters
    ----------
    n_tissue, n_direction, sd
        As in :class:`Hierarchical`.
    borders
        Whether neighbours may lie on either side of a border.
    leaving
        Whether voxels may leave the field, each drawn from the population by itself; their share is learned.
    most_leaving
        Share of voxels that may leave beforehand, clusters counted; 1 is no limit. Where measurements hardly tell
        lesions from noise, fewer make smooth tissue smoother and lesions fainter.
    rounds
        Of the learning of the strengths.
    draws
        Of the field, from which the covariances of its voxels are made.

    Raises
    ------
    InputError
        When a setting is out of its range.

    Source: Penny et al. 2005, doi:10.1016/j.neuroimage.2004.08.034; Geman & Reynolds 1992, doi:10.1109/34.120331.
    """

    is_field = True
    own: Tensor
    shared: Tensor
    along: Tensor
    leave: Tensor
    counted: Tensor

    def __init__(
        self,
        n_tissue: int,
        n_direction: int = 0,
        sd: float = 0.5,
        borders: bool = True,
        rounds: int = 8,
        draws: int = 32,
        leaving: bool = True,
        most_leaving: float = 1.0,
    ) -> None:
        super().__init__(n_tissue, n_direction, sd)
        for name, value, least in (("rounds", rounds, 2), ("draws", draws, 8)):
            if not value >= least:
                raise InputError(f"prior.{name} must be {least} or more, got {value}")
        if not 0 < most_leaving <= 1:
            raise InputError(f"prior.most_leaving must be above 0 and at most 1, got {most_leaving}")
        self.most_leaving = most_leaving
        self.borders, self.leaving, self.rounds, self.draws = borders, leaving, rounds, draws
        self.register_buffer("own", torch.eye(n_tissue) / sd**2)
        self.register_buffer("shared", torch.eye(n_tissue) / sd**2)
        self.register_buffer("along", torch.ones(3))
        self.register_buffer("leave", torch.tensor(0.0))
        # how many voxels' noise is shared where it learned: their likelihoods in the field count for one over it
        self.register_buffer("counted", torch.tensor(1.0))

    def z_dist(self, population: Population, voxels: Any = None):
        if voxels is not None and voxels.nearby_loc is not None:
            found = self.at(population, voxels)
            return GaussianMixture(found.log_weights.mT, found.loc.movedim(0, 1), found.scale_tril.movedim(0, 1))
        if voxels is not None and voxels.position is not None:
            graph = graph_of(voxels.position.cpu().numpy())
            return MarkovField(graph, self.law(), self.n_latents, population.loc)
        return super().z_dist(population)

    def forward(self, population: Population, voxels: Any = None) -> Tensor:
        if voxels is None or voxels.nearby_loc is None:
            return pyro.sample("z", self.z_dist(population, voxels))
        found = self.at(population, voxels)
        c = pyro.sample("c", Categorical(logits=found.log_weights.mT), infer={"enumerate": "parallel"})
        row = torch.arange(len(voxels), device=c.device)
        return pyro.sample("z", MultivariateNormal(found.loc[c, row], scale_tril=found.scale_tril[c, row]))

    def elbo(self, n_particles=1):
        return TraceEnum_ELBO(num_particles=n_particles, max_plate_nesting=1)

    def log_prob(self, z, population, voxels=None):
        if self.is_written_by(Gmrf):
            return self.z_dist(population, voxels).log_prob(z)
        return super().log_prob(z, population, voxels)

    def at(self, population, voxels):
        if voxels.nearby_loc is None:
            return population
        share = voxels.nearby_share.clamp(1e-6, 1 - 1e-6)
        loc, tril = (
            torch.stack([near, whole.expand_as(near)])
            for near, whole in ((voxels.nearby_loc, population.loc[0]), (voxels.nearby_tril, population.scale_tril[0]))
        )
        return Population(torch.stack([share, 1 - share]).log(), loc, tril)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # saved before voxels could leave the field: none of them did
        state_dict.setdefault(f"{prefix}leave", torch.tensor(0.0))
        state_dict.setdefault(f"{prefix}counted", torch.tensor(1.0))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def law(self) -> Law:
        """Mean and strengths as arrays of numpy."""
        population, n = self.classes(), self.n_tissue
        tril = population.scale_tril[0, :n, :n].double()
        found = (population.loc[0, :n], tril @ tril.mT, self.own, self.shared, self.along)
        return Law(*(np.asarray(t.double().cpu()) for t in found), leave=float(self.leave))

    @torch.no_grad()
    def take(self, law: Law) -> None:
        """Set mean, population and strengths in place."""
        population = torch.from_numpy(law.population).to(self.loc)
        self.update(torch.ones(1), torch.from_numpy(law.loc).to(self.loc)[None], population[None])
        for name in ("own", "shared", "along"):
            getattr(self, name).copy_(torch.from_numpy(getattr(law, name)))
        self.leave.fill_(law.leave)
