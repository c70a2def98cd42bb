"""What every answer about some voxels has, Bayesian or not."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.status import AT_BOUND, DIRECTIONAL, FEW_MISFIT, FINE, MISFIT, NO_SIGNAL, UNINFORMED, UNLIKE
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.misfit.by_direction import direction_basis, direction_p
from pyroqmri.misfit.residuals import Residuals, residuals_at
from pyroqmri.parameter import Parameter
from pyroqmri.posterior.goodness_of_fit import P_MISFIT, GoodnessOfFit
from pyroqmri.posterior.summaries import Axes, one_or_all
from pyroqmri.protocol_checks.bounds import beyond_bounds
from pyroqmri.protocol_checks.no_signal import without_signal
from pyroqmri.protocol_checks.voxels import weakly_informed
from pyroqmri.signals import BoundSignal

_CHUNK_VALUES = 2_000_000  # numbers of the residuals' slopes in memory
_SEVERAL = 3.0  # times a lower bound: no longer at it


class Estimates(ABC):
    """Parameters of N voxels with what is known of their uncertainty.

    Every array is over all N voxels that were asked about; a voxel that could not
    be fitted has NaN and a ``status`` that says why.
    """

    has_sd = True
    likelihood: Likelihood | None = None  # of the measurements, where it is known
    uninformed: tuple[str, ...] = ()  # parameters that the protocol does not determine, in any voxel
    rests_on_shape = False  # whether the population has another shape than the one that is assumed

    def __init__(self, signal: BoundSignal, batch: Batch) -> None:
        self.signal, self.batch = signal, batch
        self._whole: Residuals | None = None  # those of all voxels, where they are so few that one chunk has them
        self.parameters: dict[str, Parameter] = {p.name: p for p in signal.scalars}

    @property
    def names(self) -> tuple[str, ...]:
        """Scalar quantities, parameters first."""
        return tuple(self.parameters)

    @property
    @abstractmethod
    def mean(self) -> dict[str, Tensor]:
        """Point estimate of each quantity ``(N,)``."""

    @property
    @abstractmethod
    def sd(self) -> dict[str, Tensor]:
        """Standard deviation of each quantity ``(N,)``."""

    @abstractmethod
    def quantile(self, q: float) -> dict[str, Tensor]:
        """Quantile of each quantity ``(N,)``."""

    @property
    def axes(self) -> dict[str, Tensor]:
        """Mean axis of each direction ``(N, 3)`` by its name; empty for a signal without any."""
        return {}

    @property
    def direction(self) -> "Tensor | Axes | None":
        """Mean axis of each voxel ``(N, 3)``, or None for a signal without one.

        Of a signal with several, ``direction(name="n2")`` is one of them.
        """
        return one_or_all(self.axes)

    def direction_name(self, name: str | None = None) -> str:
        """The direction that is meant by ``name``, or the only one.

        Raises
        ------
        InputError
            When there is none, none of that name, or several and no name.
        """
        there = [p.name for p in self.signal.axes]
        if not there:
            raise InputError(f"{self.signal.signal.__name__} has no direction")
        if name is None and len(there) == 1:
            return there[0]
        if name not in there:
            found = "no name was given" if name is None else f"got {name!r}"
            raise InputError(f"{self.signal.signal.__name__} has the directions {', '.join(there)}; {found}")
        return name

    @property
    def best_theta(self) -> dict[str, Tensor]:
        """Parameters of the fitted voxels ``(n,)`` near their best fit, in the model's units, directions ``(n, 3)``."""
        return self.mean_theta

    @property
    def mean_theta(self) -> dict[str, Tensor]:
        """The estimates of the fitted voxels ``(n,)`` in the model's units, directions ``(n, 3)``."""
        theta = {name: value[self.batch.index] for name, value in in_model_units(self).items()}
        axes = self.axes
        return theta | {p.name: axes[p.name][self.batch.index] for p in self.signal.directions}

    def residuals(self) -> Residuals:
        """Standardised residuals of the fitted voxels, freed of what an error of the parameters would leave in them.

        Raises
        ------
        InputError
            When the noise of the measurements is not known.
        """
        if self.likelihood is None:
            raise InputError("these estimates have no likelihood, so there is no noise to compare residuals with")
        return self._whole or residuals_at(self.signal, self.likelihood, self.batch.voxels, self.best_theta)

    @property
    @abstractmethod
    def goodness_of_fit(self) -> GoodnessOfFit:
        """What each voxel's measurements say against the fit."""

    def direction_misfit(self, voxels: Voxels, theta: dict[str, Tensor]) -> dict[str, Tensor]:
        """p-value of the residuals' power by gradient direction ``(n,)``, under its name; nothing without directions.

        Parameters
        ----------
        theta
            Parameters of ``voxels`` in the model's units, near the best ones.
        """
        if self._harmonics is None or self.likelihood is None or len(voxels) == 0:
            return {}
        size = max(1, _CHUNK_VALUES // (voxels.y.shape[1] * (self.signal.n_latents + 2)))
        parts = []
        for i in range(0, len(voxels), size):
            here = {name: value[i : i + size] for name, value in theta.items()}
            found = residuals_at(self.signal, self.likelihood, voxels[i : i + size], here)
            parts.append(direction_p(found, self._harmonics))
            self._whole = found if len(found) == len(self.batch.voxels) else None
        return {"direction": torch.cat(parts).to(torch.get_default_dtype())}

    @cached_property
    def _harmonics(self) -> Tensor | None:
        """What a second fibre would leave in the measurements."""
        if "bvec" not in self.signal.signal.requires:
            return None
        return direction_basis(self.signal.acquisition, self.signal.n_latents)

    @property
    def ppc(self) -> Tensor:
        """p-value ``(N,)``, posterior predictive where there is a posterior: near 0 where the signal does not fit."""
        return self.goodness_of_fit.ppc

    @property
    def residual(self) -> Tensor:
        """Root-mean-square residual ``(N,)`` in units of the noise: 1 where noise is all there is."""
        return self.goodness_of_fit.residual

    def interval(self, p: float) -> dict[str, Tensor]:
        """Central intervals that hold probability ``p``, each ``(N, 2)``."""
        if not 0 < p < 1:
            raise ValueError(f"an interval's probability lies between 0 and 1, got {p}")
        lower, upper = self.quantile((1 - p) / 2), self.quantile((1 + p) / 2)
        return {name: torch.stack([lower[name], upper[name]], -1) for name in self.names}

    def log_likelihood(self, n: int | None = None, seed: int = 0) -> Tensor:
        """Log-likelihood of each measurement under ``n`` posterior draws, refused where there is no posterior."""
        raise InputError("one estimate per voxel has no log-likelihood under draws; fit a recipe with a posterior")

    def to_arviz(self, voxels: slice = slice(0, 100), n_draws: int = 200, seed: int = 0, ijk: Any = None) -> Any:
        """The posterior as ArviZ knows it, refused where there is none."""
        raise InputError("one estimate per voxel is no posterior that ArviZ could show; fit a recipe with a posterior")

    def scatter(self, values: Tensor) -> Tensor:
        """Values of the fitted voxels ``(n, ...)`` among all ``(N, ...)``, NaN elsewhere."""
        full = torch.full((len(self.batch.status), *values.shape[1:]), torch.nan)
        full[self.batch.index] = values.to(full).detach()
        return full

    def rescale(self, theta: dict[str, Tensor]) -> dict[str, Tensor]:
        """S0 and amplitudes back in the scan's own units."""
        return theta | {name: theta[name] * self.reference for name in self.signal.in_scan_units if name in theta}

    @cached_property
    def contraction(self) -> dict[str, Tensor]:
        r"""Contraction :math:`1 - \mathrm{sd}^2 / \mathrm{sd}_\text{population}^2` of each free parameter ``(N,)``.

        1 where a voxel's own measurements determine it, 0 where its posterior is the population's distribution, below
        0 where it is wider. Empty without a population, and where the prior depends on the voxel.
        """
        population = self.rescale(self.population_sd())
        return {name: 1 - (self.sd[name] / before).square() for name, before in population.items()}

    def population_sd(self) -> dict[str, Tensor]:
        """Standard deviation of each free parameter before a voxel is measured; empty without a population."""
        return {}

    def weakly_informed(self, endless: bool = True) -> Tensor:
        """Whether the data leave some parameter of each fitted voxel open ``(n,)`` bool.

        Without a population a relaxation time that may be as long as its bound counts too, where ``endless``.
        """
        if self.likelihood is None:
            return torch.zeros(len(self.batch.index), dtype=torch.bool)
        narrow = {name: value[self.batch.index] for name, value in self.contraction.items()}
        theta, voxels = self.mean_theta, self.batch.voxels
        return weakly_informed(self.signal, self.likelihood, voxels, theta, narrow, self.rests_on_shape)

    def beyond_bounds(self) -> dict[str, Tensor]:
        """Whether the data ask for a value beyond the bound that a free parameter lies at, each ``(N,)`` bool."""
        held = at_bound(self)
        if self.likelihood is None:  # nothing says that they do not
            return held
        among = {name: value[self.batch.index] for name, value in held.items()}
        found = beyond_bounds(self.signal, self.likelihood, self.batch.voxels, self.mean_theta, among)
        return {name: _among_all(self, value) for name, value in found.items()}

    @property
    def n_sticks(self) -> Tensor:
        """Posterior probability of 0, 1, 2 and 3 sticks ``(N, 4)``.

        Raises
        ------
        InputError
            When the signal has no sticks to count, or the recipe no posterior.
        """
        if not self.signal.signal.countable:
            raise InputError(f"{self.signal.signal.__name__} has no sticks to count; ball_sticks has")
        if self.responsibilities is None:
            raise InputError("one estimate per voxel has no posterior over the number of sticks; use hierarchical")
        return self.responsibilities

    @property
    @abstractmethod
    def responsibilities(self) -> Tensor | None:
        """Probability of each class ``(N, C)``, or None where there are no classes."""

    @property
    def status(self) -> Tensor:
        """Status code of each voxel ``(N,)``: see :data:`pyroqmri.measurements.preparation.STATUS`."""
        return with_findings(self)

    @property
    def reference(self) -> Tensor:
        """What each voxel was divided by; one number when S0 is inferred."""
        return self.batch.reference[:1]


def in_model_units(estimates: Estimates, values: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Point estimates, or other ``values`` by parameter ``(N,)``, with S0 and amplitudes over the scan's scale."""
    scaled, values = estimates.signal.in_scan_units, estimates.mean if values is None else values
    return {k: value / estimates.reference if k in scaled else value for k, value in values.items()}


def at_bound(estimates: Estimates, margin: float = 0.01) -> dict[str, Tensor]:
    """Whether each parameter's estimate lies within ``margin`` of its range from a bound, each ``(N,)`` bool.

    What is several times a lower bound above zero is not at it, however wide the range: T1 of 40 ms over 10 to 6,000.
    """
    found, mean = {}, in_model_units(estimates)
    for p in estimates.signal.always:
        share = p.share(mean[p.name], estimates.signal.box(p, mean))
        low = share < margin
        if p.lower > 0 and not p.log:
            low &= mean[p.name] < _SEVERAL * p.lower
        found[p.name] = low | (share > 1 - margin)
    return found


def with_findings(estimates: Estimates) -> Tensor:
    """Status of the data, with what the fit found added to voxels that were fine."""
    status = estimates.batch.status.clone()
    fine = status == FINE
    bound = torch.stack(list(at_bound(estimates).values())).any(0)
    status[fine & bound] = AT_BOUND
    found = estimates.goodness_of_fit
    status[fine & (found.ppc < P_MISFIT)] = MISFIT
    if found.direction is not None:
        status[fine & (found.direction < P_MISFIT)] = DIRECTIONAL
    status[fine & (found.few > 0)] = FEW_MISFIT
    if found.unlike is not None:
        status[(status == FINE) & (found.unlike < P_MISFIT)] = UNLIKE
    if estimates.uninformed:
        status[(status == FINE) | (status == AT_BOUND)] = UNINFORMED
    elif bool((status == FINE).any()):
        status[(status == FINE) & _among_all(estimates, estimates.weakly_informed())] = UNINFORMED
    if estimates.likelihood is not None and len(estimates.batch.index):
        noise = without_signal(estimates.signal, estimates.likelihood, estimates.batch.voxels)
        status[_among_all(estimates, noise)] = NO_SIGNAL
    return status


def _among_all(estimates: Estimates, found: Tensor) -> Tensor:
    """What was found of the fitted voxels ``(n,)`` bool among all ``(N,)``."""
    full = torch.zeros(len(estimates.batch.status), dtype=torch.bool)
    full[estimates.batch.index] = found
    return full
