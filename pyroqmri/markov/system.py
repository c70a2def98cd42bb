"""Linear systems over an image, solved by conjugate gradients."""

import numpy as np
from scipy.sparse import csr_array

TOLERANCE, MOST_STEPS = 1e-5, 2000


class System:
    r"""The matrix :math:`\mathrm{blockdiag}(B_i) + W \otimes T` of N voxels with P parameters each.

    Parameters
    ----------
    laplacian
        :math:`W` ``(N, N)``.
    shared
        :math:`T` ``(P, P)``.
    blocks
        :math:`B_i` ``(N, P, P)``, positive definite.
    """

    def __init__(self, laplacian: csr_array, shared: np.ndarray, blocks: np.ndarray) -> None:
        self.laplacian, self.shared, self.blocks = laplacian, shared, blocks
        self.diagonal = blocks + laplacian.diagonal()[:, None, None] * shared
        self.inverse = np.linalg.inv(self.diagonal)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The product with columns ``(N, P, K)``."""
        return self.blocks @ x + self.shared @ self._spread(x)

    def _spread(self, x: np.ndarray) -> np.ndarray:
        return (self.laplacian @ x.reshape(len(x), x.shape[1] * x.shape[2])).reshape(x.shape)

    def pull(self, x: np.ndarray) -> np.ndarray:
        """What its neighbours' values ``(N, P, K)`` pull each voxel by: minus the product without diagonal blocks."""
        return self.shared @ (self.laplacian.diagonal()[:, None, None] * x - self._spread(x))

    def solve(self, right: np.ndarray, start: np.ndarray | None = None, tolerance: float = TOLERANCE) -> np.ndarray:
        """Solutions ``(N, P, K)`` for right-hand sides ``(N, P, K)``, each to ``tolerance`` of its own norm.

        Conjugate gradients with the inverse of the diagonal blocks as preconditioner, all columns side by side.
        """
        x = self.inverse @ right if start is None else start.copy()
        left = right - self(x)
        enough = tolerance**2 * _dot(right, right)
        step = self.inverse @ left
        along, gain = step.copy(), _dot(left, step)
        for _ in range(MOST_STEPS):
            if bool((_dot(left, left) <= enough).all()):
                break
            product = self(along)
            length = gain / np.maximum(_dot(along, product), 1e-300)
            x += length * along
            left -= length * product
            step = self.inverse @ left
            before, gain = gain, _dot(left, step)
            along *= gain / np.maximum(before, 1e-300)
            along += step
        return x


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar product of each column ``(K,)``."""
    return np.einsum("npk,npk->k", a, b)
