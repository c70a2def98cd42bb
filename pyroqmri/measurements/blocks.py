"""Blocks of voxels that stay in a core's cache while they are prepared, so that a scan is read from memory once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from pyroqmri.measurements.status import FINE, NEGATIVE, NO_INPUT, NO_SIGNAL, NOT_FINITE

_FLOOR = 1e-6  # a magnitude of exactly zero has no Rician density
_BLOCK = 2**18  # measurements at once: a megabyte


class Looked(NamedTuple):
    """What is known of n voxels before their measurements are turned into entries.

    Attributes
    ----------
    y
        Measurements of the k voxels that can be fitted ``(k, M)``, negative magnitudes set to zero.
    status, fitted
        Status of all voxels ``(n,)``, and which ones can be fitted ``(n,)`` bool.
    reference
        What each of the k voxels is divided by ``(k,)``.
    """

    y: Tensor
    status: Tensor
    fitted: Tensor
    reference: Tensor


@dataclass(frozen=True)
class Blocks:
    """How measurements become the entries that a model sees, a block of voxels at a time.

    Parameters
    ----------
    columns
        Indices ``(E,)`` of the measurements that are the entries, or behind them.
    share
        Shares of all M measurements in each entry ``(E, M)``; None where entries are single measurements.
    s0, s0_counts
        Indices of the measurements that S0 is measured on, and how many magnitudes each is the mean of.
    scale
        What all voxels are divided by; None where S0 is measured.
    magnitude
        Values cannot be negative, and a measured S0 is freed of the bias of ``coils`` channels.
    coils
        Channels whose sum of squares a magnitude is the root of.
    """

    columns: Tensor
    share: Tensor | None
    s0: Tensor
    s0_counts: Tensor
    scale: float | None
    magnitude: bool
    coils: float

    @property
    def n_entries(self) -> int:
        """Entries of each voxel."""
        return len(self.columns) if self.share is None else len(self.share)

    def look(self, y: Tensor, sigma: Tensor, known: Tensor) -> Iterator[tuple[slice, Looked]]:
        """Blocks of voxels ``(N, M)`` with noise level ``(N,)``; ``known`` marks those whose level and inputs are."""
        size = max(1, _BLOCK // max(1, y.shape[1]))
        for i in range(0, max(1, len(y)), size):
            at = slice(i, i + size)
            yield at, self._look(y[at].to(sigma), sigma[at], known[at])

    def _look(self, y: Tensor, sigma: Tensor, known: Tensor) -> Looked:
        low, high = y.amin(-1), y.amax(-1)  # NaN where one is among them; aminmax takes ten times as long
        finite = low.isfinite() & high.isfinite()
        status = torch.full((len(y),), FINE, dtype=torch.uint8)
        if self.magnitude and not bool((low >= 0).all()):
            status[low < 0] = NEGATIVE
            y, low = y.clamp_min(0), low.clamp_min(0)
        reference = self._reference(y, sigma, high, finite)
        dark = ~(reference > sigma * (self.scale is None)) | ((low == 0) & (high <= 0))
        fitted = finite & known & ~dark
        if bool(fitted.all()):
            return Looked(y, status, fitted, reference)
        status[finite & dark & known] = NO_SIGNAL
        status[finite & ~known] = NO_INPUT
        status[~finite] = NOT_FINITE
        return Looked(y[fitted], status, fitted, reference[fitted])

    def _reference(self, y: Tensor, sigma: Tensor, high: Tensor, finite: Tensor) -> Tensor:
        if self.scale is not None:
            return torch.full_like(sigma, self.scale)
        b0, counts = pick(y, self.s0), self.s0_counts
        share = (counts / counts.sum()).to(y)
        if not self.magnitude:
            return b0 @ share
        # squares of a scan in very large or small units leave the range of float32; a power of two loses nothing
        unit = 2.0 ** int(high.where(finite, 0).max().frexp().exponent) if len(y) else 1.0
        # the second moment of L coils is nu^2 + 2 L sigma^2, and averaging takes away from its variance, near sigma^2
        excess = 2 * self.coils - 1 + float(len(counts) / counts.sum())
        square = (b0 * (1 / unit)).square_() @ share - excess * (sigma / unit).square()
        return unit * square.clamp_min_(0).sqrt_()

    def see(self, looked: Looked, out: Tensor) -> None:
        """Write the entries of the voxels that can be fitted, over their reference, into ``out`` ``(k, E)``."""
        y = pick(looked.y, self.columns) if self.share is None else linear(looked.y, self.share.to(looked.y))
        torch.div(y, looked.reference.unsqueeze(-1), out=out)
        if self.magnitude:
            out.clamp_min_(_FLOOR)


def pick(y: Tensor, columns: Tensor) -> Tensor:
    """Columns of ``(N, M)``: without a copy where they follow one another, else faster than ``y[:, columns]`` is."""
    first, n = (int(columns[0]), len(columns)) if len(columns) else (0, 0)
    if n and bool((columns == torch.arange(first, first + n)).all()):
        return y[:, first : first + n]
    return y.index_select(1, columns)
