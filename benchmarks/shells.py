"""The Rician likelihood of a signal that depends on the shell alone."""

import numpy as np
from scipy.special import i0e

Array = np.ndarray


class ShellLikelihood:
    """Log likelihood of signals that are equal within a shell, by a table of the Bessel term a voxel and shell.

    The sum of log i0e(y_i S / sigma^2) over a shell's volumes depends on S alone: it is tabulated over log S and
    interpolated by cubics; the Gaussian rest is exact.

    Parameters
    ----------
    y
        Measurements ``(N, M)``.
    bval
        ``(M,)``; equal values make a shell.
    sigma
        ``(N,)``.
    n_nodes
        Of the table; 340 leave an error below 1e-4 for 90 volumes a shell.
    """

    def __init__(self, y: Array, bval: Array, sigma: Array, n_nodes: int = 340) -> None:
        self.bval = np.unique(bval)
        self.variance = sigma[:, None] ** 2
        y = np.maximum(y, 1e-12)
        shells = [y[:, bval == b] for b in self.bval]
        self.count = np.array([s.shape[1] for s in shells])
        self.mean = np.stack([s.mean(1) for s in shells], 1)
        residual = sum(((s - m[:, None]) ** 2).sum(1) for s, m in zip(shells, self.mean.T, strict=True))
        self.constant = np.log(y / self.variance).sum(1) - residual / (2 * self.variance[:, 0])
        # where y S / sigma^2 is below 1e-5 the term is zero; above the largest measurement the Gaussian part rules
        self.start = np.log(1e-5 * sigma**2 / y.max(1))
        self.step = (np.log(y.max(1) + 12 * sigma) - self.start) / (n_nodes - 3)
        scaled = np.exp(self.start[:, None] + self.step[:, None] * np.arange(-1, n_nodes - 1)) / self.variance
        self.table = np.stack([_sum_log_i0e(s, scaled) for s in shells], 1)

    def __call__(self, log_signal: list[Array], voxels: Array) -> Array:
        """Log likelihood ``(r, P)`` of ``voxels`` (r,) for one array ``(r, P)`` of log signals a shell."""
        total = np.repeat(self.constant[voxels, None], log_signal[0].shape[1], 1)
        n_nodes = self.table.shape[-1]
        flat = self.table.reshape(-1)
        for j, log_s in enumerate(log_signal):
            # a signal of e^20 is as impossible as any above
            gap = (np.exp(np.minimum(log_s, 20)) - self.mean[voxels, j, None]) ** 2
            t = np.clip((log_s - self.start[voxels, None]) / self.step[voxels, None], 0, n_nodes - 3.001)
            i = t.astype(np.int64)
            t -= i
            i += ((voxels * len(self.bval) + j) * n_nodes)[:, None]
            left, a, b, right = flat[i], flat[i + 1], flat[i + 2], flat[i + 3]
            total += t * (t - 1) * ((t + 1) * right - (t - 2) * left) / 6
            total += (t + 1) * (t - 2) * ((t - 1) * a - t * b) / 2 - self.count[j] * gap / (2 * self.variance[voxels])
        return total


def _sum_log_i0e(y: Array, scaled: Array) -> Array:
    """Sum over volumes of log i0e(y_i s), ``(N, n)`` of measurements ``(N, V)`` and points ``(N, n)``."""
    total = np.zeros_like(scaled)
    for column in y.T:
        total += np.log(i0e(column[:, None] * scaled))
    return total
