"""The training of a denoiser: epochs, and a KL weight that rises by a step in each."""

import time
from dataclasses import dataclass, field
from functools import partial

import torch

from pyroqmri.denoising.autoencoder import Autoencoder
from pyroqmri.denoising.pairs import Pairs, Source
from pyroqmri.errors import InputError
from pyroqmri.progress import progress_bar
from pyroqmri.svi import one_epoch, seeded


@dataclass(frozen=True)
class Schedule:
    """Settings of the training, as a recipe states them; defaults are Table 1 of Glaser's report.

    Parameters
    ----------
    epochs, batch_size, lr
        Passes over the training signals, each with new noise; voxels a step; learning rate of Adam.
    kl_start, kl_step, kl_max
        Epoch (counted from 1) at which the weight of the KL term starts to rise, by how much an
        epoch, and to what; ``kl_max`` 0 leaves the term out.
    loss_scale
        Factor on the reconstruction loss, against which the KL weight is to be read. The report does not
        state it; its authors' published training script has 300.
    held_out
        Share of the voxels that is kept aside to test on.
    """

    epochs: int = 40
    batch_size: int = 128
    lr: float = 4e-4
    kl_start: int = 2
    kl_step: float = 1e-4
    kl_max: float = 1.5e-3
    loss_scale: float = 300.0
    held_out: float = 0.2

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "loss_scale"):
            if getattr(self, name) <= 0:
                raise InputError(f"schedule.{name} must be above zero, got {getattr(self, name)}")
        if self.kl_max < 0 or self.kl_step <= 0:
            raise InputError(
                f"schedule.kl_max must not be below zero and schedule.kl_step above it, got {self.kl_max:g} and "
                f"{self.kl_step:g}"
            )
        if not 0 <= self.held_out < 1:
            raise InputError(f"schedule.held_out must be at least 0 and below 1, got {self.held_out:g}")

    def kl_weight(self, epoch: int) -> float:
        """Weight of the KL term in an epoch, counted from 1."""
        return min(self.kl_max, max(0, epoch - self.kl_start + 1) * self.kl_step)


@dataclass
class DenoiserTrace:
    """How training went, one entry an epoch.

    ``objective`` is what was made small, ``reconstruction`` its first term on the training voxels and ``held_out``
    that of the voxels kept aside, both at the latents' means; ``kl_weight`` is the weight of the KL term
    over that of the reconstruction.
    """

    epoch: list[int] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    reconstruction: list[float] = field(default_factory=list)
    held_out: list[float | None] = field(default_factory=list)
    kl_weight: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train(
    network: Autoencoder,
    source: Source,
    schedule: Schedule,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> DenoiserTrace:
    """Train a network in place; the same seed gives the same weights on the same machine.

    Raises
    ------
    TrainingError
        When a loss is not finite; names the epoch.
    """
    begin, trace = time.monotonic(), DenoiserTrace()
    device = torch.device(device)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.lr)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source), generator=generator)
    n_held = int(schedule.held_out * len(source))
    aside, source = source.take(order[:n_held]), source.take(order[n_held:])
    with seeded(seed, torch.empty(0, device=device)), progress_bar("training", schedule.epochs, progress) as report:
        # one draw of noise for all epochs
        held = aside.epoch(generator).to(device)
        for epoch in range(1, schedule.epochs + 1):
            pairs = source.epoch(generator).to(device)
            weight = schedule.kl_weight(epoch) / schedule.loss_scale
            order = torch.randperm(len(pairs), generator=generator).to(device)
            batches = (pairs[index] for index in order.split(schedule.batch_size))
            loss = partial(network.objective, kl_weight=weight)
            objective = float(one_epoch(optimizer, loss, batches, epoch=epoch, setting="schedule.lr"))
            _note(trace, network, pairs, held, objective, weight)
            report(epoch, f"loss {trace.reconstruction[-1]:.5f}")
    trace.seconds = time.monotonic() - begin
    return trace


@torch.no_grad()
def _note(
    trace: DenoiserTrace, network: Autoencoder, pairs: Pairs, held: Pairs, objective: float, weight: float
) -> None:
    some = torch.arange(min(len(pairs), 4096), device=pairs.noisy.device)
    trace.epoch.append(len(trace.epoch) + 1)
    trace.objective.append(objective)
    trace.reconstruction.append(float(network.reconstruction_loss(pairs[some])))
    trace.held_out.append(float(network.reconstruction_loss(held)) if len(held) else None)
    trace.kl_weight.append(weight)
