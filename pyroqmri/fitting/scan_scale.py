"""The scale of an image's units, which scanners choose freely."""

from dataclasses import replace

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.fitting.fit import Fit
from pyroqmri.signals import SIGNALS


def image_scale(y: np.ndarray, acquisition: Acquisition, signal: str) -> float:
    """What voxels ``(N, M)`` are divided by where S0 is inferred: near the largest S0 in the scan's units."""
    largest = np.nanmax(np.where(np.isfinite(y), y, np.nan), axis=1, initial=0.0)
    return float(np.quantile(largest, 0.98)) / SIGNALS[signal].amplitude(acquisition)


def rescaled(fit: Fit, y: np.ndarray) -> Fit:
    """A fit, trained on voxels in units of their image's scale, in the units of one image ``(N, M)``.

    A measured S0 takes each voxel's own scale out, and a known S0 is in the units of all images: both stay.
    """
    if fit.preparation.s0 != "inferred":
        return fit
    own = image_scale(y, fit.acquisition, fit.signal_name) * fit.preparation.scale
    return replace(fit, preparation=replace(fit.preparation, scale=own))
