"""What denoisers learn from: noisy measurements and what they should become."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.signals import BoundSignal, SignalModel
from pyroqmri.simulate import add_noise

NOISE_KINDS = ("gaussian", "rician")


@dataclass(frozen=True)
class Pairs:
    """Inputs and targets ``(N, M)``, in units of S0; ``weight`` says which entries of the target count."""

    noisy: Tensor
    target: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noisy)

    def __getitem__(self, index: Tensor) -> "Pairs":
        weight = None if self.weight is None else self.weight[index]
        return Pairs(self.noisy[index], self.target[index], weight)

    def to(self, device: torch.device) -> "Pairs":
        """The same pairs on another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return Pairs(self.noisy.to(device), self.target.to(device), weight)


@dataclass(frozen=True)
class Targets:
    """Where the training's signals come from, as a recipe states it.

    Parameters
    ----------
    source
        ``uniform``: parameters uniform inside their bounds, less those whose signal exceeds S0; ``tissue``:
        the tissue classes of the phantoms; ``fitted``: least squares estimates on the scan; ``scan``:
        no simulation, the scan itself with some of its measurements hidden.
    voxels
        How many are simulated.
    hidden
        Share of the measurements that are hidden from the network when it learns from the scan itself.
    """

    source: str = "uniform"
    voxels: int = 50_000
    hidden: float = 0.2

    def __post_init__(self) -> None:
        if self.source not in ("uniform", "tissue", "fitted", "scan"):
            raise InputError(f"targets.source must be uniform, tissue, fitted or scan, got {self.source!r}")
        if self.voxels < 100:
            raise InputError(f"targets.voxels must be at least 100, got {self.voxels}")
        if not 0 < self.hidden < 1:
            raise InputError(f"targets.hidden must lie between 0 and 1, got {self.hidden:g}")


@dataclass(frozen=True)
class NoiseRange:
    """The noise that is added, as a recipe states it.

    Parameters
    ----------
    kind
        ``rician``, or ``gaussian`` cut off at zero.
    levels
        ``scan``: each simulated voxel takes the noise over S0 of a voxel of the scan;
        ``range``: uniform between ``low`` and ``high``.
    low, high
        The range, in units of S0.
    """

    kind: str = "rician"
    levels: str = "scan"
    low: float = 0.0
    high: float = 0.91

    def __post_init__(self) -> None:
        if self.kind not in NOISE_KINDS:
            raise InputError(f"added_noise.kind must be one of {', '.join(NOISE_KINDS)}, got {self.kind!r}")
        if self.levels not in ("scan", "range"):
            raise InputError(f"added_noise.levels must be scan or range, got {self.levels!r}")
        if not 0 <= self.low <= self.high or self.high == 0:
            raise InputError(
                f"added_noise.low and added_noise.high must be 0 <= low <= high, got {self.low:g} and {self.high:g}"
            )


class Source(ABC):
    """Pairs, drawn afresh for every epoch."""

    @abstractmethod
    def __len__(self) -> int:
        """Voxels."""

    @abstractmethod
    def take(self, index: Tensor) -> "Source":
        """Some of the voxels."""

    @abstractmethod
    def epoch(self, generator: torch.Generator) -> Pairs:
        """The pairs of one epoch."""


class SimulatedPairs(Source):
    """Signals of known parameters with new noise in every epoch, prepared as a scan's measurements are.

    Parameters
    ----------
    clean
        Noise-free measurements ``(N, M)`` over S0.
    levels
        Noise levels over S0 to draw from, ``(K,)``; None draws from the range.
    noise
        Its kind and range.
    preparation, acquisition
        How measurements become inputs: where S0 is measured, noise on the b0s is part of the problem.
    """

    def __init__(
        self,
        clean: Tensor,
        levels: Tensor | None,
        noise: NoiseRange,
        preparation: Preparation,
        acquisition: Acquisition,
    ) -> None:
        self.clean, self.levels, self.noise = clean, levels, noise
        self.preparation, self.acquisition = preparation, acquisition

    def __len__(self) -> int:
        return len(self.clean)

    def take(self, index: Tensor) -> "SimulatedPairs":
        """Some of the signals."""
        return SimulatedPairs(self.clean[index], self.levels, self.noise, self.preparation, self.acquisition)

    def epoch(self, generator: torch.Generator) -> Pairs:
        """All signals, each at a noise level drawn for it."""
        sigma = self._levels(generator)
        y = add_noise(self.clean, sigma, self.noise.kind, generator).clamp_min(0)
        if self.preparation.s0 != "measured":
            return Pairs(y, self.clean)
        batch = self.preparation(y, sigma, self.acquisition)
        reference = batch.reference[:, None]
        return Pairs(y[batch.index] / reference, self.clean[batch.index] / reference)

    def _levels(self, generator: torch.Generator) -> Tensor:
        n = len(self.clean)
        if self.levels is not None:
            return self.levels[torch.randint(len(self.levels), (n,), generator=generator)]
        return self.noise.low + (self.noise.high - self.noise.low) * torch.rand(n, generator=generator)


class ScanPairs(Source):
    """A scan's own voxels, some measurements hidden from the input and asked for in the output.

    Noise that is independent between measurements cannot be predicted from the others, so what can be
    predicted is signal (Batson and Royer 2019, arXiv:1901.11365).
    """

    def __init__(self, y: Tensor, centre: Tensor, hidden: float) -> None:
        self.y, self.centre, self.hidden = y, centre, hidden

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> "ScanPairs":
        """Some of the voxels."""
        return ScanPairs(self.y[index], self.centre, self.hidden)

    def epoch(self, generator: torch.Generator) -> Pairs:
        """All voxels with other measurements hidden."""
        mask = torch.rand(self.y.shape, generator=generator) < self.hidden
        return Pairs(torch.where(mask, self.centre, self.y), self.y, mask.float())


def physical_signals(
    signal: type[SignalModel], acq: Acquisition, theta: Mapping[str, Tensor], inputs: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Noise-free measurements ``(K, M)`` of the voxels whose signal is finite and nowhere above S0."""
    clean = BoundSignal(signal, acq)(theta, inputs).float()
    return clean[(torch.isfinite(clean) & (clean >= 0) & (clean <= 1 + 1e-6)).all(-1)]
