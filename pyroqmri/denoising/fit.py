"""From measurements to a trained denoiser, and from a denoiser to denoised measurements."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.data import Batch, Preparation, prepare_for
from pyroqmri.denoising.sources import make_source
from pyroqmri.errors import InputError
from pyroqmri.estimators.denoise import (
    AUTOENCODERS,
    Autoencoder,
    DenoiserTrace,
    Latents,
    NoiseRange,
    Schedule,
    Targets,
    describe_latents,
    train,
)
from pyroqmri.progress import progress_bar
from pyroqmri.recipe import Recipe, load_recipe
from pyroqmri.sigma import NoiseLevel, noise_level
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.trained import MIN_VOXELS, as_dict, as_tensor, pick_device

_CHUNK = 65_536
_LATENT_VOXELS = 20_000


@dataclass(frozen=True)
class Denoised:
    """Measurements of N voxels without the noise, in the units they came in.

    Parameters
    ----------
    signal, residual
        Denoised measurements ``(N, M)`` and what was taken away.
    sigma
        Noise level of each voxel ``(N,)``.
    status
        Status code of each voxel ``(N,)``: see :data:`pyroqmri.data.STATUS`. A voxel with NaN or without signal
        comes back as it is.
    z_loc, z_scale
        Latents ``(n, L)`` of the n voxels that were denoised, and their posterior standard deviations or None.
    """

    signal: Tensor
    residual: Tensor
    sigma: Tensor
    status: Tensor
    z_loc: Tensor
    z_scale: Tensor | None


@dataclass
class DenoiserFit:
    """A trained denoiser of one protocol.

    Attributes
    ----------
    recipe, signal_name, acquisition, preparation, seed
        What it was told.
    noise
        Noise level in the scan's units and where it came from.
    network
        The autoencoder; for ``denoise_vae`` its ``model`` and ``guide`` are the Pyro pair.
    centre
        Mean of each measurement over the scan's voxels ``(M,)``: what hidden measurements are replaced by.
    trace, seconds
        How training went, and time by stage.
    """

    recipe: Recipe
    signal_name: str
    acquisition: Acquisition
    preparation: Preparation
    noise: NoiseLevel
    network: Autoencoder
    centre: Tensor
    seed: int
    trace: DenoiserTrace = field(default_factory=DenoiserTrace)
    seconds: dict[str, float] = field(default_factory=dict)
    n_voxels: int = 0

    @property
    def is_self_supervised(self) -> bool:
        """Whether it learned from the scan itself."""
        return self.targets.source == "scan"

    @property
    def targets(self) -> Targets:
        """Where its training signals came from."""
        return Targets(**self.recipe.table("targets"))

    @property
    def noise_range(self) -> NoiseRange:
        """The noise it was trained on."""
        return NoiseRange(**self.recipe.table("added_noise"))

    def prepare(self, y: Any, sigma: Any = None) -> tuple[Batch, Tensor]:
        """The voxels of ``y`` that can be denoised, and their inputs ``(n, M)`` to the network."""
        y, level = as_tensor(y), _level(self.noise.level if sigma is None else sigma, len(y))
        batch = self.preparation(y, level, self.acquisition)
        return batch, network_input(y, batch)

    @torch.no_grad()
    def denoise(self, y: Any, sigma: Any = None, progress: bool = False) -> Denoised:
        """Denoise voxels ``(N, M)`` of this protocol; no training.

        Parameters
        ----------
        y
            Measurements in any scale.
        sigma
            Their noise level, one number or ``(N,)``; the training's when None.
        progress
            Show a bar.

        Raises
        ------
        InputError
            When the measurements are not those of the protocol.
        """
        y, level = as_tensor(y), _level(self.noise.level if sigma is None else sigma, len(y))
        batch, seen = self.prepare(y, level)
        parts, locs, scales = [], [], []
        device = next(self.network.parameters()).device
        with progress_bar("denoising", len(seen), progress) as report:
            for i in range(0, max(1, len(seen)), _CHUNK):
                part = seen[i : i + _CHUNK].to(device)
                parts.append(self._reconstruct(part).cpu())
                locs.append(self.network.z_loc(part).cpu())
                scale = self.network.z_scale(part)
                scales += [] if scale is None else [scale.cpu()]
                report(min(i + _CHUNK, len(seen)))
        signal = y.clone()
        # a magnitude has no negative mean
        signal[batch.index] = torch.cat(parts).clamp_min(0) * batch.reference[:, None]
        residual = torch.where(torch.isfinite(y), y - signal, 0)
        return Denoised(signal, residual, level, batch.status, torch.cat(locs), torch.cat(scales) if scales else None)

    def _reconstruct(self, seen: Tensor) -> Tensor:
        """Denoised inputs; a self-supervised network sees each measurement's place without the measurement."""
        if not self.is_self_supervised:
            return self.network(seen)
        n_folds = max(2, round(1 / self.targets.hidden))
        fold = torch.arange(seen.shape[1], device=seen.device) % n_folds
        found = torch.empty_like(seen)
        for k in range(n_folds):
            hidden = fold == k
            found[:, hidden] = self.network(torch.where(hidden, self.centre.to(seen.device), seen))[:, hidden]
        return found

    def latents(self, y: Any, sigma: Any = None) -> Latents:
        """What each latent does on voxels ``(N, M)``, at most 20,000 of them."""
        y = as_tensor(y)
        _, seen = self.prepare(y[:: max(1, len(y) // _LATENT_VOXELS)])
        return describe_latents(self.network.cpu(), seen)

    def save(self, folder: str | Path) -> None:
        """Write ``recipe.toml``, ``weights.safetensors`` and ``fit.json``."""
        from pyroqmri.denoising.saved import save_denoiser

        save_denoiser(self, Path(folder))


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
    progress: bool = False,
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
    device, settings, progress
        As in :func:`pyroqmri.fit`.

    Raises
    ------
    InputError
        When the input or the call is wrong.
    TrainingError
        When training diverges.
    """
    begin = time.monotonic()
    plan = plan_denoiser(signal, recipe, s0, settings)
    y, kind = as_tensor(y), NoiseRange(**plan.table("added_noise")).kind
    preparation = prepare_for(
        SIGNALS[signal], acquisition, y, s0=s0, average="volumes", magnitude=kind == "rician"
    )  # fmt: skip
    bound = BoundSignal(SIGNALS[signal], preparation.acquisition(acquisition))
    noise = noise_level(y, acquisition, sigma, preparation, bound)
    batch = preparation(y, _level(noise.level, len(y)), acquisition)
    if len(batch.index) < MIN_VOXELS:
        raise InputError(f"only {len(batch.index)} voxels have finite values and a signal; give at least {MIN_VOXELS}")
    centre = network_input(y, batch).mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_autoencoder(plan, len(acquisition))
    fit = DenoiserFit(plan, signal, acquisition, preparation, noise, network, centre, seed, n_voxels=len(batch.index))
    source = make_source(fit, y, batch, truth)
    fit.seconds["prepare"] = time.monotonic() - begin
    schedule = Schedule(**plan.table("schedule"))
    fit.trace = train(fit.network, source, schedule, seed=seed, device=pick_device(device), progress=progress)
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
    if signal not in SIGNALS:
        raise InputError(f"there is no signal {signal!r}; there are {', '.join(SIGNALS)}")
    plan = load_recipe(recipe)
    if plan.estimator != "denoiser":
        raise InputError(f"recipe {plan.name} answers parameters and denoises nothing; use denoise_vae or denoise_dae")
    plan = plan.with_settings(as_dict(settings))
    if s0 == "inferred":
        raise InputError("a denoiser has no S0 to infer; use s0 'measured' or give its value")
    for settings_class, table in ((Targets, "targets"), (NoiseRange, "added_noise"), (Schedule, "schedule")):
        settings_class(**plan.table(table))
    return plan


def build_autoencoder(recipe: Recipe, n_measurements: int) -> Autoencoder:
    """The network that a recipe names."""
    return AUTOENCODERS[recipe.kind("autoencoder")](n_measurements, **recipe.table("autoencoder"))


def network_input(y: Tensor, batch: Batch) -> Tensor:
    """All measurements of a batch's voxels over their reference ``(n, M)``, none below zero."""
    return y[batch.index].clamp_min(0) / batch.reference[:, None]


def _level(level: Any, n: int) -> Tensor:
    level = torch.as_tensor(level, dtype=torch.float32)
    if level.dim() == 1 and len(level) != n:
        raise InputError(f"sigma has {len(level)} entries for {n} voxels; give one number or one a voxel")
    return level.expand(n)
