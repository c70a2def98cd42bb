"""The training of a denoiser: epochs, and a KL weight that rises by a step in each."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pyroqmri.denoising.autoencoder import Autoencoder
from pyroqmri.denoising.pairs import Pairs, Source
from pyroqmri.errors import InputError
from pyroqmri.progress import progress_bar
from pyroqmri.svi import one_epoch, seeded
from pyroqmri.svi.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from pyroqmri.svi.interrupt import interrupts_between_steps
from pyroqmri.svi.loop import fingerprint


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


class _Loop:
    """State of one training, which a checkpoint keeps and a resumed run goes on from."""

    def __init__(
        self, network: Autoencoder, source: Source, schedule: Schedule, seed: int, device: torch.device
    ) -> None:
        self.network, self.schedule, self.trace = network.to(device), schedule, DenoiserTrace()
        optimizer = torch.optim.Adam(network.parameters(), lr=schedule.lr)
        self.state = TrainingState({"network": network}, optimizer, torch.Generator().manual_seed(seed), device)
        order = torch.randperm(len(source), generator=self.state.generator)
        n_held = int(schedule.held_out * len(source))
        aside, self.source = source.take(order[:n_held]), source.take(order[n_held:])
        # one draw of noise for all epochs
        self.held = aside.epoch(self.state.generator).to(device)

    @property
    def done(self) -> int:
        """Epochs that are over."""
        return len(self.trace.epoch)

    def one_epoch(self, check: Callable[[], None]) -> None:
        """Train on all voxels once, with new noise; ``check`` is called before each batch."""
        generator, device = self.state.generator, self.state.device
        pairs = self.source.epoch(generator).to(device)
        weight = self.schedule.kl_weight(self.done + 1) / self.schedule.loss_scale
        order = torch.randperm(len(pairs), generator=generator).to(device)
        batches = (pairs[index] for index in order.split(self.schedule.batch_size) if check() is None)
        loss = partial(self.network.objective, kl_weight=weight)
        found = one_epoch(self.state.optimizer, loss, batches, epoch=self.done + 1, setting="schedule.lr")
        self._note(pairs, float(found), weight)

    @torch.no_grad()
    def _note(self, pairs: Pairs, objective: float, weight: float) -> None:
        some = torch.arange(min(len(pairs), 4096), device=pairs.noisy.device)
        trace, network, held = self.trace, self.network, self.held
        trace.epoch.append(self.done + 1)
        trace.objective.append(objective)
        trace.reconstruction.append(float(network.reconstruction_loss(pairs[some])))
        trace.held_out.append(float(network.reconstruction_loss(held)) if len(held) else None)
        trace.kl_weight.append(weight)


def _call_tag(source: Source, schedule: Schedule, seed: int) -> dict[str, Any]:
    """What a training was asked for: its checkpoint is of use to no other."""
    drawn = source.epoch(torch.Generator().manual_seed(seed))
    return {"seed": seed, "schedule": asdict(schedule), "data": fingerprint(drawn.noisy)}


def train(
    network: Autoencoder,
    source: Source,
    schedule: Schedule,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> DenoiserTrace:
    """Train a network in place; the same seed gives the same weights on the same machine.

    Parameters
    ----------
    network, source, schedule
        What is trained, on what, and how.
    seed, device, progress
        As in :func:`pyroqmri.fit`.
    checkpoint
        File to write the state to after each epoch.
    resume
        Go on from the checkpoint, if there is one: the end is the same as without the interruption.

    Raises
    ------
    InputError
        When the checkpoint is damaged, or is that of another training.
    TrainingError
        When a loss is not finite; names the epoch.
    """
    begin, device = time.monotonic(), torch.device(device)
    with seeded(seed, torch.empty(0, device=device)), progress_bar("training", schedule.epochs, progress) as report:
        tag = {} if checkpoint is None else _call_tag(source, schedule, seed)
        loop = _Loop(network, source, schedule, seed, device)
        if resume and checkpoint is not None and checkpoint.exists():
            loop.trace = DenoiserTrace(**load_checkpoint(checkpoint, loop.state, tag)["trace"])
        before = loop.trace.seconds
        with interrupts_between_steps() as check_interrupt:
            while loop.done < schedule.epochs:
                loop.one_epoch(check_interrupt)
                loop.trace.seconds = before + time.monotonic() - begin
                if checkpoint is not None:
                    save_checkpoint(checkpoint, loop.state, {"trace": asdict(loop.trace)}, tag)
                report(loop.done, f"loss {loop.trace.reconstruction[-1]:.5f}")
            check_interrupt()
    return loop.trace
