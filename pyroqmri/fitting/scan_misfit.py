"""The causes of misfit that a scan shows once a fit is there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyroqmri.fitting.fit import Fit
from pyroqmri.measurements.arguments import as_inputs, as_tensor
from pyroqmri.measurements.own_protocol import WEIGHTS
from pyroqmri.measurements.status import AT_BOUND, DIRECTIONAL, FEW_MISFIT, NO_SIGNAL, NOT_CONVERGED, UNINFORMED
from pyroqmri.misfit.causes import Cause, Looked, ResidualNoise, causes_in, neighbours, residual_noise

MOST_VOXELS = 400  # that are looked at
_FEWEST = 200  # voxels; fewer show little for sure
_VALUES = 60_000  # measurements that show what there is to see
_SIGNED = 1e-3  # share of negative values; magnitudes have none
_DRAWS = 64  # per voxel; of which the best of 16 is looked at


class Found(NamedTuple):
    """Causes of misfit, those of most consequence first, and the noise of the residuals, where it can be seen."""

    causes: list[Cause]
    noise: ResidualNoise | None


def scan_causes(
    fit: Fit, y: Any, sigma: Any = None, inputs: Mapping[str, Any] | None = None, position: Any = None, seed: int = 0
) -> Found:
    """Why a fit does not describe some voxels, by the residuals of 200 to 400 of them; nothing where it does.

    Parameters
    ----------
    y
        Measurements ``(N, M)`` of the fit's protocol.
    sigma
        Noise level, one number or ``(N,)``; the fit's when None.
    inputs
        Per-voxel inputs of the signal, each ``(N,)``.
    position
        Where the voxels lie, integers ``(N, 3)``; None where that is not known.

    Returns
    -------
    Found
        None for fewer than 200 voxels or fewer than two degrees of freedom per voxel,
        for networks, whose estimates are not the best ones, and for priors that depend on more than measurements.
    """
    y, known = as_tensor(y), as_inputs(inputs)
    covaries = fit.model is not None and fit.model.prior.looks_at_voxels and not fit.is_field
    if len(y) < _FEWEST or fit.network is not None or covaries:
        return Found([], None)
    n = min(MOST_VOXELS, max(_FEWEST, _VALUES // y.shape[1]))
    chosen, pairs = _chosen(_in_full(known, len(y)), position, n, seed)
    level = torch.as_tensor(fit.noise.level if sigma is None else sigma, dtype=torch.float32)
    some = level[torch.from_numpy(chosen)] if level.dim() else level
    draws = None if fit.model is None else _DRAWS
    found = fit.posterior(
        y[chosen], sigma=some, inputs={k: v[chosen] for k, v in known.items()}, n_draws=draws,
        neighbours=not fit.is_field,  # a few voxels have none, and their own measurements are what is looked at
    )  # fmt: skip
    if len(found.batch.voxels) == 0:
        return Found([], None)
    status = found.status[found.batch.index]
    # far from straight are the signals of parameters that a voxel does not determine; but a time that only looks
    # endless may be what a noise floor made of it
    left_out = torch.tensor([NO_SIGNAL, FEW_MISFIT, NOT_CONVERGED], dtype=status.dtype)
    kept = ~torch.isin(status, left_out)
    kept &= _informed(found, status)
    residuals = found.residuals()
    kept &= residuals.value.isfinite().all(-1)
    fitted = found.batch.index[kept]
    seen = Looked(
        residuals=residuals[kept],
        acquisition=found.signal.acquisition,
        likelihood=found.likelihood,
        signal=fit.signal_name,
        sigma=fit.sigma if sigma is None or level.dim() else float(level),
        directional=status[kept] == DIRECTIONAL,
        pairs=_among(torch.from_numpy(pairs), fitted, len(chosen)),
        averaged=fit.preparation.average,
        learned=fit.sigma_record["learned_factor"] is not None,
        widening=_widening(found, kept),
    )
    return Found(causes_in(seen), residual_noise(seen, magnitude=bool((y[chosen] < 0).double().mean() < _SIGNED)))


def _informed(found: Any, status: Tensor) -> Tensor:
    """Fitted voxels ``(n,)`` whose measurements determine every parameter.

    Where a signal needs a known population (``nuisance``) that a recipe does not have, noise puts estimates at a bound
    far from the truth, and what the others cannot make up for adds up over voxels.
    """
    if found.uninformed:
        return status != UNINFORMED
    doubtful = status == UNINFORMED
    if found.signal.signal.nuisance:
        doubtful |= status == AT_BOUND
    return ~(doubtful & found.weakly_informed(endless=False)) if bool(doubtful.any()) else ~doubtful


def _chosen(rows: np.ndarray, position: Any, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """About ``n`` of the voxels ``rows``, and pairs ``(K, 2)`` of neighbours among them where positions are known."""
    if position is None:
        some = np.random.default_rng(seed).permutation(len(rows))[:n]
        return rows[np.sort(some)], np.zeros((0, 2), dtype=int)
    chosen, pairs = neighbours(np.asarray(position)[rows], n, seed)
    return rows[chosen], pairs


def _in_full(inputs: Mapping[str, Tensor], n: int) -> np.ndarray:
    """Voxels whose measurements all count in full, where those are enough; else all ``n``."""
    if WEIGHTS not in inputs:
        return np.arange(n)
    whole = (inputs[WEIGHTS] == 1).all(-1).nonzero().squeeze(-1).numpy()
    return whole if len(whole) >= _FEWEST else np.arange(n)


def _widening(found: Any, kept: Tensor) -> Tensor | None:
    """What a variance of the diffusivity would add to the signals ``(n, M)`` of the voxels that are kept."""
    theta, signal = found.best_theta, found.signal
    added = signal.signal.widening(signal.acquisition, theta)
    return None if added is None else (added * theta["S0"].unsqueeze(-1) if signal.infer_s0 else added)[kept]


def _among(pairs: Tensor, fitted: Tensor, n: int) -> Tensor:
    """Pairs of the n chosen voxels as indices into those that were fitted, where both were."""
    place = torch.full((n,), -1, dtype=torch.long)
    place[fitted] = torch.arange(len(fitted))
    renumbered = place[pairs]
    return renumbered[(renumbered >= 0).all(1)]
