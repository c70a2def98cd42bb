"""Voxels that are noise alone."""

import copy

import numpy as np
import torch
from torch import Tensor

from pyroqmri.distributions import ncchi_moments
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.status import NO_SIGNAL
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.protocol_checks.tissue import typical
from pyroqmri.signals import BoundSignal

_AIR, _AIR_OF_WHOLE = 0.25, 0.85  # share of a mask's voxels: edges and vessels are less; of the field of view air is
_NEGATIVE = 0.01  # share of values that magnitudes do not have
# tissue of this SNR, at its strongest measurement, is kept in all but one voxel of 1,000; where that is easy the
# limit, in standard deviations of noise, need not be as low, and where it is not it ends
_SNR, _KEPT, _LIMITS = 5.0, 3.1, (1.3, 3.0)


@torch.no_grad()
def without_signal(signal: BoundSignal, likelihood: Likelihood, voxels: Voxels) -> Tensor:
    """Whether measurements are what noise alone would give ``(n,)`` bool.

    Each voxel's measurements, those that made a measured S0 with them, are summed with the weights of a common
    tissue's signal, which is close to the most powerful test for that tissue; a voxel that stands out for any of the
    tissues has a signal.
    """
    signal, likelihood = copy.deepcopy(signal).cpu().float(), copy.deepcopy(likelihood).cpu().float()
    signed = signal.signal.signed or bool((voxels.y < 0).float().mean() > _NEGATIVE)
    coils = None if signed else float(getattr(likelihood, "coils", 1.0))
    mean, variance = (float(t) for t in _moments(torch.zeros(()), coils))
    likelihood = likelihood.of(voxels)
    profile, n_s0 = _profiles(signal, likelihood.n_s0 is not None), likelihood.n_s0
    level = voxels.noise.float() * likelihood.factor
    many = _many(likelihood, voxels)
    total = ((voxels.y.float() / level - mean) * many) @ profile.mT
    spread = variance * (many @ profile.square().mT)
    there, its = _moments(_SNR * profile, coils)
    kept = many @ (profile * (there - mean)).mT
    doubt = many @ (profile.square() * its).mT
    if n_s0 is not None:
        n_s0 = torch.as_tensor(n_s0).float().unsqueeze(-1)
        first, one = _unencoded(1 / level, n_s0, coils, likelihood.magnitude)
        there, its = _moments(torch.tensor(_SNR), coils)
        total, spread = total + n_s0 * first, spread + n_s0 * one
        kept, doubt = kept + n_s0 * (there - mean), doubt + n_s0 * its
    limit = ((kept - _KEPT * doubt.sqrt()) / spread.sqrt()).clamp(*_LIMITS)
    score = total / spread.sqrt()
    if not signed:
        return (score < limit).all(-1)
    # a signal whose sign is another than the tissue's, as that of magnitudes, has its square all the same
    square = (voxels.y.float() / level).square() * many
    m = torch.as_tensor(voxels.n_counted).float()
    return (score.abs() < limit).all(-1) & (square.sum(-1) < m + _LIMITS[1] * (2 * m).sqrt())


def _many(likelihood: Likelihood, voxels: Voxels) -> Tensor:
    """How many measurements each entry stands for ``(1, M)``, or in each voxel ``(N, M)``."""
    n = torch.ones(1, voxels.y.shape[-1]) if likelihood.n_average is None else likelihood.n_average.float()
    n = n if n.dim() == 2 else n.unsqueeze(0)
    return n if voxels.weights is None else n * voxels.weights.float()


def _profiles(signal: BoundSignal, of_s0: bool) -> Tensor:
    """Signals ``(K, M)`` of common tissue over S0, or over their largest measurement where S0 is none."""
    z, frame = typical(signal)
    inputs = {name: torch.full((len(z),), signal.signal.common_input(name)) for name in signal.signal.inputs}
    found = signal(signal.constrain(z.float(), None if frame is None else frame.float()), inputs)
    return found if of_s0 else found / found.abs().amax(-1, keepdim=True).clamp_min(1e-30)


def _moments(signal: Tensor, coils: float | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of a measurement with noise of level 1; without coils it keeps its sign."""
    if coils is None:
        return signal, torch.ones_like(signal)
    found = ncchi_moments(signal, torch.ones_like(signal), coils)
    return found.mean, found.variance


def _unencoded(snr: Tensor, n: Tensor, coils: float | None, magnitude: bool) -> tuple[Tensor, Tensor | float]:
    """The mean ``(N, 1)`` of ``n`` measurements behind a measured S0 less that of noise, and ``n`` times its variance.

    A Gaussian likelihood's S0 is their mean, a Rician one's their second moment less that of noise.
    """
    if coils is None:
        return snr, 1.0
    mean, variance = (float(t) for t in _moments(torch.zeros(()), coils))
    if not magnitude:
        return snr - mean, variance
    n = n.double()  # the difference below is one of large numbers
    expected = (2 / n).sqrt() * (torch.lgamma(n * coils + 0.5) - torch.lgamma(n * coils)).exp()
    return (snr.square() + 2 * coils).sqrt() - expected.float(), (n * (2 * coils - expected**2)).float()


def mask_in_air(status: np.ndarray, mask: np.ndarray) -> list[str]:
    """A sentence where many voxels of a mask ``(X, Y, Z)``, whose codes ``(N,)`` these are, have no signal."""
    share = float(np.mean(status == NO_SIGNAL)) if len(status) else 0.0
    if share < (_AIR_OF_WHOLE if mask.all() else _AIR):
        return []
    return [
        f"{100 * share:.0f} % of the voxels in the mask have no signal (status {NO_SIGNAL}): the mask is wider than "
        "the tissue there, or belongs to another scan or another position of the head"
    ]
