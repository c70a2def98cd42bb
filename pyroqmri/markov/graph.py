"""Which voxels of an image are neighbours."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from pyroqmri.errors import InputError


@dataclass(frozen=True)
class Graph:
    """N voxels and the E pairs of them that share a face.

    Attributes
    ----------
    n
        Voxels.
    pairs
        Indices of the two voxels of each edge ``(E, 2)``.
    axis
        The image axis that each edge runs along ``(E,)``: 0, 1 or 2.
    """

    n: int
    pairs: np.ndarray
    axis: np.ndarray

    @property
    def degree(self) -> np.ndarray:
        """Number of neighbours of each voxel ``(N,)``."""
        return np.bincount(self.pairs.reshape(-1), minlength=self.n)

    @property
    def incidence(self) -> csr_array:
        """Differences along the edges as a matrix ``(E, N)``: the second voxel less the first."""
        n = len(self.pairs)
        sign = np.tile([-1.0, 1.0], n)
        return csr_array((sign, self.pairs.reshape(-1), np.arange(0, 2 * n + 1, 2)), shape=(n, self.n))

    def laplacian(self, weights: np.ndarray) -> csr_array:
        """The matrix ``(N, N)`` of the sum over edges of ``weights`` ``(E,)`` times squared differences."""
        i, j = self.pairs.T
        off = csr_array((np.concatenate([weights, weights]), (np.concatenate([i, j]), np.concatenate([j, i]))),
                        shape=(self.n, self.n))  # fmt: skip
        return csr_array(diags_array(off.sum(1)) - off)


def graph_of(position: np.ndarray) -> Graph:
    """The graph of voxels at integer ``position`` ``(N, 3)``.

    Raises
    ------
    InputError
        When two voxels lie at the same place.
    """
    position = np.asarray(position, dtype=np.int64).reshape(-1, 3)
    if len(position) == 0:
        return Graph(0, np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64))
    low, size = position.min(0), np.ptp(position, axis=0) + 2  # a gap behind the last voxel of each row
    if float(size[0]) * float(size[1]) * float(size[2]) > 2**62:
        raise InputError(
            f"voxels must be indices of an image, and these reach from {low.tolist()} to {position.max(0).tolist()}"
        )
    moved = position - low
    key = (moved[:, 0] * size[1] + moved[:, 1]) * size[2] + moved[:, 2]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        place = position[order[twice[0]]].tolist()
        raise InputError(
            f"voxels has {len(twice)} duplicates, such as {place} in rows {order[twice[0]]} and "
            f"{order[twice[0] + 1]}; each voxel of an image is one row"
        )
    pairs, axis = [], []
    for k, step in enumerate((size[1] * size[2], size[2], 1)):
        found = np.searchsorted(ordered, ordered + step).clip(max=len(key) - 1)
        there = ordered[found] == ordered + step
        pairs.append(np.stack([order[there], order[found[there]]], 1))
        axis.append(np.full(int(there.sum()), k))
    return Graph(len(position), np.concatenate(pairs), np.concatenate(axis))
