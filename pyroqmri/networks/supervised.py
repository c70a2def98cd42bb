"""From data and a recipe's settings to a trained network: simulate, label, find a start, train."""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from pyroqmri.measurements.voxels import Voxels
from pyroqmri.networks.cache import content_key, kept
from pyroqmri.networks.labels import Examples, Labels, TruthLabels, as_columns
from pyroqmri.networks.network import ParameterNetwork, Shape
from pyroqmri.networks.training import Learning, learn, loss_weights
from pyroqmri.networks.training_truth import Scanner
from pyroqmri.progress import progress_bar
from pyroqmri.svi import Trace, seeded


@dataclass(frozen=True)
class Lesson:
    """What a network is trained on and how.

    Parameters
    ----------
    scanner
        How the data were measured.
    truth
        Parameters of the simulated voxels, each ``(N,)`` and a direction ``(N, 3)``.
    labels, shape, learning
        The settings of the recipe.
    relative
        Weights of parameters in the loss, over the inverse of their means; 1 where none is given.
    seed
        Of the noise, the first weights, the split and the batches.
    device
        Where to train.
    first
        A trained network to start from, in place of starts of its own.
    """

    scanner: Scanner
    truth: Mapping[str, Tensor]
    labels: Labels
    shape: Shape
    learning: Learning
    relative: Mapping[str, float]
    seed: int
    device: torch.device
    first: ParameterNetwork | None = None


@dataclass
class Taught:
    """A trained network with how its training went, time by stage, and what a user should know."""

    network: ParameterNetwork
    trace: Trace
    seconds: dict[str, float]
    notes: list[str]


def teach(lesson: Lesson, progress: bool = False) -> Taught:
    """Train a network: from the best of several starts on the truth, then on the labels of the recipe.

    Networks that are started on the same simulated voxels share the cached start.

    Raises
    ------
    InputError
        When settings do not fit together or too few voxels are left.
    TrainingError
        When training diverges.
    """
    begin = time.monotonic()
    simulated, index = lesson.scanner.measure(lesson.truth, lesson.seed)
    columns = as_columns(lesson.scanner.signal, lesson.truth)[index]
    taught = Taught(ParameterNetwork(lesson.scanner.signal, lesson.shape, 1), Trace(), {}, [])
    taught.seconds["simulate"] = time.monotonic() - begin
    with seeded(lesson.seed, torch.empty(0, device=lesson.device)):
        taught.network, taught.trace = _start(lesson, simulated, columns, taught, progress)
        # the best of several starts on the truth is a network on the truth already
        if not taught.trace.step or not isinstance(lesson.labels, TruthLabels):
            taught.trace = _goes_on(lesson, simulated, columns, taught, progress)
    taught.network = taught.network.cpu().requires_grad_(False)
    return taught


def _weights(lesson: Lesson, columns: Tensor, relative: Mapping[str, float]) -> Tensor:
    names = tuple(p.name for p in lesson.scanner.signal.tissue)
    return loss_weights(names, columns[:, : len(names)], relative).to(lesson.device)


def _start(
    lesson: Lesson, simulated: Voxels, columns: Tensor, taught: Taught, progress: bool
) -> tuple[ParameterNetwork, Trace]:
    """The network that training starts from: the given one, the best of several on the truth, or random weights."""
    begin = time.monotonic()
    settings, shape = lesson.learning, lesson.shape
    if lesson.first is not None:
        return copy.deepcopy(lesson.first).to(lesson.device).requires_grad_(True), Trace()
    fresh = ParameterNetwork(copy.deepcopy(lesson.scanner.signal), shape, max(1, settings.starts))
    fresh.standardise(lesson.scanner.batch.voxels if settings.starts == 0 and lesson.labels.from_data else simulated)
    network = fresh.to(lesson.device)
    if settings.starts == 0:
        return network, Trace()
    examples = Examples(network.prepare(simulated.to(lesson.device)), columns.unsqueeze(1).to(lesson.device), (1.0,))
    # only a network on the truth is itself weighted as its recipe says; as a start all parameters count alike
    own = lesson.relative if isinstance(lesson.labels, TruthLabels) else {}
    weights = _weights(lesson, columns, own)

    def train() -> dict[str, Tensor]:
        with progress_bar(f"{settings.starts} starts", settings.epochs, progress) as report:
            trace = learn(network, TruthLabels(), examples, weights, settings, lesson.seed, report)
        table = torch.tensor([trace.step, trace.train, trace.held_out], dtype=torch.float64)
        return {**network.state_dict(), "trace": table, "seconds": torch.tensor(trace.seconds)}

    key = content_key(
        {"learning": asdict(settings), "shape": asdict(shape), "seed": lesson.seed, "own": dict(own),
         "device": lesson.device.type, "signal": lesson.scanner.signal.signal.__name__},
        {"y": simulated.y, "truth": columns} | {f"input.{k}": v for k, v in simulated.inputs.items()},
    )  # fmt: skip
    found = kept("starts", key, train)
    table, seconds = found.pop("trace"), float(found.pop("seconds"))
    if len(network.mlp.weights[0]) > 1:
        network.mlp.pick(0)
    network.load_state_dict(found)
    taught.seconds["start"] = time.monotonic() - begin
    step, train_loss, held_out = table.tolist()
    trace = Trace([int(s) for s in step], train_loss, held_out, seconds, len(step) < settings.epochs)
    return network, trace


def _goes_on(lesson: Lesson, simulated: Voxels, columns: Tensor, taught: Taught, progress: bool) -> Trace:
    """Train the start on the labels of the recipe."""
    begin = time.monotonic()
    signal, network = lesson.scanner.signal, taught.network
    voxels = lesson.scanner.batch.voxels if lesson.labels.from_data else simulated
    examples, left_out = lesson.labels.examples(signal, voxels, columns)
    taught.seconds["labels"] = time.monotonic() - begin
    if left_out:
        share = left_out / len(simulated)
        taught.notes.append(f"{left_out} labels ({share:.0%}) lay at a bound or were not found, and were held out")
    examples = examples.to(lesson.device)
    examples = replace(examples, voxels=network.prepare(examples.voxels))
    with progress_bar("training", lesson.learning.epochs, progress) as report:
        weights = _weights(lesson, columns, lesson.relative)
        trace = learn(network, lesson.labels, examples, weights, lesson.learning, lesson.seed, report)
    taught.seconds["train"] = time.monotonic() - begin - taught.seconds["labels"]
    return trace
