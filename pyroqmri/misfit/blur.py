"""Noise that neighbouring voxels share: images that were interpolated have it, and it looks like structure."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.markov.graph import graph_of
from pyroqmri.misfit.spread import without_signal

FEWEST_PAIRS, PAIRS, FEWEST_COLUMNS = 50, 3000, 4
SURE, LEAST = 3.0, 0.02  # standard errors, and the correlation from which noise is shared at all
MOST = 0.5  # of neighbours; more is no longer noise


class Blur(NamedTuple):
    """How much of their noise neighbours share.

    Attributes
    ----------
    correlation
        Of the noise of neighbours along each image axis ``(3,)``; 0 where it cannot be seen.
    """

    correlation: tuple[float, float, float]

    @property
    def counted(self) -> float:
        """Variance of a mean over many voxels, over that of as many with noise of their own: 1 or more."""
        return float(np.prod([1 + 2 * rho for rho in self.correlation]))


def blur_of(residuals: Tensor, acq: Acquisition, position: Tensor) -> Blur:
    r"""Correlation of the noise of neighbouring voxels, from residuals within shells and repeats.

    .. math:: \phi = \prod_k (1 + 2 \rho_k)

    is the variance of a mean over many voxels whose noise correlates by :math:`\rho_k` with that of the next voxel
    along axis k and with no other.

    Parameters
    ----------
    residuals
        In units of the noise ``(N, M)``.
    acq
        Settings of the M measurements.
    position
        Integer indices ``(N, 3)``.
    """
    graph = graph_of(position.cpu().numpy())
    noise = without_signal((residuals - residuals.mean(0)).double().cpu(), acq)
    found = [0.0, 0.0, 0.0]
    if noise.shape[1] < FEWEST_COLUMNS:
        return Blur((0.0, 0.0, 0.0))
    for k in range(3):
        pairs = graph.pairs[graph.axis == k]
        pairs = torch.from_numpy(pairs[:: max(1, len(pairs) // PAIRS)])
        if len(pairs) < FEWEST_PAIRS:
            continue
        one, two = noise[pairs[:, 0]], noise[pairs[:, 1]]
        each = (one * two).sum(-1) / (one.square().sum(-1) * two.square().sum(-1)).sqrt().clamp_min(1e-12)
        median, error = float(each.median()), 1.25 * float(each.std()) / len(pairs) ** 0.5
        found[k] = min(median, MOST) if median > max(SURE * error, LEAST) else 0.0
    return Blur((found[0], found[1], found[2]))


def blurred(found: Blur) -> str:
    """A sentence on noise that neighbours share."""
    along = ", ".join(f"{rho:.2f} along {axis}" for rho, axis in zip(found.correlation, "xyz", strict=True) if rho > 0)
    return (
        f"the noise of neighbouring voxels correlates ({along}): the images were interpolated or smoothed; what "
        f"neighbours state about a voxel counts for 1/{found.counted:.2g} of what independent noise would give, so "
        "that shared noise is not taken for structure"
    )
