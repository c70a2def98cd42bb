"""From measurements to a trained denoiser."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.denoising.autoencoders import build_autoencoder
from pyroqmri.denoising.fit import DenoiserFit, level_of_each, network_input
from pyroqmri.denoising.pairs import NoiseRange, Targets
from pyroqmri.denoising.sources import make_source
from pyroqmri.denoising.training import Schedule, train
from pyroqmri.errors import InputError
from pyroqmri.fitting.noise_level import noise_level
from pyroqmri.fitting.schema import load_recipe, with_settings
from pyroqmri.fitting.train import MIN_VOXELS
from pyroqmri.measurements.arguments import (
    as_dict,
    as_inputs,
    as_measurements,
    as_s0,
    as_seed,
    as_signal,
    pick_device,
)
from pyroqmri.measurements.own_protocol import refuse_own_protocol
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.measurements.voxel_inputs import complete_inputs
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS, BoundSignal


def fit_denoiser(
    y: Any,
    acquisition: Acquisition,
    *,
    signal: str = "dti",
    recipe: str | Path | Recipe = "denoise_vae",
    sigma: Any = None,
    s0: str | float = "measured",
    truth: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> DenoiserFit:
    """Train a denoiser for the protocol of a scan.

    Parameters
    ----------
    y
        Measurements ``(N, M)`` in any scale. They decide the noise levels of the training, the fitted truth and the
        self-supervised target; a training on a stated noise range and uniform truth looks at none of them.
    acquisition
        The M settings.
    signal, recipe
        Physics that training signals are simulated with, and ``denoise_vae``, ``denoise_dae`` or a file.
    sigma
        Noise level in the units of ``y``: a number, one a voxel ``(N,)``, or None to estimate it.
    s0
        ``"measured"``: each voxel is divided by its own b0 level, whose noise is part of the problem; or the known
        value.
    truth
        Parameters of the training voxels, each ``(K,)`` (directions ``(K, 3)``), in place of ``targets.source``.
    seed
        The same seed gives the same denoiser.
    device, settings, fixed, tied, inputs, progress, checkpoint, resume
        As in :func:`pyroqmri.fit`; the checkpoint is written after each epoch.

    Raises
    ------
    InputError
        When the input or the call is wrong.
    TrainingError
        When training diverges.
    """
    begin = time.monotonic()
    plan = plan_denoiser(signal, recipe, s0, settings)
    y, seed, kind = as_measurements(y, acquisition), as_seed(seed), NoiseRange(**plan.table("added_noise")).kind
    preparation = prepare_for(
        SIGNALS[signal], acquisition, y, s0=s0, average="volumes", magnitude=kind == "rician"
    )  # fmt: skip
    if preparation.s0 == "inferred":
        raise InputError(f"{preparation.note(acquisition)}; a denoiser has no S0 to infer: give its value with s0")
    held = as_dict(fixed), as_dict(tied)
    bound = BoundSignal(SIGNALS[signal], preparation.seen(acquisition).acquisition, *held)
    refuse_own_protocol(inputs, "a denoiser")
    known = complete_inputs(SIGNALS[signal], as_inputs(inputs), len(y))
    noise = noise_level(y, acquisition, sigma, preparation, bound, known)
    batch = preparation(y, level_of_each(noise.level, len(y)), acquisition, known)
    if len(batch.index) < MIN_VOXELS:
        raise InputError(f"only {len(batch.index)} voxels have finite values and a signal; give at least {MIN_VOXELS}")
    centre = network_input(y, batch).mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_autoencoder(plan, len(acquisition))
    fit = DenoiserFit(plan, signal, acquisition, preparation, noise, network, centre, seed, n_voxels=len(batch.index))
    source = make_source(fit, y, batch, truth, bound)
    fit.seconds["prepare"] = time.monotonic() - begin
    schedule = Schedule(**plan.table("schedule"))
    fit.trace = train(
        fit.network, source, schedule, seed=seed, device=pick_device(device), progress=progress,
        checkpoint=None if checkpoint is None else Path(checkpoint), resume=resume,
    )  # fmt: skip
    fit.seconds["train"] = fit.trace.seconds
    return fit


def plan_denoiser(
    signal: str, recipe: str | Path | Recipe, s0: str | float, settings: Mapping[str, Any] | None
) -> Recipe:
    """The recipe with every change; refuses what can be refused before a scan is read.

    Raises
    ------
    InputError
        When the signal is unknown, or the recipe is none of a denoiser.
    """
    as_signal(signal)
    plan = load_recipe(recipe)
    if plan.estimator != "denoiser":
        raise InputError(f"recipe {plan.name} returns parameters and denoises nothing; use denoise_vae or denoise_dae")
    plan = with_settings(plan, as_dict(settings, "settings"))
    if as_s0(s0) == "inferred":
        raise InputError("a denoiser has no S0 to infer; use s0 'measured' or give its value")
    for settings_class, table in ((Targets, "targets"), (NoiseRange, "added_noise"), (Schedule, "schedule")):
        settings_class(**plan.table(table))
    return plan
