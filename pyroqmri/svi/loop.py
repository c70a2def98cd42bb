"""The training loop, once."""

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyroqmri.errors import InputError, TrainingError
from pyroqmri.guides import Guide
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.progress import progress_bar
from pyroqmri.svi.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from pyroqmri.svi.interrupt import interrupts_between_steps
from pyroqmri.svi.trace import Trace
from pyroqmri.voxel_model import VoxelModel

N_WATCHED, N_GROUPS = 512, 8  # voxels by whose loss a training is judged, in so many groups


@dataclass(frozen=True)
class Training:
    """Settings of the loop, as a recipe states them.

    Parameters
    ----------
    steps, batch_size
        Gradient steps at most, and voxels in each.
    lr, lr_population, lr_decoder
        Learning rates of the guide, of prior and noise, and of the decoder.
    lr_decay
        Last learning rate over first; it falls geometrically.
    clip
        Largest norm of the gradient of the loss a voxel.
    kl_weight, kl_warmup
        Final weight of the KL term, and steps over which it rises to it from near zero.
    n_particles
        Draws of the latent a step.
    held_out, check_every, patience, min_gain
        Voxels kept aside (at most a tenth; none where the population has a posterior of its own), steps between
        looks at their ELBO, and looks without a gain of ``min_gain`` nats a voxel after which training stops;
        patience 0 never stops.
    checkpoint_every
        Steps between checkpoints, when there is a place for them.
    """

    steps: int = 1000
    batch_size: int = 1024
    lr: float = 5e-3
    lr_population: float = 2e-2
    lr_decoder: float = 2e-3
    lr_decay: float = 0.01
    clip: float = 10.0
    kl_weight: float = 1.0
    kl_warmup: int = 0
    n_particles: int = 1
    held_out: int = 512
    check_every: int = 50
    patience: int = 0
    min_gain: float = 0.01
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "check_every", "n_particles", "checkpoint_every", "lr", "clip", "lr_decay"):
            if getattr(self, name) <= 0:
                raise InputError(f"training.{name} must be above zero, got {getattr(self, name)}")


class KLWeight(Messenger):
    """Scale what is not observed: the KL term of the ELBO, in model and guide alike."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


class SVILoop:
    """State of one training: what a checkpoint holds and a resumed run goes on from."""

    def __init__(self, model: VoxelModel, guide: Guide, voxels: Voxels, training: Training, seed: int) -> None:
        self.model, self.guide, self.training = model, guide, training
        # the posterior of a population is that of the voxels it was trained on: it needs all of them
        n_held = 0 if model.prior.follows_draws else min(training.held_out, len(voxels) // 10)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(voxels), generator=generator).to(voxels.y.device)
        self.held, self.voxels = voxels[order[:n_held]], voxels[order[n_held:]]
        # a handful kept aside shows no small fall; the training's own voxels do, each with several draws where few
        rows = torch.arange(N_WATCHED, device=voxels.y.device) % len(self.voxels)
        self.watched = self.held if n_held >= N_WATCHED // 2 else self.voxels[rows]
        self.generator = generator
        self.running: float | None
        self.step, self.running, self.trace = 0, None, Trace()
        self.objective = guide.objective(training.n_particles)
        self.optimizer = torch.optim.Adam(self._groups(), fused=True)
        modules = {"model": model, "guide": guide}
        self.state = TrainingState(modules, self.optimizer, generator, voxels.y.device)
        self.parameters = self.state.parameters

    def _groups(self) -> list[dict[str, Any]]:
        t, model = self.training, self.model
        groups = [
            ([*model.prior.parameters(), *model.likelihood.parameters()], t.lr_population),
            (list(model.decoder.parameters()), t.lr_decoder),
            (list(self.guide.parameters()), t.lr),
        ]
        return [{"params": p, "lr": lr, "first_lr": lr} for p, lr in groups if p]

    def loss(self, voxels: Voxels, weight: float = 1.0) -> Tensor:
        """Minus ELBO a voxel of a batch that stands for all training voxels."""
        size = max(len(self.voxels), 1)
        if weight == 1.0:
            return self.objective(self.model, self.guide, voxels, size=size) / size
        with KLWeight(weight):
            return self.objective(self.model, self.guide, voxels, size=size) / size

    def one_step(self) -> None:
        """Draw a batch and follow its gradient."""
        t = self.training
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_lr"] * t.lr_decay ** (self.step / t.steps)
        self.model.prior.anneal(self.step / t.steps)
        batch = self.batch()
        loss = self.loss(batch, self.kl_weight())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, t.clip)
        value = float(loss.detach())
        if not (torch.isfinite(norm) and value == value and abs(value) != float("inf")):
            raise TrainingError(self._where_not_finite(batch))
        self.optimizer.step()
        self.step += 1
        self.running = value if self.running is None else 0.95 * self.running + 0.05 * value

    def batch(self) -> Voxels:
        """Voxels drawn with replacement, or all of them where a batch has room for them."""
        n, size = len(self.voxels), self.training.batch_size
        if n <= size:
            return self.voxels
        return self.voxels[torch.randint(n, (size,), generator=self.generator).to(self.voxels.y.device)]

    def kl_weight(self) -> float:
        """Weight of the KL term at this step."""
        t = self.training
        rise = 1.0 if t.kl_warmup == 0 else min(1.0, (self.step + 1) / t.kl_warmup)
        return t.kl_weight * rise

    def losses(self, voxels: Voxels, n_groups: int = 1) -> list[float]:
        """Loss of each group of some voxels, with the same noise at every look; empty when there are no voxels."""
        if len(voxels) == 0:
            return []
        groups = [voxels[torch.arange(i, len(voxels), n_groups, device=voxels.y.device)] for i in range(n_groups)]
        with torch.random.fork_rng(devices=cuda_devices(voxels.y)):
            torch.manual_seed(0)
            # not under no_grad: TraceEnum_ELBO refuses a loss that has no gradient
            return [float(self.loss(group).detach()) for group in groups]

    def _where_not_finite(self, batch: Voxels) -> str:
        with torch.no_grad():
            guide = pyro.poutine.trace(self.guide).get_trace(batch)
            model = pyro.poutine.trace(pyro.poutine.replay(self.model, guide)).get_trace(batch)
        for trace in (guide, model):
            for name, site in trace.nodes.items():
                if site["type"] != "sample":
                    continue
                if not torch.isfinite(torch.as_tensor(site["value"])).all():
                    return f"the value of site {name!r} is not finite at step {self.step}; lower training.lr"
                if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                    return f"the log-probability of site {name!r} is not finite at step {self.step}; lower training.lr"
        return f"a gradient is not finite at step {self.step}, though every site is; lower training.lr"

    def plateau(self) -> bool:
        """Whether the held-out loss has stopped falling."""
        t, losses = self.training, self.trace.held_out
        if not t.patience or len(losses) <= t.patience or self.step < t.kl_warmup:
            return False
        return min(losses[: -t.patience]) - min(losses[-t.patience :]) < t.min_gain

    def look(self) -> None:
        """Write the losses down, and see whether there is more to gain."""
        trace = self.trace
        trace.step.append(self.step)
        trace.train.append(float("nan") if self.running is None else self.running)
        trace.held_out.append((self.losses(self.held) or [float("nan")])[0])
        late = self.losses(self.watched, N_GROUPS) if 2 * self.step >= self.training.steps else []
        trace.watched.append(late if all(map(math.isfinite, late)) else [])
        trace.stopped_early = self.plateau()

    def keep(self, path: Path, tag: dict[str, Any]) -> None:
        """Write a checkpoint."""
        counters = {"step": self.step, "running": self.running, "trace": asdict(self.trace)}
        save_checkpoint(path, self.state, counters, tag)

    def go_on(self, path: Path, tag: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        found = load_checkpoint(path, self.state, tag)
        self.step, self.running, self.trace = found["step"], found["running"], Trace(**found["trace"])


def cuda_devices(tensor: Tensor) -> list[int]:
    """The CUDA device of a tensor, as torch's seed guards want it."""
    return [tensor.device.index or 0] if tensor.device.type == "cuda" else []


def fingerprint(y: Tensor) -> str:
    """Checksum of a thousand voxels' measurements: tells other data apart without reading all of them."""
    some = y[:: max(1, len(y) // 1000)].detach().cpu().contiguous()
    return hashlib.sha256(some.numpy().tobytes()).hexdigest()


def call_tag(model: VoxelModel, voxels: Voxels, training: Training, seed: int) -> dict[str, Any]:
    """What a training was asked for: a checkpoint is of use to no other."""
    settings = model.signal.acquisition.settings()
    return {
        "seed": seed,
        "n_voxels": len(voxels),
        "data": fingerprint(voxels.y),
        "sigma": None if voxels.sigma is None else fingerprint(voxels.sigma),
        "protocol": {name: fingerprint(value) for name, value in settings.items()},
        "training": asdict(training),
    }


@contextmanager
def seeded(seed: int, like: Tensor) -> Iterator[None]:
    """Draw from a seed and leave the caller's random state, and Pyro's validation, as they were."""
    with torch.random.fork_rng(devices=cuda_devices(like)), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        yield


def fit_svi(
    model: VoxelModel,
    guide: Guide,
    voxels: Voxels,
    training: Training,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Trace:
    """Train a pair by stochastic variational inference.

    Parameters
    ----------
    model, guide
        The Pyro pair, trained in place.
    voxels
        Training voxels as ``guide.prepare`` left them, in memory.
    training
        Settings of the loop.
    seed
        The same seed gives the same weights on the same machine.
    checkpoint
        File to write the state to now and then.
    resume
        Go on from the checkpoint, if there is one: the end is the same as without the interruption.
    progress
        Show a bar.

    Raises
    ------
    TrainingError
        When a loss or a gradient is not finite; names the site and the step.
    """
    begin = time.monotonic()
    with seeded(seed, voxels.y):
        loop = SVILoop(model, guide, voxels, training, seed)
        tag = call_tag(model, voxels, training, seed)
        if resume and checkpoint is not None and checkpoint.exists():
            loop.go_on(checkpoint, tag)
        keep = None if checkpoint is None else lambda: loop.keep(checkpoint, tag)
        before = loop.trace.seconds
        bar = progress_bar("training", training.steps, progress)
        with interrupts_between_steps() as check_interrupt, bar as report:
            while loop.step < training.steps and not loop.trace.stopped_early:
                loop.one_step()
                report(loop.step, f"loss {loop.running:.3f}")
                if loop.step % training.check_every == 0 or loop.step == training.steps:
                    loop.look()
                loop.trace.seconds = before + time.monotonic() - begin
                ends = loop.step == training.steps or loop.trace.stopped_early
                if keep is not None and (ends or loop.step % training.checkpoint_every == 0):
                    keep()
                check_interrupt(keep)
    loop.trace.judge()
    return loop.trace
