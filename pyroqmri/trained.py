"""From measurements to a fit, and from a fit to posteriors."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.build import build_likelihood, build_pair, build_signal
from pyroqmri.data import Batch, Preparation, complete_inputs, prepare_for
from pyroqmri.doubts import doubts_about_given
from pyroqmri.errors import InputError
from pyroqmri.estimators import NetworkEstimates, ParameterNetwork, PointEstimates, Search, search, teach
from pyroqmri.given import as_dict, as_inputs, as_tensor, pick_device
from pyroqmri.guides import Guide
from pyroqmri.lessons import plan_lesson
from pyroqmri.likelihoods import Likelihood
from pyroqmri.posterior import Posterior
from pyroqmri.recalibration import Recalibration
from pyroqmri.recipe import Recipe, plan_recipe
from pyroqmri.sigma import NoiseLevel, noise_level
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.svi import Trace, Training, fit_svi, seeded
from pyroqmri.voxel_model import VoxelModel

__all__ = ["Fit", "as_dict", "as_inputs", "as_tensor", "fit", "load_fit", "pick_device", "plan_recipe"]

MIN_VOXELS = 10  # fewer cannot tell a population


@dataclass
class Fit:
    """A trained estimator: what it was told, what it learned, and posteriors of any voxels of its protocol.

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
        """The evidence lower bound a voxel, in nats, at each look; a network's loss is none."""
        return [-loss for loss in self.trace.train] if self.network is None else []

    def posterior(
        self,
        y: Any,
        sigma: Any = None,
        inputs: Mapping[str, Any] | None = None,
        n_draws: int | None = None,
        progress: bool = False,
        reweight: bool | None = None,
    ) -> Posterior | PointEstimates | NetworkEstimates:
        """What the fit says of voxels ``(N, M)`` of its protocol; no training.

        Parameters
        ----------
        y
            Measurements in any scale, the same as in training when S0 is inferred or known.
        sigma
            Noise level of these voxels, one number or ``(N,)``; the training's when None.
        inputs
            Per-voxel inputs of the signal, each ``(N,)``.
        n_draws, reweight
            Points a voxel, and whether importance weights correct them; the recipe's ``[posterior]`` when None.
        """
        level = torch.as_tensor(self.noise.level if sigma is None else sigma, dtype=torch.float32)
        if level.dim() == 1 and len(level) != len(y):
            raise InputError(f"sigma has {len(level)} entries for {len(y)} voxels; give one number or one a voxel")
        given = as_inputs(inputs)
        if set(given) != set(self.inputs):
            had, has = (", ".join(names) if names else "none" for names in (self.inputs, given))
            raise InputError(f"the fit was trained with the inputs {had}, and these voxels come with {has}")
        known = complete_inputs(SIGNALS[self.signal_name], given, len(y))
        batch = self.preparation(as_tensor(y), level, self.acquisition, known)
        if self.network is not None:
            return NetworkEstimates(self.recipe.name, self.network, self.likelihood, batch)
        if self.model is None or self.guide is None:
            return search(self.signal, self.likelihood, batch, Search(**self.recipe.table("search")), progress)
        settings = self.recipe.reweighting(n_draws, reweight)
        posterior = Posterior(self.model, self.guide, batch, settings.draws, progress, self.recalibration, settings)
        posterior.elbo, posterior.elbo_steps = self.elbo, self.trace.step
        names = self.recipe.class_names
        posterior.class_names = () if names is None else names
        return posterior

    def save(self, folder: str | Path) -> None:
        """Write ``recipe.toml``, ``weights.safetensors`` and ``fit.json``."""
        from pyroqmri.saved import save_fit

        save_fit(self, Path(folder))


def fit(
    y: Any,
    acquisition: Acquisition,
    *,
    signal: str,
    recipe: str | Path | Recipe,
    likelihood: str | None = None,
    sigma: Any = None,
    s0: str | float = "measured",
    seed: int = 0,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    given: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    truth: "Mapping[str, Any] | Fit | None" = None,
    first: "Fit | None" = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Fit:
    """Train a recipe on measurements of many voxels.

    Parameters
    ----------
    y
        Measurements ``(N, M)`` in any scale. Voxels that cannot be fitted (NaN, no signal) are left out.
    acquisition
        The M settings.
    signal, recipe
        Names, see ``pyroqmri list``; a recipe may be a file or a :class:`Recipe`.
    likelihood
        ``gaussian`` or ``rician``, in place of the recipe's.
    sigma
        Noise level in the units of ``y``: a number, one a voxel ``(N,)``, ``"estimate"`` (the same as None:
        from repeats and shells), or ``"learn"`` (estimated, then one factor on it learned).
    s0
        ``"measured"``, ``"inferred"`` or the known value. Relaxation leaves no measurement that is S0 itself: where
        the signal has it, "measured" is taken for "inferred", which ``fit.preparation.s0`` says.
    seed
        The same seed gives the same fit.
    device
        ``auto``, ``cpu`` or ``cuda``.
    settings
        Recipe entries to change, ``{"training.steps": 2000}``.
    fixed, tied
        Parameters held at a value, or equal to another parameter.
    given
        Tissue classes of a mixture that are known beforehand: mean and sd of each parameter,
        ``{"free_water": {"D": (3.0, 0.1), "K": (0.0, 0.1)}}``.
    inputs
        Per-voxel inputs of the signal, each ``(N,)``.
    truth
        What a network's training voxels are simulated from: arrays ``(n,)`` by parameter, or a fit whose population
        is sampled; uniform in the recipe's ranges when None.
    first
        A network's fit at the same protocol whose weights another network's training starts from.
    progress, checkpoint, resume
        As in :func:`pyroqmri.svi.fit_svi`.

    Raises
    ------
    InputError
        When the input or the call is wrong.
    TrainingError
        When training diverges.
    """
    begin = time.monotonic()
    if signal not in SIGNALS:
        raise InputError(f"there is no signal {signal!r}; there are {', '.join(SIGNALS)}")
    plan = plan_recipe(recipe, settings, likelihood, sigma, given)
    y = as_tensor(y)
    data: dict[str, Any] = {"average": "auto"} | plan.table("data")
    magnitude = plan.kind("likelihood") == "rician"
    preparation = prepare_for(SIGNALS[signal], acquisition, y, s0=s0, magnitude=magnitude, **data)
    known = complete_inputs(SIGNALS[signal], as_inputs(inputs), len(y))
    bound = build_signal(signal, acquisition, preparation, as_dict(fixed), as_dict(tied), plan.ranges)
    noise = noise_level(y, acquisition, sigma, preparation, bound, known)
    batch = preparation(y, torch.as_tensor(noise.level, dtype=torch.float32), acquisition, known)
    result = Fit(
        recipe=plan,
        signal_name=signal,
        acquisition=acquisition,
        preparation=preparation,
        noise=noise,
        signal=bound,
        likelihood=build_likelihood(plan, acquisition, preparation),
        model=None,
        guide=None,
        fixed=bound.fixed,
        tied=bound.tied,
        seed=seed,
        n_voxels=len(batch.voxels),
        inputs=tuple(as_dict(inputs)),
    )
    result.seconds["prepare"] = time.monotonic() - begin
    if (truth is not None or first is not None) and plan.estimator != "network":
        raise InputError(f"recipe {plan.name} is no network: it takes neither a truth nor a network to start from")
    if plan.estimator == "voxel_model":
        path = None if checkpoint is None else Path(checkpoint)
        _train(result, batch, pick_device(device), path, resume, progress)
    elif plan.estimator == "network":
        _teach(result, batch, truth, first, pick_device(device), progress)
    return result


def _train(fit: Fit, batch: Batch, device: torch.device, checkpoint: Path | None, resume: bool, progress: bool) -> None:
    begin, n = time.monotonic(), len(batch.voxels)
    if n < MIN_VOXELS:
        raise InputError(f"only {n} voxels can be fitted, and a population needs at least {MIN_VOXELS}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        model, guide = build_pair(fit.recipe, fit.signal, fit.likelihood, float(batch.voxels.noise.median()))
    fit.model, fit.guide = model.to(device), guide.to(device)
    voxels = guide.prepare(batch.voxels.to(device))
    model.start(voxels)
    guide.start(voxels)
    with seeded(fit.seed, voxels.y):
        voxels = guide.training_set(voxels)
    fit.seconds["start"] = time.monotonic() - begin
    plan = Training(**fit.recipe.table("training"))
    fit.trace = fit_svi(
        model, guide, voxels, plan, seed=fit.seed, checkpoint=checkpoint, resume=resume, progress=progress
    )
    fit.seconds["train"] = fit.trace.seconds
    fit.warnings += doubts_about_given(fit.recipe, fit.signal, guide, voxels)


def _teach(fit: Fit, batch: Batch, truth: Any, first: Fit | None, device: torch.device, progress: bool) -> None:
    folder = fit.recipe.table("truth").get("population", "")
    population = load_fit(folder) if truth is None and folder else truth
    if isinstance(population, Fit):
        if population.model is None:
            raise InputError(f"the fit by {population.recipe.name} has no population to draw a network's truth from")
        population = population.model, population.preparation.scale
    start = None if first is None else first.network
    if first is not None and start is None:
        raise InputError(f"the fit by {first.recipe.name} has no network to start another one from")
    scan = fit.signal, fit.acquisition, fit.preparation, batch
    lesson = plan_lesson(fit.recipe, *scan, population, fit.seed, device, start)
    taught = teach(lesson, progress)
    fit.network, fit.trace = taught.network, taught.trace
    fit.seconds |= taught.seconds
    fit.warnings += taught.notes


def load_fit(folder: str | Path) -> Fit:
    """Read a fit that was saved.

    Raises
    ------
    InputError
        When the folder holds none, or its weights are not the ones that were written.
    """
    from pyroqmri.saved import read_fit

    return read_fit(Path(folder))
