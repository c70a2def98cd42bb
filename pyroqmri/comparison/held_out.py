"""Measurements that a recipe did not see, predicted by what it learned from the others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import NEGLIGIBLE_B, Acquisition
from pyroqmri.comparison.scores import N_DRAWS, log_terms
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_signal
from pyroqmri.fitting.fit import Fit
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.measurements.s0 import s0_volumes
from pyroqmri.measurements.shells import TOLERANCE, alike, shell_indices
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.estimates import Estimates
from pyroqmri.posterior.psis import smoothed
from pyroqmri.signals import BoundSignal

_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True)
class HeldOut:
    """Scores of held-out measurements, ``(N,)`` over all voxels, NaN where one could not be fitted.

    ``elpd`` is the log density of the held-out measurements given the others, in the scan's units, summed over
    them; NaN for a point estimator. ``square`` is the squared error of the mean over a shell's held-out
    volumes, over the variance of that mean's noise, averaged over shells.
    """

    elpd: Tensor
    square: Tensor


def volume_folds(acq: Acquisition, n_folds: int, seed: int = 0) -> list[Tensor]:
    """Volumes to leave out in turn, in ``n_folds`` parts that hold the same share of every shell, S0 apart.

    Raises
    ------
    InputError
        When there are fewer volumes than folds.
    """
    generator = torch.Generator().manual_seed(seed)
    free = torch.nonzero(~s0_volumes(acq, NEGLIGIBLE_B)).squeeze(-1)
    if not 2 <= n_folds <= len(free):
        raise InputError(f"folds must lie between 2 and {len(free)}, the volumes that can be left out, got {n_folds}")
    order = []
    for shell in shells_of(acq, free):
        order.append(shell[torch.randperm(len(shell), generator=generator)])
    ranked = torch.cat(order)
    return [ranked[i::n_folds].sort().values for i in range(n_folds)]


def shells_of(acq: Acquisition, volumes: Tensor) -> list[Tensor]:
    """Volumes by shell of the whole scan, in rising b; one part where there are no b-values."""
    if acq.bval is None:
        return [volumes]
    parts = [volumes[torch.isin(volumes, torch.from_numpy(shell))] for shell in shell_indices(acq.bval)]
    return [part for part in parts if len(part)]


def held_out_shell(acq: Acquisition, shell: float | str) -> Tensor:
    """Volumes of the shell to leave out: ``highest``, or a b-value in ms/um2.

    Raises
    ------
    InputError
        When there is no such shell, or no other.
    """
    acq.require("bval")
    assert acq.bval is not None
    found = shells_of(acq, torch.nonzero(~acq.b0).squeeze(-1))
    if len(found) < 2:
        raise InputError("a shell can be left out only where there are two or more; leave out --shell")
    if shell == "highest":
        return found[-1].sort().values
    if isinstance(shell, str) or not math.isfinite(shell):
        raise InputError(f"shell must be 'highest', a b-value in ms/um2, or None, got {shell!r}")
    near = min(found, key=lambda s: abs(float(acq.bval[s].mean()) - float(shell)))  # type: ignore[index]
    if abs(float(acq.bval[near].mean()) - float(shell)) > 2 * TOLERANCE * float(shell):
        have = ", ".join(f"{float(acq.bval[s].mean()):g}" for s in found)
        raise InputError(f"there is no shell at b = {shell} ms/um2 to leave out; there are {have}")
    return near.sort().values


@torch.no_grad()
def predict(
    fit: Fit, y: Tensor, acq: Acquisition, held: Tensor, sigma: Any, seed: int = 0,
    inputs: Mapping[str, Tensor] | None = None, voxels: Tensor | None = None,
) -> HeldOut:  # fmt: skip
    """Score the ``held`` volumes of measurements ``(N, M)`` by a fit that was trained without them.

    ``voxels`` are the places of the measurements, for a fit whose prior is a field.
    """
    keep = torch.ones(len(acq), dtype=torch.bool)
    keep[held] = False
    level = torch.as_tensor(fit.noise.level if sigma is None else sigma, dtype=torch.float32)
    estimates = fit.posterior(y[:, keep], sigma=level, inputs=inputs, voxels=voxels)
    # the level that each voxel was divided by is measured on b0s, which were seen
    columns = torch.cat([torch.nonzero(fit.preparation.s0_volumes(acq)).squeeze(-1), held])
    part = acq[columns]
    likelihood = build_likelihood(fit.recipe, part, fit.preparation)
    likelihood.log_factor.data.copy_(fit.likelihood.log_factor.detach().cpu())
    batch = fit.preparation(y[:, columns], level, part)
    both, mine, theirs = _common(estimates.batch.index, batch.index)
    inputs = {name: value[mine].cpu() for name, value in estimates.batch.voxels.inputs.items()}
    target = Target(
        build_signal(fit.signal_name, part, fit.preparation, fit.fixed, fit.tied, fit.recipe.ranges),
        likelihood,
        replace(batch.voxels[theirs], inputs=inputs),
        batch.reference[theirs],
        _shell_rows(fit.preparation, part),
    )
    elpd, square = (torch.full((len(y),), torch.nan, dtype=torch.float64) for _ in range(2))
    if isinstance(estimates, Posterior):
        elpd[both], square[both] = target.under_posterior(estimates, mine, seed)
    else:
        square[both] = target.at_point(estimates, both)
    return HeldOut(elpd, square)


def _common(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries in both of two rising index vectors, and where they stand in each."""
    both = first[torch.isin(first, second)]
    return both, torch.searchsorted(first, both), torch.searchsorted(second, both)


def _shell_rows(preparation: Preparation, acq: Acquisition) -> Tensor:
    """Weights ``(shells, M)`` that average the entries that the model sees over each shell."""
    seen, _, counts, _ = preparation.seen(acq)
    n = torch.ones(len(seen)) if counts is None else counts
    shells = [torch.arange(len(seen))] if acq.bval is None else [torch.from_numpy(v) for v in alike(seen)]
    rows = torch.zeros(len(shells), len(seen))
    for row, shell in zip(rows, shells, strict=True):
        row[shell] = n[shell] / n[shell].sum()
    return rows


@dataclass(frozen=True)
class Target:
    """Held-out measurements of n voxels, with the physics and the noise that they have."""

    signal: BoundSignal
    likelihood: Likelihood
    voxels: Voxels
    reference: Tensor
    rows: Tensor

    def under_posterior(self, posterior: Posterior, mine: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Log density and squared error, each ``(n,)``."""
        device = posterior.model.sigma.device
        n_values = N_DRAWS * (self.voxels.y.shape[1] + posterior.batch.voxels.y.shape[1])
        elpd, square = [torch.empty(0)], [torch.empty(0)]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for at in torch.arange(len(mine)).split(max(1, _CHUNK_VALUES // n_values)):
                seen = posterior.guide.prepare(posterior.batch.voxels[mine[at]].to(device))
                z, _, ratio = log_terms(posterior, seen, N_DRAWS)
                weights = smoothed(ratio.T.double())[0].T.unsqueeze(-1).cpu()
                held = self.voxels[at]
                theta = {k: v.cpu() for k, v in posterior.model.theta(z, seen).items()}
                signal = self.signal(theta, held.inputs)
                log_prob = self.likelihood.information(signal, held.y, held.noise).log_prob.double()
                unit = -self.reference[at].double().log() * held.y.shape[1]
                elpd.append((log_prob + weights.log()).logsumexp(0).sum(-1) + unit)
                mean = (self.likelihood.moments(signal, held.noise)[0] * weights).sum(0)
                square.append(self._square(mean, signal, weights, held))
        return torch.cat(elpd), torch.cat(square)

    def _square(self, mean: Tensor, signal: Tensor, weights: Tensor, held: Voxels) -> Tensor:
        """Squared error of shell means over the variance of their noise ``(n,)``."""
        variance = (self.likelihood.moments(signal, held.noise)[1] * weights).sum(0)
        error = (held.y - mean) @ self.rows.to(mean).mT
        return (error.square() / (variance @ self.rows.to(mean).square().mT)).mean(-1).double()

    def at_point(self, estimates: Estimates, both: Tensor) -> Tensor:
        """Squared error of the signal at the estimates ``(n,)``."""
        theta = {p.name: estimates.mean[p.name][both] for p in self.signal.tissue}
        theta |= {k: theta[k] / self.reference for k in self.signal.in_scan_units if k in theta}
        theta |= {name: torch.full((len(both),), value) for name, value in self.signal.fixed.items()}
        theta |= {name: theta[other] for name, other in self.signal.tied.items()}
        theta |= {name: axis[both] for name, axis in estimates.axes.items() if name not in theta}
        signal = self.signal(theta, self.voxels.inputs)
        mean = self.likelihood.moments(signal, self.voxels.noise)[0]
        return self._square(mean, signal[None], torch.ones(1, 1, 1), self.voxels)
