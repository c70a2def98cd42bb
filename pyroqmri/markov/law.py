"""What a field is: its mean, its strengths and how it is drawn from."""

from dataclasses import dataclass

import numpy as np

from pyroqmri.markov.graph import Graph
from pyroqmri.markov.system import System

# of the weight of an edge: 1 is the field's own increment, far below is a border
LEVELS = 4.0 ** -np.arange(7)


@dataclass(frozen=True)
class Law:
    r"""A Gaussian Markov random field with P parameters per voxel, around a common mean.

    .. math:: -2 \log p(z) = \sum_i (z_i - m)^\top C (z_i - m)
              + \sum_{i \sim j} w_{ij} (z_i - z_j)^\top T (z_i - z_j) - \log |Q| + \mathrm{const}

    Attributes
    ----------
    loc
        :math:`m` ``(P,)``.
    population
        Covariance of a voxel that has no neighbour ``(P, P)``, and that of all voxels about ``loc``.
    own
        :math:`C` ``(P, P)``.
    shared
        :math:`T` ``(P, P)``: the precision of the difference of two neighbours.
    along
        Factor on the weights of edges along each image axis ``(3,)``.
    leave
        Share of voxels that leave the field: each is drawn from the population by itself.
    """

    loc: np.ndarray
    population: np.ndarray
    own: np.ndarray
    shared: np.ndarray
    along: np.ndarray
    leave: float = 0.0

    def blocks(self, graph: Graph) -> np.ndarray:
        """Precision of each voxel's own term ``(N, P, P)``."""
        alone = (graph.degree == 0)[:, None, None]
        return np.where(alone, np.linalg.inv(self.population), self.own)

    def weights(self, graph: Graph) -> np.ndarray:
        """Weights of the edges before any border is known ``(E,)``."""
        return self.along[graph.axis]

    def system(self, graph: Graph, weights: np.ndarray, information: np.ndarray | None = None) -> System:
        """Precision of the field, with the ``information`` of measurements ``(N, P, P)`` added where given."""
        blocks = self.blocks(graph)
        return System(graph.laplacian(weights), self.shared, blocks if information is None else blocks + information)

    def noise(self, graph: Graph, weights: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws ``(N, P, n)`` with the field's precision as covariance: right-hand sides whose solutions are draws."""
        rng, p = np.random.default_rng(seed), len(self.loc)
        own = np.linalg.cholesky(self.blocks(graph)) @ rng.standard_normal((graph.n, p, n))
        edges = np.linalg.cholesky(self.shared) @ rng.standard_normal((len(weights), p, n))
        edges *= np.sqrt(weights)[:, None, None]
        return own + (graph.incidence.T @ edges.reshape(len(weights), p * n)).reshape(graph.n, p, n)
