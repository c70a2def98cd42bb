"""What networks are trained on: tissue whose parameters are known, measured as the data were."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.preparation import Batch, Preparation
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import BoundSignal
from pyroqmri.simulate import add_noise, uniform_axes, uniform_scalars
from pyroqmri.voxel_model import VoxelModel

_ROUNDS = 200  # of redrawing truths that no tissue has


@dataclass(frozen=True)
class Simulation:
    """Settings of the simulated training voxels, as a recipe states them.

    Parameters
    ----------
    voxels
        How many, for training and validation together.
    population
        Folder of a fit with a population, whose sample is the truth; uniform when empty.
    max_signal
        Uniform truths whose noise-free signal rises above so many S0 anywhere are drawn again: a box of
        bounds holds corners that no tissue has.
    """

    voxels: int = 100_000
    population: str = ""
    max_signal: float = 1.0

    def __post_init__(self) -> None:
        if self.voxels < 100:
            raise InputError(f"truth.voxels must be at least 100, got {self.voxels}")


@dataclass(frozen=True)
class Scanner:
    """How the data were measured, for measurements of other tissue to be made alike.

    Parameters
    ----------
    signal
        The signal at the acquisition that the model sees.
    acquisition, preparation
        The scan's own settings, and how its measurements become what the model sees.
    batch
        The data: noise levels, scales and per-voxel inputs are taken from their voxels.
    noise
        ``rician`` or ``gaussian``.
    """

    signal: BoundSignal
    acquisition: Acquisition
    preparation: Preparation
    batch: Batch
    noise: str

    def measure(self, theta: Mapping[str, Tensor], seed: int) -> tuple[Voxels, Tensor]:
        """Noisy voxels of truths ``(N,)`` as the model sees them, and which truths they are of ``(n,)``."""
        n = len(next(iter(theta.values())))
        generator = torch.Generator().manual_seed(seed)
        like = torch.randint(len(self.batch.voxels), (n,), generator=generator)
        full = BoundSignal(
            self.signal.signal,
            self.acquisition,
            self.signal.fixed,
            self.signal.tied,
            self.signal.infer_s0,
            self.signal.ranges,
        )
        reference = self.batch.reference[like]
        inputs = {name: value[like] for name, value in self.batch.voxels.inputs.items()}
        sigma = self.batch.voxels.noise[like, 0] * reference
        clean = full(theta, inputs) * reference.unsqueeze(-1)
        y = add_noise(clean, sigma, self.noise, generator, averages=self.acquisition.n_averages)
        found = self.preparation(y, sigma, self.acquisition, inputs)
        return found.voxels, found.index


def complete(signal: BoundSignal, tissue: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Free scalar parameters with those that are fixed or tied, and directions drawn uniformly where none are given."""
    n = len(next(iter(tissue.values())))
    theta = dict(tissue) | {name: torch.full((n,), value) for name, value in signal.fixed.items()}
    theta |= {name: theta[target] for name, target in signal.tied.items()}
    rng = np.random.default_rng(seed)
    return theta | {p.name: uniform_axes(n, rng) for p in signal.directions if p.name not in theta}


def ranges_of(signal: BoundSignal, given: Mapping[str, Any], batch: Batch) -> dict[str, tuple[float, float]]:
    """Range of each free parameter in the model's units: as given, else its bounds; S0 where the data have it.

    A given range of S0 is in the scan's units.

    Raises
    ------
    InputError
        When a range names no free parameter, or does not lie inside its bounds.
    """
    table = {p.name: p for p in signal.tissue}
    found = {p.name: (p.lower, p.upper) for p in signal.tissue}
    if "S0" in found and signal.infer_s0:
        top = batch.voxels.y.amax(-1).sort().values
        low, high = (float(top[int(q * (len(top) - 1))]) for q in (0.01, 0.99))
        found["S0"] = (max(0.8 * low, 1e-3), min(1.2 * high, table["S0"].upper))
    for name, pair in given.items():
        if name not in table:
            raise InputError(f"range.{name} names no free parameter; there are {', '.join(table)}")
        lower, upper = table[name].lower, table[name].upper
        unit = float(batch.reference[0]) if name == "S0" else 1.0
        numbers = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)
        if not (numbers and lower <= pair[0] / unit < pair[1] / unit <= upper):
            raise InputError(
                f"range.{name} must be [low, high] inside {lower * unit:g}..{upper * unit:g}, got {pair!r}"
            )
        found[name] = (pair[0] / unit, pair[1] / unit)
    return found


def uniform_truth(
    signal: BoundSignal, ranges: Mapping[str, tuple[float, float]], settings: Simulation, batch: Batch, seed: int
) -> dict[str, Tensor]:
    """Parameters of ``settings.voxels`` voxels, uniform in their ranges where the signal stays below its limit."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    n = 0
    for i in range(_ROUNDS):
        draws = torch.rand(settings.voxels, signal.n_tissue, generator=generator).unbind(-1)
        tissue = uniform_scalars(signal.tissue, ranges, draws, signal.box)
        theta = complete(signal, tissue, seed + i)
        like = torch.randint(len(batch.voxels), (settings.voxels,), generator=generator)
        clean = signal(theta, {name: value[like] for name, value in batch.voxels.inputs.items()})
        limit = settings.max_signal * theta.get("S0", torch.ones(()))
        keep = clean.amax(-1) <= limit * (1 + 1e-5)
        for p in signal.tissue:  # a range may lie outside the bounds that the other parameters leave
            low, high = ranges[p.name]
            keep &= (tissue[p.name] >= low) & (tissue[p.name] <= high)
        parts.append(torch.stack(list(tissue.values()), -1)[keep])
        n += len(parts[-1])
        if n >= settings.voxels:
            found = torch.cat(parts)[: settings.voxels]
            return complete(signal, dict(zip(tissue, found.unbind(-1), strict=True)), seed)
    raise InputError(
        f"only {n} of {_ROUNDS * settings.voxels} uniform truths lie in their ranges with a signal below "
        f"truth.max_signal = {settings.max_signal:g} S0; change the ranges or raise it"
    )


def given_truth(signal: BoundSignal, arrays: Mapping[str, Any], scale: float, seed: int) -> dict[str, Tensor]:
    """Truths from arrays ``(N,)`` of each free parameter, a direction ``(N, 3)``; S0 in the scan's units of ``scale``.

    Raises
    ------
    InputError
        When a parameter is missing, or has another length, or leaves its bounds.
    """
    wanted = [p.name for p in signal.tissue]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(f"truth lacks {', '.join(missing)}; it needs {', '.join(wanted)}")
    theta = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in arrays.items()}
    if "S0" in wanted:
        theta["S0"] = theta["S0"] / scale
    n = len(theta[wanted[0]])
    for p in signal.tissue:
        values = theta[p.name]
        if values.shape != (n,) or not bool(((values >= p.lower) & (values <= p.upper)).all()):
            raise InputError(
                f"truth of {p.name} must be {n} numbers inside {p.lower:g}..{p.upper:g} {p.unit}, "
                f"got shape {tuple(values.shape)} from {float(values.min()):g} to {float(values.max()):g}"
            )
    known = {*wanted, *(p.name for p in signal.directions)}
    return complete(signal, {name: theta[name] for name in theta if name in known}, seed)


@torch.no_grad()
def population_truth(signal: BoundSignal, model: VoxelModel, n: int, s0_ratio: float, seed: int) -> dict[str, Tensor]:
    """A sample of the population that a voxel model has learned; ``s0_ratio`` is its unit of S0 over the signal's.

    Raises
    ------
    InputError
        When its free parameters are not the signal's.
    """
    mine, its = ([p.name for p in s.tissue] for s in (signal, model.signal))
    if mine != its or signal.signal is not model.signal.signal:
        raise InputError(
            f"the population is of {model.signal.signal.__name__} with {', '.join(its)}, and the network is of "
            f"{signal.signal.__name__} with {', '.join(mine)}; fit it with the same signal, S0 and fixed parameters"
        )
    with torch.random.fork_rng(devices=[]), pyro.plate("voxels", n):
        torch.manual_seed(seed)
        z = model.prior.latents(model.prior.classes(), Voxels(model.sigma.new_zeros(n, 0)))
    u = model.decoder(z).cpu()
    tissue: dict[str, Tensor] = {}
    for i, p in enumerate(signal.tissue):
        tissue[p.name] = p.constrain(u[:, i], signal.box(p, tissue))
    if "S0" in tissue:
        tissue["S0"] = tissue["S0"] * s0_ratio
    return complete(signal, tissue, seed)
