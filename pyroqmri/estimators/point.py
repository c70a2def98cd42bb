"""Least squares and maximum likelihood: the mode of each voxel's likelihood, with its asymptotic error."""

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyroqmri.data import NOT_CONVERGED, Batch
from pyroqmri.errors import InputError
from pyroqmri.estimates import Estimates, with_findings
from pyroqmri.laplace import Mode
from pyroqmri.likelihoods import Likelihood
from pyroqmri.progress import progress_bar
from pyroqmri.signals import BoundSignal
from pyroqmri.start import CHUNK, Shortening, mode_under_prior

_RIDGE = 1e-3  # keeps a parameter that the data say nothing of from running to infinity


@dataclass(frozen=True)
class Search:
    """Settings of the search for a mode."""

    steps: int = 40

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"search.steps must be above zero, got {self.steps}")


class PointEstimates(Estimates):
    """Estimates of N voxels with an asymptotic standard deviation from the Fisher information.

    The standard deviation is the delta method's, so intervals are normal and may
    leave the bounds: what people publish today.
    """

    def __init__(
        self, signal: BoundSignal, likelihood: Likelihood, batch: Batch, mode: Mode, frame: Tensor | None
    ) -> None:
        super().__init__(signal, batch)
        self.likelihood, self.mode, self.frame = likelihood, mode, frame

    def _theta(self, z: Tensor) -> dict[str, Tensor]:
        theta = self.rescale(self.signal.constrain(z, self.frame))
        return theta | self.signal.signal.derived(theta)

    @cached_property
    def mean(self):
        """The estimate of each quantity ``(N,)``."""
        theta = self._turned(self._theta(self.mode.z))
        return {name: self.scatter(theta[name]) for name in self.names}

    def _turned(self, theta: dict[str, Tensor]) -> dict[str, Tensor]:
        """The axis on the side of positive z, and what is derived from it."""
        if self.signal.axis is None:
            return theta
        n = theta[self.signal.axis.name]
        turned = {self.signal.axis.name: n * torch.where(n[..., 2:] < 0, -1.0, 1.0)}
        return theta | self.signal.signal.derived({**theta, **turned}) | turned

    @cached_property
    def sd(self):
        """Asymptotic standard deviation of each quantity ``(N,)``."""
        covariance = self.mode.scale_tril @ self.mode.scale_tril.mT
        basis = torch.eye(self.signal.n_latents, dtype=self.mode.z.dtype)
        slopes = [torch.func.jvp(self._theta, (self.mode.z,), (e.expand_as(self.mode.z),))[1] for e in basis]
        found = {}
        for name in self.names:
            gradient = torch.stack([s[name] for s in slopes], -1)
            variance = ((gradient.unsqueeze(-2) @ covariance).squeeze(-2) * gradient).sum(-1)
            found[name] = self.scatter(variance.clamp_min(0).sqrt())
        return found

    def quantile(self, q):
        """Quantile of the normal approximation ``(N,)``."""
        z = float(torch.special.ndtri(torch.tensor(q)))
        return {name: self.mean[name] + z * self.sd[name] for name in self.names}

    @property
    def direction(self) -> Tensor | None:
        """Axis of each voxel ``(N, 3)``, or None for a signal without one."""
        if self.signal.axis is None:
            return None
        return self.scatter(self._turned(self._theta(self.mode.z))[self.signal.axis.name])

    @cached_property
    def ppc(self) -> Tensor:
        """p-value of the residual sum of squares ``(N,)``, degrees of freedom counted."""
        voxels = self.batch.voxels
        signal = self.signal(self.signal.constrain(self.mode.z, self.frame), voxels.inputs)
        mean, variance = self.likelihood.moments(signal, voxels.noise)
        discrepancy = ((voxels.y - mean).square() / variance).sum(-1)
        freedom = max(1, voxels.y.shape[1] - self.signal.n_latents)
        return self.scatter(torch.special.gammaincc(torch.full_like(discrepancy, freedom / 2), discrepancy / 2))

    @property
    def responsibilities(self) -> None:
        """There are no classes."""
        return None

    @property
    def status(self) -> Tensor:
        """Status code of each voxel ``(N,)``: see :data:`pyroqmri.data.STATUS`."""
        status = with_findings(self)
        stuck = torch.zeros_like(status, dtype=torch.bool)
        stuck[self.batch.index] = ~self.mode.converged
        status[stuck & (status == 1)] = NOT_CONVERGED
        return status


@torch.no_grad()
def search(
    signal: BoundSignal, likelihood: Likelihood, batch: Batch, settings: Search, progress: bool = False
) -> PointEstimates:
    """Maximum of each voxel's likelihood: least squares when it is Gaussian.

    Searched by damped Fisher scoring in unconstrained coordinates, so that the
    bounds hold, from the best of a fixed set of points; in float64, where flat
    valleys need it.
    """
    ridge = torch.full((signal.n_latents,), _RIDGE, dtype=torch.float64)
    signal, likelihood = copy.deepcopy(signal).double(), copy.deepcopy(likelihood).double()
    voxels = batch.voxels.map(lambda t: t.double())
    short = Shortening(signal, likelihood.n_average is not None)
    modes, frames = [], []
    with progress_bar("fitting", len(voxels), progress) as report:
        for i in range(0, max(1, len(voxels)), CHUNK):
            part = short(voxels[i : i + CHUNK])
            mode, frame = mode_under_prior(part, short.signal, likelihood, ridge.diag(), settings.steps)
            modes.append(mode)
            frames.append(frame)
            report(min(i + CHUNK, len(voxels)))
    parts = ("z", "objective", "precision", "converged")
    mode = Mode(*(torch.cat([getattr(m, p) for m in modes]) for p in parts))
    frame = None if signal.direction is None else torch.cat(frames)
    return PointEstimates(signal, likelihood, Batch(voxels, batch.index, batch.status, batch.reference), mode, frame)
