"""From measurements to a trained denoiser, and from a denoiser to denoised measurements."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.denoising.autoencoder import Autoencoder
from pyroqmri.denoising.latents import Latents, describe_latents
from pyroqmri.denoising.pairs import NoiseRange, Targets
from pyroqmri.denoising.training import DenoiserTrace
from pyroqmri.measurements.arguments import as_level, as_measurements
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import Batch, Preparation
from pyroqmri.progress import progress_bar
from pyroqmri.recipe import Recipe

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
        Status code of each voxel ``(N,)``: see
        :data:`pyroqmri.measurements.status.STATUS`. A voxel with NaN or without signal
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
        y = as_measurements(y, self.acquisition)
        level = level_of_each(self.noise.level if sigma is None else sigma, len(y))
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
        y = as_measurements(y, self.acquisition)
        level = level_of_each(self.noise.level if sigma is None else sigma, len(y))
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
        y = as_measurements(y, self.acquisition)
        _, seen = self.prepare(y[:: max(1, len(y) // _LATENT_VOXELS)])
        return describe_latents(self.network.cpu(), seen)

    def save(self, folder: str | Path) -> None:
        """Write ``recipe.toml``, ``weights.safetensors`` and ``fit.json``."""
        from pyroqmri.denoising.saved import save_denoiser

        save_denoiser(self, Path(folder))


def network_input(y: Tensor, batch: Batch) -> Tensor:
    """All measurements of a batch's voxels over their reference ``(n, M)``, none below zero."""
    return y[batch.index].clamp_min(0) / batch.reference[:, None]


def level_of_each(level: Any, n: int) -> Tensor:
    """Noise level of each of ``n`` voxels ``(N,)``, of one number or one a voxel."""
    return as_level(level, n).expand(n)
