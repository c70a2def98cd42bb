"""Training: from measurements to a fit."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_pair, build_signal, settle_likelihood, settle_number
from pyroqmri.fitting.coils import LEARN, coils_of, learn_coils, with_coils
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.given_classes import check_given_classes
from pyroqmri.fitting.neighbours import learn_neighbours, position_of, training_of, with_shared
from pyroqmri.fitting.network import learn_network
from pyroqmri.fitting.noise_level import noise_level
from pyroqmri.fitting.own_protocol import training_inputs
from pyroqmri.fitting.parts import Part, part_of
from pyroqmri.fitting.population import finish_population, refine
from pyroqmri.fitting.scan_misfit import scan_causes
from pyroqmri.fitting.schema import plan_recipe
from pyroqmri.guides.population_refinement import GAP, can_refine, left_out
from pyroqmri.measurements.arguments import (
    as_covariates,
    as_dict,
    as_measurements,
    as_numbers,
    as_s0,
    as_seed,
    as_signal,
    pick_device,
)
from pyroqmri.measurements.directions import direction_warnings
from pyroqmri.measurements.own_protocol import OWN, blanked
from pyroqmri.measurements.preparation import Batch, Preparation, prepare_for
from pyroqmri.progress import say_phase
from pyroqmri.protocol_checks.denoised import denoised_warnings
from pyroqmri.protocol_checks.judge import judge_protocol, missing_inputs
from pyroqmri.recipe import Recipe
from pyroqmri.svi import fit_svi, seeded

MIN_VOXELS = 10  # fewer cannot tell a population


def fit(
    y: Any,
    acquisition: Acquisition,
    *,
    signal: str,
    recipe: str | Path | Recipe,
    prior: str | Part | None = None,
    decoder: str | Part | None = None,
    guide: str | Part | None = None,
    likelihood: str | Part | None = None,
    coils: float | str | None = None,
    sigma: Any = None,
    averages: Any = None,
    s0: str | float = "measured",
    seed: int = 0,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    given: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    voxels: Any = None,
    mask: Any = None,
    covariates: Mapping[str, Any] | None = None,
    truth: "Mapping[str, Any] | Fit | None" = None,
    first: "Fit | None" = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    causes: bool = True,
    weights: Any = None,
    grad_dev: Any = None,
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
    prior, decoder, guide, likelihood
        In place of the recipe's: a kind (``"rician"``), a class, or a factory with the arguments of one (see
        :func:`pyroqmri.register`). What the recipe's table says of the old kind and the new one does not know is left
        out. A fit made with a class of your own is read back by ``load_fit(folder, prior=MyPrior)``.
    coils
        Channels whose sum of squares the magnitudes are roots of, with likelihood ``ncchi``: a number, or ``"learn"``
        where the floor of the weakest measurements determines it. Coils with correlated noise count as fewer.
    sigma
        Noise level in the units of ``y``: a number, one a voxel ``(N,)``, ``"estimate"`` (the same as None:
        from repeats and shells), ``"field"`` (a smooth map, learned from the scan), or ``"learn"`` (estimated, then one
        factor on it learned). A field needs ``voxels`` or ``mask``; with them an estimate is one where the scan shows
        it.
        It is the noise of one magnitude, whatever the ``averages``.
    averages
        How many magnitude images each measurement is the mean of: a number, or one per measurement ``(M,)``, such as
        the NEX of each b-value. In place of ``acquisition.averages``; one where neither is given. Averages of complex
        data have Rician noise of a smaller sigma, and need none.
    s0
        ``"measured"``, ``"inferred"`` or the known value. Where no measurement is S0 itself (relaxation leaves none;
        b is never negligible), "measured" is taken for "inferred"; ``fit.preparation.note(acquisition)`` states it.
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
    voxels, mask
        Where the voxels lie, for a prior or a noise field: integer indices ``(N, 3)`` of the rows of ``y``, or an
        image ``(X, Y, Z)`` whose voxels inside, in C order, are the rows.
    covariates
        Numbers per voxel, each ``(N,)``, for a prior that depends on them (age, depth, ...).
    truth
        What a network's training voxels are simulated from: arrays ``(n,)`` by parameter, or a fit whose population
        is sampled; uniform in the recipe's ranges when None.
    first
        A network's fit at the same protocol whose weights another network's training starts from.
    progress, checkpoint, resume
        As in :func:`pyroqmri.svi.fit_svi`.
    causes
        Look for the causes of misfit in the residuals of 200 to 400 voxels; False where maps of the scan do it.
    weights
        How much each measurement counts, ``(N, M)`` from 0 (not at all) to 1: the power of its likelihood.
    grad_dev
        Deviation L of each voxel's gradients, ``(N, 3, 3)``, a fraction: where g is played out, (I + L) g is seen.

    Raises
    ------
    InputError
        When the input or the call is wrong.
    TrainingError
        When training diverges.
    """
    begin, physics = time.monotonic(), as_signal(signal)
    parts = {"prior": prior, "decoder": decoder, "guide": guide, "likelihood": likelihood}
    plan = plan_recipe(recipe, settings, parts, sigma, given)
    y, s0, seed = as_measurements(y, acquisition), as_s0(s0), as_seed(seed)
    acquisition = acquisition.averaged(averages)
    y, known, names = training_inputs(plan, physics, y, inputs, weights, grad_dev)
    chosen = likelihood is not None or "likelihood.kind" in as_dict(settings)
    plan = settle_number(plan, physics)
    plan, warnings = settle_likelihood(with_coils(plan, coils), signal, y, acquisition, chosen or coils is not None)
    magnitude = getattr(part_of(plan, "likelihood"), "magnitude", False)
    data: dict[str, Any] = {"average": "auto"} | plan.table("data")
    held = as_numbers(fixed, "fixed"), as_dict(tied, "tied")
    if coils == LEARN:
        plan, words = learn_coils(plan, signal, y, acquisition, sigma, held, known)
        warnings.append(words)
    data["coils"] = coils_of(plan)
    preparation = prepare_for(physics, acquisition, y, s0=s0, magnitude=magnitude, **data)
    bound = build_signal(signal, acquisition, preparation, *held, plan.ranges)
    position = position_of(plan, voxels, mask, len(y))
    warnings += _denoised(blanked(y, known), acquisition, position)
    noise = noise_level(y, acquisition, sigma, preparation, bound, known, position)
    noise = with_shared(noise, plan, blanked(y, known), acquisition, position)
    named = as_covariates(covariates, len(y))
    scan = y, torch.as_tensor(noise.level, dtype=y.dtype), acquisition, known
    batch, over_s0 = _batch_and_noise(plan, preparation, scan, position, named)
    result = Fit(
        recipe=plan, signal_name=signal, acquisition=acquisition, preparation=preparation, noise=noise, signal=bound,
        likelihood=build_likelihood(plan, acquisition, preparation),
        model=None, guide=None, fixed=bound.fixed, tied=bound.tied, seed=seed, n_voxels=len(over_s0),
        inputs=names, covariates=tuple(named), own_protocol=tuple(name for name in OWN if name in known),
    )  # fmt: skip
    _judge(result, over_s0, [*noise.warnings, *direction_warnings(physics, acquisition, preparation), *warnings])
    result.seconds["prepare"] = time.monotonic() - begin
    _check_truth(plan, truth, first)
    if batch is not None:
        _learn(result, batch, pick_device(device), checkpoint, resume, truth, first, progress)
    if causes:
        given = {name: value for name, value in known.items() if name in (*names, *OWN)}
        result.name_causes(*scan_causes(result, y, inputs=given, position=position))
    return result


def _denoised(y: torch.Tensor, acquisition: Acquisition, position: torch.Tensor | None) -> list[str]:
    return denoised_warnings(y.numpy(), acquisition, None if position is None else position.numpy())


def _learn(
    fit: Fit, batch: Batch, device: torch.device, checkpoint: str | Path | None, resume: bool, truth: Any,
    first: Fit | None, progress: bool,
) -> None:  # fmt: skip
    """Train what the recipe has."""
    if fit.recipe.estimator == "voxel_model":
        _train(fit, batch, device, checkpoint, resume, progress)
    else:
        learn_network(fit, batch, truth, first, device, progress)


def _batch_and_noise(
    plan: Recipe, preparation: Preparation, scan: tuple, position: torch.Tensor | None, named: dict[str, torch.Tensor]
) -> tuple[Batch | None, torch.Tensor]:
    """The voxels that are trained on and their noise over S0 ``(n, 1)``; the noise alone where nothing is trained."""
    if plan.estimator == "point":
        return None, preparation.noise(*scan)
    batch = preparation(*scan).placed(position, named)
    return batch, batch.voxels.noise


def _check_truth(plan: Recipe, truth: Any, first: Fit | None) -> None:
    if (truth is not None or first is not None) and plan.estimator != "network":
        raise InputError(f"recipe {plan.name} is no network: it takes neither a truth nor a network to start from")


def _judge(fit: Fit, noise: torch.Tensor, warnings: Sequence[str]) -> None:
    """Note what the protocol does not determine, and everything that may make the maps wrong."""
    judged = judge_protocol(fit.signal, fit.likelihood, fit.acquisition, fit.signal_name, noise)
    fit.uninformed = judged.uninformed
    fit.warnings += [*judged.warnings, *warnings, *missing_inputs(fit.signal_name, fit.inputs, fit.recipe.tables)]


def _train(
    fit: Fit, batch: Batch, device: torch.device, checkpoint: str | Path | None, resume: bool, progress: bool
) -> None:
    begin, n = time.monotonic(), len(batch.voxels)
    if n < MIN_VOXELS:
        raise InputError(f"only {n} voxels can be fitted, and a population needs at least {MIN_VOXELS}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        model, guide = build_pair(fit.recipe, fit.signal, fit.likelihood, float(batch.voxels.noise.median()))
    fit.model, fit.guide = model.to(device), guide.to(device)
    say_phase("finding where the training starts", progress)
    voxels = guide.prepare(batch.voxels.to(device))
    model.start(voxels)
    guide.start(voxels)
    with seeded(fit.seed, voxels.y):
        voxels = learn_neighbours(fit, guide, guide.training_set(voxels), progress)
        refined = can_refine(model, guide) and left_out(model, guide, voxels) > GAP
    fit.seconds["start"] = time.monotonic() - begin
    if refined:
        refine(fit, voxels, progress)
        # the ELBO would lead it away again; the guide alone is trained
        model.prior.requires_grad_(False)
    plan, path = training_of(fit), None if checkpoint is None else Path(checkpoint)
    if guide.trains:
        fit.trace = fit_svi(
            model, guide, voxels, plan, seed=fit.seed, checkpoint=path, resume=resume, progress=progress
        )
    fit.seconds["train"] = fit.trace.seconds
    finish_population(fit, voxels, refined, progress)
    fit.warnings += [fit.trace.not_converged] if fit.trace.not_converged else []
    if model.prior.looks_at_voxels and guide.uses_classes and not model.prior.is_field:
        fit.warnings.append(
            f"prior {fit.recipe.kind('prior')} depends on the voxel, and guide {fit.recipe.kind('guide')} finds each "
            "voxel's mode under the prior's classes, which do not: use posterior(y, reweight=True), or guide free"
        )
    fit.warnings += check_given_classes(fit.recipe, fit.signal, guide, voxels)
