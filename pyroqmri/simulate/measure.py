"""Measurements of tissue whose parameters are known."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.arguments import as_seed
from pyroqmri.measurements.own_protocol import (
    GRAD_DEV,
    WEIGHTS,
    check_directions,
    checked_own,
    counting,
    with_own_protocol,
)
from pyroqmri.signals.base import SignalModel
from pyroqmri.signals.bound import BoundSignal

NOISES = ("rician", "gaussian", "ncchi", "none")


def simulate(
    signal: type[SignalModel],
    acquisition: Acquisition,
    theta: Mapping[str, Tensor],
    *,
    snr: float | None = None,
    sigma: float | Tensor | None = None,
    noise: str = "rician",
    coils: float = 1.0,
    averages: int | Tensor | None = None,
    seed: int = 0,
    inputs: Mapping[str, Tensor] | None = None,
    weights: Tensor | None = None,
    grad_dev: Tensor | None = None,
) -> Tensor:
    r"""Measurements ``(N, M)`` of N voxels with parameters ``theta``, each ``(N,)``, directions ``(N, 3)``.

    Parameters
    ----------
    signal, acquisition, theta, inputs
        The physics. S0 is 1 unless ``theta`` names ``S0``.
    snr, sigma
        Noise level: exactly one of 1/sigma, for an S0 of 1, and sigma itself, a number or ``(N,)``.
    noise, coils, averages
        As in :func:`add_noise`, or ``"none"`` (which needs no level). Averages are the acquisition's own when None.
    seed
        Same seed, same noise.
    weights
        ``(N, M)`` from 0 to 1: a measurement of weight 0 has lost its signal, and one of weight w has the noise of w
        measurements, of level :math:`\sigma / \sqrt w`.
    grad_dev
        Deviations L of the gradients ``(N, 3, 3)``: where g is played out, (I + L) g is seen.

    Raises
    ------
    InputError
        When the noise is unknown or its level is not given once, or ``theta`` lacks a parameter, or weights or
        deviations are no such numbers.
    """
    if noise not in NOISES:
        raise InputError(f"noise is {noise!r}; choose one of {', '.join(NOISES)}")
    missing = [p.name for p in signal.parameters if p.name not in theta]
    if missing:
        raise InputError(f"theta lacks {', '.join(missing)}, which {signal.__name__} needs")
    own = checked_own(with_own_protocol(None, weights, grad_dev), len(next(iter(theta.values()))))
    if GRAD_DEV in own:
        check_directions(acquisition)
        inputs = {**(inputs or {}), GRAD_DEV: own[GRAD_DEV]}
    clean = counting(BoundSignal(signal, acquisition, infer_s0="S0" in theta)(theta, inputs), own)
    if noise == "none":
        return clean
    level = noise_level(snr, sigma).to(clean)
    if WEIGHTS in own:
        power = torch.where(own[WEIGHTS] > 0, own[WEIGHTS], 1.0).to(clean)
        level = (level.unsqueeze(-1) if level.ndim else level) / power.sqrt()
    counts = acquisition.n_averages if averages is None else averages
    return add_noise(clean, level, noise, torch.Generator().manual_seed(as_seed(seed)), coils, counts)


def add_noise(
    clean: Tensor,
    sigma: Tensor | float,
    noise: str,
    generator: torch.Generator,
    coils: float = 1.0,
    averages: int | Tensor = 1,
) -> Tensor:
    r"""Noise-free measurements ``(N, M)`` with noise of level ``sigma`` in their units, ``()``, ``(N,)`` or ``(N, M)``.

    Parameters
    ----------
    noise
        ``"gaussian"`` noise is added. ``"rician"`` measurements are magnitudes of a complex signal with independent
        normal noise in both channels, :math:`y = |S + \sigma (\epsilon_1 + i \epsilon_2)|` (Gudbjartsson and Patz
        1995, doi:10.1002/mrm.1910340618); both draw the same numbers from ``generator``. ``"ncchi"`` measurements are
        roots of the sum of squares of ``coils`` such channels (Constantinides et al. 1997,
        doi:10.1002/mrm.1910380524), of which the signal may lie in any.
    coils
        Number of channels of ``"ncchi"`` noise, not necessarily whole.
    averages
        How many measurements each entry is the mean of: a whole number, or one per measurement ``(M,)``.
    """
    level = sigma.unsqueeze(-1) if isinstance(sigma, Tensor) and sigma.ndim == 1 else sigma
    counts = torch.as_tensor(averages).expand(clean.shape[-1])
    total = torch.zeros_like(clean)
    for i in range(int(counts.max())):
        real, imaginary = torch.randn(2, *clean.shape, generator=generator, dtype=clean.dtype) * level
        across = imaginary if noise != "ncchi" else level * _length(clean, 2 * coils - 1, imaginary / level, generator)
        one = clean + real if noise == "gaussian" else torch.hypot(clean + real, across)
        total += torch.where(counts > i, one, 0)
    return total / counts


def _length(like: Tensor, n: float, first: Tensor, generator: torch.Generator) -> Tensor:
    """Lengths of vectors of ``n`` standard normal numbers, one of them ``first``; n need not be whole."""
    half = torch.full_like(like, (n - 1) / 2)
    rest = 2 * torch._standard_gamma(half, generator=generator) if n > 1 else torch.zeros_like(like)
    return torch.sqrt(first.square() + rest)


def noise_level(snr: float | None, sigma: float | Tensor | None) -> Tensor:
    """Sigma ``()`` or ``(N,)`` from exactly one of ``snr`` and ``sigma``."""
    if (snr is None) == (sigma is None):
        raise InputError("give the noise level once: either snr or sigma")
    level = torch.as_tensor(1 / snr if snr is not None else sigma, dtype=torch.float64)
    if not (torch.isfinite(level).all() and (level > 0).all()):
        raise InputError("the noise level must be positive and finite")
    return level
