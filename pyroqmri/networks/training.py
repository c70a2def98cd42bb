"""The training loop of networks that answer parameters: Adam, a validation share, early stopping."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyroqmri.errors import InputError, TrainingError
from pyroqmri.networks.labels import Examples, Labels
from pyroqmri.networks.network import ParameterNetwork
from pyroqmri.progress import Report
from pyroqmri.svi import Trace, one_epoch

_BLOCK = 16_384  # validation voxels at a time


@dataclass(frozen=True)
class NetworkTraining:
    """Settings of the loop, as a recipe states them.

    Parameters
    ----------
    epochs, batch_size, lr
        Passes over the training voxels at most, voxels a step, and Adam's learning rate.
    split
        Share of the voxels to train on; the rest is for validation.
    patience
        Epochs without a lower validation loss after which training stops.
    starts
        Networks trained on the truth from different first weights; the best of them is where every other training
        starts. 0 starts at random weights.
    """

    epochs: int = 500
    batch_size: int = 256
    lr: float = 1e-3
    split: float = 0.8
    patience: int = 10
    starts: int = 16

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "patience"):
            if getattr(self, name) <= 0:
                raise InputError(f"training.{name} must be above zero, got {getattr(self, name)}")
        if not 0 < self.split < 1:
            raise InputError(f"training.split must lie between 0 and 1, got {self.split:g}")
        if self.starts < 0:
            raise InputError(f"training.starts must be 0 or more, got {self.starts}")


class _Best:
    """The weights of each network at its lowest validation loss, and which networks have stopped."""

    def __init__(self, network: ParameterNetwork, patience: int) -> None:
        self.network, self.patience = network, patience
        parameters = list(network.parameters())
        self.weights = [p.detach().clone() for p in parameters]
        self.loss = parameters[0].new_full((len(parameters[0]),), torch.inf)
        self.waited = torch.zeros_like(self.loss)
        self.stopped = torch.zeros_like(self.loss, dtype=torch.bool)

    def look(self, loss: Tensor) -> None:
        """Take over weights whose loss is lower than ever."""
        better = (loss < self.loss) & ~self.stopped
        self.loss = torch.where(better, loss, self.loss)
        self.waited = torch.where(better, 0, self.waited + 1)
        self.stopped |= self.waited >= self.patience
        for kept, p in zip(self.weights, self.network.parameters(), strict=True):
            kept.copy_(torch.where(better[:, None, None], p.detach(), kept))

    def restore(self) -> int:
        """Put the best weights back; the number of the best network."""
        for kept, p in zip(self.weights, self.network.parameters(), strict=True):
            p.data.copy_(kept)
        return int(self.loss.argmin())


def train(
    network: ParameterNetwork,
    labels: Labels,
    examples: Examples,
    weights: Tensor,
    settings: NetworkTraining,
    seed: int,
    report: Report,
) -> Trace:
    """Train the K networks side by side, on the same batches, and keep the best of each; then of all.

    Parameters
    ----------
    network
        Trained in place; left with the one network of the lowest validation loss.
    labels, examples, weights
        The loss, what it is of, and the weight of each scalar parameter in it ``(P,)``.
    seed
        Of the split and of the order of the batches.

    Raises
    ------
    InputError
        When there are too few voxels.
    TrainingError
        When every network's loss has left the finite numbers.
    """
    begin = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    device = weights.device
    order = torch.randperm(len(examples), generator=generator).to(device)
    n_train = int(settings.split * len(examples))
    if n_train < 8 or len(examples) - n_train < 2:
        raise InputError(f"only {len(examples)} voxels are left to train a network on; give more")
    train, held = examples[order[:n_train]], examples[order[n_train:]]
    best, trace = _Best(network, settings.patience), Trace()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    size, loss = min(settings.batch_size, n_train), partial(_loss, network, labels, weights)
    for epoch in range(1, settings.epochs + 1):
        shuffled = train[torch.randperm(n_train, generator=generator).to(device)]
        batches = (shuffled[i : i + size] for i in range(0, n_train - size + 1, size))
        total = one_epoch(optimizer, loss, batches, epoch=epoch, setting="training.lr")
        validation = _validation(network, labels, weights, held)
        if not torch.isfinite(validation).any():
            raise TrainingError(f"the validation loss is not finite after epoch {epoch}; lower training.lr")
        best.look(validation)
        leader = int(best.loss.argmin())
        trace.step.append(epoch)
        trace.train.append(float(total[leader]))
        trace.held_out.append(float(validation[leader]))
        report(epoch, f"loss {trace.held_out[-1]:.4g}")
        if best.stopped.all():
            trace.stopped_early = True
            break
    network.mlp.pick(best.restore())
    trace.seconds = time.monotonic() - begin
    return trace


def _loss(network: ParameterNetwork, labels: Labels, weights: Tensor, batch: Examples) -> Tensor:
    """Mean loss of each network ``(K,)``."""
    return labels.loss(network.signal, weights, network(batch.voxels), batch).mean(-1)


@torch.no_grad()
def _validation(network: ParameterNetwork, labels: Labels, weights: Tensor, held: Examples) -> Tensor:
    index = torch.arange(len(held), device=weights.device)
    parts = [index[i : i + _BLOCK] for i in range(0, len(index), _BLOCK)]
    return sum(_loss(network, labels, weights, held[p]) * len(p) for p in parts) / len(held)  # type: ignore[return-value]


def loss_weights(signal_names: tuple[str, ...], truth: Tensor, relative: Mapping[str, float]) -> Tensor:
    """W ``(P,)``: one over each parameter's mean size over the training truths ``(N, P)``, times what a recipe says.

    Raises
    ------
    InputError
        When a weight names no free parameter or is not above zero.
    """
    for name, value in relative.items():
        if name not in signal_names:
            raise InputError(f"weights.{name} names no free parameter; there are {', '.join(signal_names)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InputError(f"weights.{name} must be a number of zero or more, got {value!r}")
    factor = torch.tensor([float(relative.get(name, 1.0)) for name in signal_names])
    return factor / truth.abs().mean(0).clamp_min(1e-6)
