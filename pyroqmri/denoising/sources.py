"""From a recipe's truth and noise to the pairs that a denoiser learns from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyroqmri.denoising.pairs import ScanPairs, SimulatedPairs, Source, physical_signals
from pyroqmri.errors import InputError
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.arguments import as_tensor
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.simulate import tissue, uniform
from pyroqmri.voxelwise.search import Search, search

if TYPE_CHECKING:
    from pyroqmri.denoising.fit import DenoiserFit

_FITTED_VOXELS = 20_000
_LARGEST_LEVEL = 1.0  # of noise over S0; above it nothing is left of a voxel


def make_source(
    fit: "DenoiserFit", y: Tensor, batch: Batch, given: Mapping[str, Any] | None, bound: BoundSignal
) -> Source:
    """The pairs of a training; parameters that ``bound`` holds are held in the signals that are simulated.

    Raises
    ------
    InputError
        When the truth that is given lacks a parameter, or no signal of it is physical.
    """
    if fit.is_self_supervised and given is None:
        return _scan(fit, y, batch)
    signal, acq = SIGNALS[fit.signal_name], fit.acquisition
    if given is not None:
        theta = _given(fit.signal_name, given)
    elif fit.targets.source == "uniform":
        theta = uniform(signal, 4 * fit.targets.voxels, fit.seed)
    elif fit.targets.source == "tissue":
        theta, _ = tissue(signal, fit.targets.voxels, fit.seed)
    else:
        theta = _fitted(fit, batch, bound)
    n = len(next(iter(theta.values())))
    theta |= {name: torch.full((n,), value) for name, value in bound.fixed.items()}
    theta |= {name: theta[other] for name, other in bound.tied.items()}
    pick = torch.randint(len(batch.voxels), (n,), generator=torch.Generator().manual_seed(fit.seed + 5))
    clean = physical_signals(signal, acq, theta, {k: v.float()[pick] for k, v in batch.voxels.inputs.items()})
    if len(clean) < 10:
        raise InputError(f"only {len(clean)} of the true {fit.signal_name} voxels have a finite signal below S0")
    if given is None:
        clean = clean[torch.arange(fit.targets.voxels) % len(clean)]
    levels = None
    if fit.noise_range.levels == "scan":
        levels = batch.voxels.noise.squeeze(-1).clamp_max(_LARGEST_LEVEL)
    return SimulatedPairs(clean, levels, fit.noise_range, fit.preparation, acq)


def _scan(fit: "DenoiserFit", y: Tensor, batch: Batch) -> Source:
    seen = y[batch.index].clamp_min(0) / batch.reference[:, None]
    if len(seen) > fit.targets.voxels:
        generator = torch.Generator().manual_seed(fit.seed)
        seen = seen[torch.randperm(len(seen), generator=generator)[: fit.targets.voxels]]
    return ScanPairs(seen, fit.centre, fit.targets.hidden)


def _fitted(fit: "DenoiserFit", batch: Batch, bound: BoundSignal) -> dict[str, Tensor]:
    """Maximum likelihood estimates of some of the scan's voxels."""
    signal = SIGNALS[fit.signal_name]
    likelihood = RicianLikelihood() if fit.noise_range.kind == "rician" else GaussianLikelihood()
    n = len(batch.voxels)
    generator = torch.Generator().manual_seed(fit.seed)
    index = torch.randperm(n, generator=generator)[:_FITTED_VOXELS]
    voxels: Voxels = batch.voxels[index]
    n = len(index)
    some = Batch(voxels, torch.arange(n), torch.ones(n, dtype=torch.uint8), batch.reference[index])
    found = search(bound, likelihood, some, Search())
    theta = {name: found.mean[name].float() for name in (p.name for p in signal.parameters) if name in found.mean}
    axes = found.axes
    return theta | {p.name: axes[p.name].float() for p in bound.directions}


def _given(signal_name: str, given: Mapping[str, Any]) -> dict[str, Tensor]:
    names = [p.name for p in SIGNALS[signal_name].parameters]
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"truth lacks {', '.join(missing)}, which {signal_name} needs")
    return {name: as_tensor(given[name]) for name in names}
