"""Least squares and maximum likelihood in every voxel by itself, with the asymptotic error."""

import copy
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.status import AT_BOUND, FINE, NOT_CONVERGED
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior.estimates import Estimates, in_model_units, with_findings
from pyroqmri.posterior.goodness_of_fit import GoodnessOfFit, judge_fit
from pyroqmri.protocol_checks.voxels import loosely_estimated
from pyroqmri.signals import BoundSignal
from pyroqmri.voxelwise.cholesky import quadratic_form
from pyroqmri.voxelwise.levenberg_marquardt import Problem, chunk_size
from pyroqmri.voxelwise.unit_box import Point, UnitBox

_MEANS = 8192  # voxels whose parameters stay in a core's cache


class PointEstimates(Estimates):
    """Estimates of N voxels with an asymptotic standard deviation from the Fisher information.

    The standard deviation is the delta method's, so intervals are normal and may
    leave the bounds: what people publish today. The error of a measured S0 is carried along.
    To the information of the data that of one look at each parameter is added whose error is
    the width of its bounds, which is where a sd then ends.

    Parameters
    ----------
    signal, likelihood
        What was fitted.
    batch
        The measurements.
    theta
        Physical parameters of the fitted voxels, each ``(n,)``, a direction ``(n, 3)``.
    converged
        Whether the search of each fitted voxel ended ``(n,)``.
    """

    def __init__(
        self, signal: BoundSignal, likelihood: Likelihood, batch: Batch, theta: dict[str, Tensor], converged: Tensor
    ) -> None:
        super().__init__(signal, batch)
        self.theta, self.converged = theta, converged
        self._likelihood = likelihood

    @cached_property
    def likelihood(self) -> Likelihood:
        """What was fitted, in float64."""
        return copy.deepcopy(self._likelihood).double()

    @cached_property
    def _box(self) -> UnitBox:
        return UnitBox(copy.deepcopy(self.signal).double())

    def _chunked(self, function: Callable[[Voxels, dict[str, Tensor]], Tensor]) -> Tensor:
        """Values ``(n, ...)`` of a function of voxels and parameters, in float64, a chunk at a time."""
        size = chunk_size(self._box, self.batch.voxels)
        device = next(self._box.signal.buffers()).device
        parts = []
        for k, theta in enumerate(self._thetas(size)):
            voxels = self.batch.voxels[k * size : (k + 1) * size].to(device).map(lambda t: t.double())
            here = {name: value.to(device) for name, value in theta.items()}
            parts.append(function(voxels, here).float().cpu())
        return torch.cat(parts)

    def _thetas(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Parameters in float64, a chunk of ``size`` voxels at a time, one chunk at least."""
        for i in range(0, max(1, len(self.batch.voxels)), size):
            yield {name: value[i : i + size].double() for name, value in self.theta.items()}

    def _quantities(self, theta: dict[str, Tensor]) -> dict[str, Tensor]:
        """Everything that maps show: S0 in the scan's units, the axis on the side of positive z, what is derived."""
        theta = self.rescale(theta)
        if self.signal.direction is None:
            return self._turned(theta | self.signal.signal.derived(theta))
        theta = self._turned(theta)
        return theta | self.signal.signal.derived(theta)

    def _turned(self, theta: dict[str, Tensor]) -> dict[str, Tensor]:
        turned = {p.name: theta[p.name] for p in self.signal.axes}
        return theta | {name: n * torch.where(n[..., 2:] < 0, -1.0, 1.0) for name, n in turned.items()}

    def _scalars(self, theta: dict[str, Tensor]) -> Tensor:
        found = self._quantities(theta)
        return torch.stack([found[name] for name in self.names], -1)

    def _table(self, values: Tensor) -> dict[str, Tensor]:
        return {name: self.scatter(values[:, i]) for i, name in enumerate(self.names)}

    @cached_property
    def mean(self):
        """The estimate of each quantity ``(N,)``."""
        # larger chunks than where measurements are simulated
        parts = [self._scalars(theta).float() for theta in self._thetas(_MEANS)]
        return self._table(torch.cat(parts))

    @cached_property
    def sd(self):
        """Asymptotic standard deviation of each quantity ``(N,)``."""
        return self._table(self._chunked(self._errors))

    def _errors(self, voxels: Voxels, theta: dict[str, Tensor]) -> Tensor:
        box = self._box
        point = box.point(theta)
        information = Problem(box, self.likelihood, voxels).look(point).information
        information = information + torch.eye(box.n_latents, dtype=information.dtype).to(information).unsqueeze(-1)
        values, slopes = box.slopes(self._scalars, point)
        slopes = slopes.mT
        variance = quadratic_form(information, slopes)
        s0_variance = self.likelihood.of(voxels).s0_variance(voxels.noise)
        if s0_variance is not None:
            pull = self._pull_of_s0(voxels, point)
            # v' A^-1 b from two quadratic forms: how far the estimate moves with S0
            moved = (quadratic_form(information, slopes + pull) - quadratic_form(information, slopes - pull)) / 4
            variance = variance + s0_variance * moved.square()
        sd = variance.sqrt().mT
        widths = [
            torch.inf if name in self.signal.in_scan_units else p.upper - p.lower for name, p in self.parameters.items()
        ]
        sd = torch.minimum(sd, sd.new_tensor(widths))
        # what is cut to its range does not move with the parameters, and is not certain for that
        return torch.where((sd == 0) & self._at_ends(values), sd.new_tensor(widths), sd)

    def _at_ends(self, values: Tensor) -> Tensor:
        """Whether quantities ``(n, Q)`` that are derived lie at an end of their range."""
        derived = {p.name for p in self.signal.signal.derived_parameters}
        free = (-torch.inf, torch.inf)
        ends = [(p.lower, p.upper) if name in derived else free for name, p in self.parameters.items()]
        lower, upper = values.new_tensor(ends).unbind(-1)
        return (values <= lower) | (values >= upper)

    def _pull_of_s0(self, voxels: Voxels, point: Point) -> Tensor:
        """Change of the log-likelihood's gradient ``(L, 1, N)`` with a relative error of S0."""
        signal, slope = self._box.slopes(lambda theta: self._box.signal(theta, voxels.inputs), point)
        found = self.likelihood.of(voxels).information(signal, voxels.y, voxels.noise)
        fisher = found.weighted(voxels.weights).fisher
        return (slope * (fisher * signal)).sum(-1).unsqueeze(1)

    def quantile(self, q):
        """Quantile of the normal approximation ``(N,)``."""
        z = float(torch.special.ndtri(torch.tensor(q)))
        return {name: self.mean[name] + z * self.sd[name] for name in self.names}

    @property
    def axes(self):
        """Axis of each direction ``(N, 3)`` by its name."""
        if not self.signal.axes:
            return {}
        parts = [self._quantities(theta) for theta in self._thetas(_MEANS)]
        return {p.name: self.scatter(torch.cat([part[p.name].float() for part in parts])) for p in self.signal.axes}

    @cached_property
    def goodness_of_fit(self) -> GoodnessOfFit:
        """What each voxel's measurements say against the estimate ``(N,)``, degrees of freedom counted."""
        by_direction = self.direction_misfit(self.batch.voxels, self.theta)
        return GoodnessOfFit.gathered(
            dict(zip(GoodnessOfFit._fields, self._chunked(self._judge_fit).T, strict=False)) | by_direction,
            self.scatter,
        )

    def _judge_fit(self, voxels: Voxels, theta: dict[str, Tensor]) -> Tensor:
        mean, variance = self.likelihood.of(voxels).moments(self._box.signal(theta, voxels.inputs), voxels.noise)
        residuals = (voxels.y - mean) / variance.sqrt()
        freedom: Tensor | float = max(1, voxels.y.shape[1] - self.signal.n_latents)
        if voxels.weights is not None:
            residuals = residuals * voxels.weights.sqrt()
            freedom = (voxels.n_counted - self.signal.n_latents).clamp_min(1)  # type: ignore[union-attr]
        found = judge_fit(residuals.square().sum(-1).unsqueeze(0), freedom, lambda index: residuals[index])
        return torch.stack([found.ppc, found.residual, found.few], -1)

    def weakly_informed(self, endless=True):
        """Whether the data leave some parameter of each fitted voxel open ``(n,)`` bool; the sd has it already."""
        pick = self.batch.index
        theta, sd = ({k: v[pick] for k, v in in_model_units(self, values).items()} for values in (self.mean, self.sd))
        return loosely_estimated(self.signal, theta, sd, endless)

    @property
    def responsibilities(self) -> None:
        """There are no classes."""
        return None

    @property
    def status(self) -> Tensor:
        """Status code of each voxel ``(N,)``: see :data:`pyroqmri.measurements.preparation.STATUS`."""
        status = with_findings(self)
        stuck = torch.zeros_like(status, dtype=torch.bool)
        stuck[self.batch.index] = ~self.converged
        status[stuck & (status == FINE)] = NOT_CONVERGED
        cut = self._at_ends(torch.stack(list(self.mean.values()), -1)).any(-1)
        status[cut & (status == FINE)] = AT_BOUND
        return status
