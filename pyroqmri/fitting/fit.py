"""From measurements to a fit, and from a fit to posteriors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.neighbours import Nearby, among_neighbours, check_places, nearby_of
from pyroqmri.fitting.own_protocol import check_own_protocol
from pyroqmri.fitting.pyro_pair import PyroPair, in_default_dtype, pyro_pair
from pyroqmri.guides import Guide
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.arguments import as_covariates, as_inputs, as_level, as_measurements, as_positions
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.own_protocol import OWN, with_own_protocol
from pyroqmri.measurements.preparation import Batch, Preparation
from pyroqmri.measurements.voxel_inputs import complete_inputs
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.misfit.causes import INTERPOLATION, Cause, ResidualNoise
from pyroqmri.networks.network import NetworkEstimates, ParameterNetwork
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.recalibration import Recalibration
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.svi import Trace
from pyroqmri.voxel_model import VoxelModel
from pyroqmri.voxelwise.estimates import PointEstimates

SMOOTHING = 100  # steps that a smoothed loss remembers


@dataclass
class Fit:
    """A trained estimator: what it was given, what it learned, and posteriors of any voxels.

    Attributes
    ----------
    recipe, signal_name, acquisition, preparation, fixed, tied, seed
        What it was told.
    signal, likelihood, model, guide
        The parts; ``model`` and ``guide`` are the Pyro pair, None for an estimator that is not a voxel model.
    noise
        Noise level in the scan's units and where it came from.
    trace
        How the loss went.
    seconds
        Time by stage.
    recalibration
        Correction of the intervals that `check` learned on simulations, or None.
    network
        The network of an estimator that is one.
    inputs
        Names of the per-voxel inputs that it was trained with.
    covariates
        Names of the covariates that it was trained with.
    causes
        Why the signal does not fit, by what the residuals show (:mod:`pyroqmri.fitting.scan_misfit`); ``warnings`` has
        their sentences.
    residual_noise
        The noise that the residuals show, or None where it cannot be seen.
    uninformed
        Names of parameters, and of what is derived from them, that the protocol does not determine; every voxel's
        status states it then.
    rests_on_shape
        Whether its voxels show a population of another shape, on which the values rest that data leave open.
    learned_on
        The settings that it learned on, where ``acquisition`` is another protocol that it is applied to; else None.
    own_protocol
        What was a training voxel's own beside the acquisition: ``weights``, ``grad_dev``.
    """

    recipe: Recipe
    signal_name: str
    acquisition: Acquisition
    preparation: Preparation
    noise: NoiseLevel
    signal: BoundSignal
    likelihood: Likelihood
    model: VoxelModel | None
    guide: Guide | None
    fixed: dict[str, float]
    tied: dict[str, str]
    seed: int
    trace: Trace = field(default_factory=Trace)
    seconds: dict[str, float] = field(default_factory=dict)
    n_voxels: int = 0
    warnings: list[str] = field(default_factory=list)
    recalibration: Recalibration | None = None
    network: ParameterNetwork | None = None
    inputs: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    uninformed: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    residual_noise: ResidualNoise | None = None
    learned_on: Acquisition | None = None
    own_protocol: tuple[str, ...] = ()
    rests_on_shape: bool = False

    def name_causes(self, causes: Sequence[Cause], noise: ResidualNoise | None) -> None:
        """Take over the causes of misfit that a scan shows, and its noise, in place of those that were known before."""
        self.residual_noise = noise
        before = {cause.sentence for cause in self.causes}
        self.warnings = [warning for warning in self.warnings if warning not in before]
        # what the noise of the scan alone has shown is not named again
        named = any("neighbouring voxels correlate" in warning for warning in self.warnings)
        self.causes = tuple(cause for cause in causes if cause.kind != INTERPOLATION or not named)
        self.warnings += [cause.sentence for cause in self.causes]

    @property
    def sigma(self) -> float:
        """Noise level used, or learned, in the scan's units."""
        return self.noise.sigma * float(self.likelihood.factor.detach())

    @property
    def sigma_record(self) -> dict[str, Any]:
        """Where the noise level came from; ``learned_factor`` is None unless it was learned."""
        learned = float(self.likelihood.factor.detach()) if self.likelihood.log_factor.requires_grad else None
        return {"value": self.sigma, "method": self.noise.method, "note": self.noise.note, "learned_factor": learned}

    @property
    def elbo(self) -> list[float]:
        """The evidence lower bound per voxel, in nats, at each look; empty where the loss is not a bound.

        The loss of a network, of a guide trained by forward KL, and one with a weighted KL term are none (looks in and
        soon after a warm-up of the KL term are left out); ``trace`` has every loss.
        """
        plan = self.recipe.table("training")
        weighted = plan.get("kl_weight", 1.0) != 1.0
        bound = self.guide is not None and self.guide.maximises_elbo and not weighted
        warmup = plan.get("kl_warmup", 0)
        first = warmup + SMOOTHING if warmup else 0
        looks = zip(self.trace.step, self.trace.train, strict=True)
        return [-loss for step, loss in looks if step >= first] if bound else []

    def posterior(
        self,
        y: Any,
        sigma: Any = None,
        inputs: Mapping[str, Any] | None = None,
        n_draws: int | None = None,
        progress: bool = False,
        reweight: bool | None = None,
        voxels: Any = None,
        mask: Any = None,
        covariates: Mapping[str, Any] | None = None,
        averages: Any = None,
        acquisition: Acquisition | None = None,
        retrain: bool = False,
        neighbours: "bool | Nearby" = True,
        weights: Any = None,
        grad_dev: Any = None,
    ) -> Posterior | PointEstimates | NetworkEstimates:
        """What the fit says of voxels ``(N, M)`` of its protocol, or of another one; no training.

        Parameters
        ----------
        y
            Measurements in any scale, the same as in training when S0 is inferred or known.
        sigma
            Noise level of these voxels, one number or ``(N,)``; the training's when None, a noise field where
            ``voxels`` or ``mask`` place them.
        inputs
            Per-voxel inputs of the signal, each ``(N,)``.
        n_draws, reweight
            Points per voxel, and whether importance weights correct them; the recipe's ``[posterior]`` when None.
        voxels, mask, covariates
            As in :func:`pyroqmri.fit`.
        averages
            How many magnitudes each measurement is the mean of; as in the training when None.
        acquisition
            The M settings of these voxels, of the same signal; the fit's own when None. Where they are other settings
            the population is the one that was learned, the noise level ``sigma`` or the training's.
        retrain
            Train on ``acquisition`` what depends on the protocol: a guide by forward KL or an encoder (with the
            population as it is), or a network.
        neighbours
            Of a field: what :meth:`nearby` found of a larger image, or False for each voxel by itself.
        weights, grad_dev
            As in :func:`pyroqmri.fit`, of these voxels; the training needs to have had none.

        Raises
        ------
        InputError
            When the signal cannot use the settings, the recipe would have to be trained, or a field lacks positions.
        """
        from pyroqmri.fitting.estimating import estimates

        inputs = with_own_protocol(inputs, weights, grad_dev)
        if acquisition is not None or averages is not None:
            other = self.on_protocol(y, acquisition, sigma, inputs, averages, retrain)
            return other.posterior(
                y, sigma, inputs, n_draws, progress, reweight, voxels, mask, covariates, neighbours=neighbours
            )
        y = as_measurements(y, self.acquisition)
        known = as_covariates(covariates, len(y))
        if set(known) != set(self.covariates):
            had, has = (", ".join(names) if names else "none" for names in (self.covariates, known))
            raise InputError(f"the fit was trained with the covariates {had}, and these voxels come with {has}")
        position = as_positions(voxels, mask, len(y))
        if sigma is None and position is not None and self.noise.field is not None:
            sigma = self.noise.field(position)
        batch = among_neighbours(self, self._batch(y, sigma, inputs), position, known, neighbours)
        found = estimates(self, batch, n_draws, progress, reweight)
        found.uninformed, found.rests_on_shape = self.uninformed, self.rests_on_shape
        return found

    @property
    def is_field(self) -> bool:
        """Whether neighbouring voxels depend on each other, so that posteriors need to know where voxels lie."""
        return self.model is not None and self.model.prior.is_field

    def nearby(
        self, y: Any, sigma: Any = None, inputs: Mapping[str, Any] | None = None, voxels: Any = None, mask: Any = None
    ) -> Nearby:
        """What the other voxels of a whole image state about each; the arguments of :meth:`posterior`, for a field."""
        y = as_measurements(y, self.acquisition)
        position = as_positions(voxels, mask, len(y))
        check_places(self.recipe.name, position)
        if sigma is None and position is not None and self.noise.field is not None:
            sigma = self.noise.field(position)
        return nearby_of(self.guide, self.batch(y, sigma, inputs).placed(position, {}))

    def prepare(self, y: Any, sigma: Any = None, inputs: Mapping[str, Any] | None = None) -> Voxels:
        """Voxels ``(N, M)`` of the protocol as ``model`` and ``guide`` take them; those that cannot be fitted left out.

        Parameters
        ----------
        y, sigma, inputs
            As in :meth:`posterior`.
        """
        if self.guide is None:
            raise InputError(f"recipe {self.recipe.name} is no voxel model: it has no Pyro pair to prepare voxels for")
        (guide,) = in_default_dtype(self.guide)
        return guide.prepare(self.batch(y, sigma, inputs).voxels)

    def pyro_pair(self, name: str | None = None) -> PyroPair:
        """Copies of model and guide that vanilla :class:`pyro.infer.SVI` trains, see :class:`PyroPair`.

        Parameters
        ----------
        name
            What their parameters are called in Pyro's parameter store; one that no other pair has when None.
        """
        if self.model is None or self.guide is None:
            raise InputError(f"recipe {self.recipe.name} is no voxel model: it has no Pyro pair")
        return pyro_pair(self.model, self.guide, self.recipe.name if name is None else name, unique=name is None)

    def batch(self, y: Any, sigma: Any = None, inputs: Mapping[str, Any] | None = None) -> Batch:
        """Voxels ``(N, M)`` of the protocol as the fit's preparation leaves them; arguments as in :meth:`posterior`."""
        return self._batch(as_measurements(y, self.acquisition), sigma, inputs)

    def _batch(self, y: torch.Tensor, sigma: Any, inputs: Mapping[str, Any] | None) -> Batch:
        level = as_level(self.noise.level if sigma is None else sigma, len(y))
        given = as_inputs(inputs)
        named = [name for name in given if name not in OWN]
        check_own_protocol(self.recipe, given)
        if set(named) != set(self.inputs):
            had, has = (", ".join(names) if names else "none" for names in (self.inputs, named))
            raise InputError(f"the fit was trained with the inputs {had}, and these voxels come with {has}")
        known = complete_inputs(SIGNALS[self.signal_name], given, len(y))
        return self.preparation(y, level, self.acquisition, known)

    def on_protocol(
        self,
        y: Any,
        acquisition: Acquisition | None = None,
        sigma: Any = None,
        inputs: Mapping[str, Any] | None = None,
        averages: Any = None,
        retrain: bool = False,
    ) -> "Fit":
        """The fit for voxels ``(N, M)`` of another protocol; its ``uninformed`` and ``warnings`` are of that one.

        Parameters
        ----------
        y, acquisition, sigma, inputs, averages, retrain
            As in :meth:`posterior`.
        """
        from pyroqmri.fitting.transfer import on_protocol

        settings = self.acquisition if acquisition is None else acquisition
        return on_protocol(self, y, settings.averaged(averages), sigma, inputs, retrain)

    def on(self, acquisition: Acquisition, keep: torch.Tensor | None = None) -> "Fit":
        """The fit for another scan, of its protocol or another: see :func:`pyroqmri.fitting.rebuild.on`."""
        from pyroqmri.fitting.rebuild import on

        return on(self, acquisition, keep)

    def save(self, folder: str | Path) -> None:
        """Write ``recipe.toml``, ``weights.safetensors`` and ``fit.json``."""
        from pyroqmri.fitting.save import save_fit

        save_fit(self, Path(folder))
