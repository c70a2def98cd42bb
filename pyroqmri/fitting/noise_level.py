"""The noise level a fit uses, and where it came from."""

from collections.abc import Mapping
from typing import Any

import torch
from scipy.stats import chi2
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.laplace.start import mode_under_prior
from pyroqmri.likelihoods import GaussianLikelihood
from pyroqmri.measurements.noise import NoiseLevel, estimate_sigma
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.signals import BoundSignal

_RESIDUAL_VOXELS = 4000


def noise_level(
    y: Tensor,
    acq: Acquisition,
    sigma: Any,
    preparation: Preparation,
    signal: BoundSignal,
    inputs: Mapping[str, Tensor] | None = None,
) -> NoiseLevel:
    """Noise level from what the caller said: a value, one a voxel, or None, "estimate", "learn".

    Raises
    ------
    InputError
        When a given value, or every one of a map's, is not above zero, or the word is unknown.
    """
    if isinstance(sigma, NoiseLevel):
        return sigma
    if sigma is None or isinstance(sigma, str):
        if sigma not in (None, "estimate", "learn"):
            raise InputError(f"sigma must be a number above zero, one per voxel, 'estimate' or 'learn', got {sigma!r}")
        return _estimate(y, acq, preparation, signal, inputs)
    level = torch.as_tensor(sigma, dtype=torch.float32)
    if level.dim() > 1 or (level.dim() == 1 and len(level) != len(y)):
        raise InputError(f"sigma must be one number or one per voxel ({len(y)},), got shape {tuple(level.shape)}")
    known = (level > 0) & level.isfinite()
    if level.dim() == 1 and len(level) and not known.any():
        raise InputError(f"sigma must be finite and above zero, and is not in any of the {len(level)} voxels")
    if level.dim() == 0:
        if not known:
            raise InputError(f"sigma must be finite and above zero everywhere, got {float(level):g}")
        return NoiseLevel(float(level), "given", "the noise level was given")
    # voxels without a noise level are not fitted
    return NoiseLevel(torch.where(known, level, torch.nan), "given", "a noise map was given; the number is its median")


def _estimate(
    y: Tensor, acq: Acquisition, preparation: Preparation, signal: BoundSignal, inputs: Mapping[str, Tensor] | None
) -> NoiseLevel:
    try:
        found = estimate_sigma(y.numpy(), acq)
        return NoiseLevel(found.sigma, found.method, found.note)
    except InputError:
        return _residual(y, acq, preparation, signal, inputs)


@torch.no_grad()
def _residual(
    y: Tensor, acq: Acquisition, preparation: Preparation, signal: BoundSignal, inputs: Mapping[str, Tensor] | None
) -> NoiseLevel:
    """Residual of least squares in every voxel, pooled, degrees of freedom counted."""
    scale = float(y[torch.isfinite(y).all(-1)].abs().median())
    batch = preparation(y, torch.tensor(0.05 * scale), acq, inputs)
    n_free = len(signal.acquisition) - signal.n_latents
    if n_free < 1 or len(batch.voxels) == 0:
        raise InputError(
            f"the noise level cannot be estimated: {len(signal.acquisition)} measurements for {signal.n_latents} "
            "parameters and no repeats; give sigma"
        )
    voxels = batch.voxels[:: max(1, len(batch.voxels) // _RESIDUAL_VOXELS)]
    weak = 1e-3 * torch.eye(signal.n_latents)
    mode, frame = mode_under_prior(voxels, signal, GaussianLikelihood(), weak, 30)
    residual = voxels.y - signal(signal.constrain(mode.z, frame), voxels.inputs)
    reference = batch.reference[:: max(1, len(batch.voxels) // _RESIDUAL_VOXELS)]
    # the median of chi-squared over its mean, so that misfitted voxels do not count
    share = chi2.median(n_free) / n_free
    variance = (residual.square().sum(-1) * reference.square() / n_free).median() / share
    return NoiseLevel(
        float(variance.sqrt()), "residual", "no repeats to estimate noise from: residuals of least squares were pooled"
    )
