"""A Gaussian Markov random field as a Pyro distribution."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from scipy.sparse import block_diag, csc_array, kron
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.distributions import constraints

from pyroqmri.markov.graph import Graph
from pyroqmri.markov.law import Law


class MarkovField(TorchDistribution):
    r"""Joint distribution of the latents of N neighbouring voxels: batch ``(N,)``, event ``(L,)``.

    .. math:: p(z) = (2 \pi)^{-N L / 2} |Q|^{1/2} e^{-\frac12 (z - m)^\top Q (z - m)}, \qquad
              Q = \mathrm{blockdiag}(C_i) + W \otimes T

    Voxels are not independent, so :meth:`log_prob` gives each its share ``(..., N)`` of the joint log-density: its own
    term, half of each of its edges and :math:`\log |Q| / 2 N`, from an exact sparse factor. Their sum is the joint
    log-density. Latents beyond the field's, those of a direction, are standard normal.

    Parameters
    ----------
    graph, law
        Of the voxels, as numpy arrays.
    n_latents
        Latents per voxel, those of the field first.
    weights
        Of the edges ``(E,)``; those of the law when None.
    like
        Gives dtype and device.
    """

    arg_constraints = {}
    support = constraints.independent(constraints.real, 1)
    has_rsample = False

    def __init__(self, graph: Graph, law: Law, n_latents: int, like: Tensor, weights: np.ndarray | None = None) -> None:
        self.graph, self.law, self.like = graph, law, like
        self.weights = law.weights(graph) if weights is None else weights
        super().__init__(torch.Size([graph.n]), torch.Size([n_latents]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "MarkovField":
        """The same: a plate of draws repeats it, and its voxels are what they are."""
        batch_shape = torch.Size(batch_shape)
        if batch_shape[-1:] != self.batch_shape[-1:]:
            raise ValueError(f"a field of {self.graph.n} voxels has no batch of shape {tuple(batch_shape)}")
        new: Any = self._get_checked_instance(MarkovField, _instance)
        new.graph, new.law, new.like, new.weights = self.graph, self.law, self.like, self.weights
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        return new

    @cached_property
    def log_det(self) -> float:
        r"""Log-determinant :math:`\log |Q|`, by sparse LU factors."""
        blocks = list(self.law.blocks(self.graph))
        matrix = block_diag(blocks) + kron(self.graph.laplacian(self.weights), self.law.shared)
        factor = splu(csc_array(matrix), diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        return float(np.log(np.abs(factor.U.diagonal())).sum())

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Joint draws ``(*sample_shape, N, L)``, from torch's random state."""
        shape, p = self.shape(sample_shape), len(self.law.loc)
        n = math.prod(shape[:-2])
        seed = int(torch.randint(2**31 - 1, ()))
        noise = self.law.noise(self.graph, self.weights, n, seed)
        x = self.law.system(self.graph, self.weights).solve(noise) + self.law.loc[:, None]
        field = torch.from_numpy(x).movedim(-1, 0).to(self.like).reshape(*shape[:-1], p)
        others = torch.randn(*shape[:-1], shape[-1] - p).to(self.like)
        return torch.cat([field, others], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Share of each voxel ``(..., N)`` in the log-density of latents ``(..., N, L)``."""
        p = len(self.law.loc)
        loc, shared = (torch.from_numpy(a).to(self.like) for a in (self.law.loc, self.law.shared))
        blocks, weights = (torch.from_numpy(a).to(self.like) for a in (self.law.blocks(self.graph), self.weights))
        pairs = torch.from_numpy(self.graph.pairs).to(self.like.device)
        x = value[..., :p] - loc
        own = (x.unsqueeze(-2) @ blocks @ x.unsqueeze(-1)).squeeze((-1, -2))
        d = x[..., pairs[:, 1], :] - x[..., pairs[:, 0], :]
        edge = weights * ((d @ shared) * d).sum(-1) / 2
        own = own.index_add(-1, pairs[:, 0], edge).index_add(-1, pairs[:, 1], edge)
        own = own + value[..., p:].square().sum(-1) + self.event_shape[0] * math.log(2 * math.pi)
        return (self.log_det / max(self.graph.n, 1) - own) / 2
