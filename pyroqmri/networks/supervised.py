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
from pyroqmri.networks.training import NetworkTraining, loss_weights, train
from pyroqmri.networks.training_truth import Scanner
from pyroqmri.progress import progress_bar
from pyroqmri.svi import Trace, seeded


@dataclass(frozen=True)
class TrainingPlan:
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
    learning: NetworkTraining
    relative: Mapping[str, float]
    seed: int
    device: torch.device
    first: ParameterNetwork | None = None


@dataclass
class TrainedNetwork:
    """A trained network with how its training went, time by stage, and what a user should know."""

    network: ParameterNetwork
    trace: Trace
    seconds: dict[str, float]
    notes: list[str]


def train_network(plan: TrainingPlan, progress: bool = False) -> TrainedNetwork:
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
    simulated, index = plan.scanner.measure(plan.truth, plan.seed)
    columns = as_columns(plan.scanner.signal, plan.truth)[index]
    trained = TrainedNetwork(ParameterNetwork(plan.scanner.signal, plan.shape, 1), Trace(), {}, [])
    trained.seconds["simulate"] = time.monotonic() - begin
    with seeded(plan.seed, torch.empty(0, device=plan.device)):
        trained.network, trained.trace = _start(plan, simulated, columns, trained, progress)
        # the best of several starts on the truth is a network on the truth already
        if not trained.trace.step or not isinstance(plan.labels, TruthLabels):
            trained.trace = _goes_on(plan, simulated, columns, trained, progress)
    if not trained.trace.stopped_early:
        trained.trace.not_converged = (
            f"training ended after {plan.learning.epochs} epochs, before its validation loss had stopped falling for "
            f"{plan.learning.patience} epochs; raise training.epochs"
        )
        trained.notes.append(trained.trace.not_converged)
    trained.network = trained.network.cpu().requires_grad_(False)
    return trained


def _weights(plan: TrainingPlan, columns: Tensor, relative: Mapping[str, float]) -> Tensor:
    names = tuple(p.name for p in plan.scanner.signal.tissue)
    return loss_weights(names, columns[:, : len(names)], relative).to(plan.device)


def _start(
    plan: TrainingPlan, simulated: Voxels, columns: Tensor, trained: TrainedNetwork, progress: bool
) -> tuple[ParameterNetwork, Trace]:
    """The network that training starts from: the given one, the best of several on the truth, or random weights."""
    begin = time.monotonic()
    settings, shape = plan.learning, plan.shape
    if plan.first is not None:
        return copy.deepcopy(plan.first).to(plan.device).requires_grad_(True), Trace()
    fresh = ParameterNetwork(copy.deepcopy(plan.scanner.signal), shape, max(1, settings.starts))
    fresh.standardise(plan.scanner.batch.voxels if settings.starts == 0 and plan.labels.from_data else simulated)
    network = fresh.to(plan.device)
    if settings.starts == 0:
        return network, Trace()
    examples = Examples(network.prepare(simulated.to(plan.device)), columns.unsqueeze(1).to(plan.device), (1.0,))
    # only a network on the truth is itself weighted as its recipe says; as a start all parameters count alike
    own = plan.relative if isinstance(plan.labels, TruthLabels) else {}
    weights = _weights(plan, columns, own)

    def best_start() -> dict[str, Tensor]:
        with progress_bar(f"{settings.starts} starts", settings.epochs, progress) as report:
            trace = train(network, TruthLabels(), examples, weights, settings, plan.seed, report)
        table = torch.tensor([trace.step, trace.train, trace.held_out], dtype=torch.float64)
        return {**network.state_dict(), "trace": table, "seconds": torch.tensor(trace.seconds)}

    key = content_key(
        {"learning": asdict(settings), "shape": asdict(shape), "seed": plan.seed, "own": dict(own),
         "device": plan.device.type, "signal": plan.scanner.signal.signal.__name__},
        {"y": simulated.y, "truth": columns} | {f"input.{k}": v for k, v in simulated.inputs.items()},
    )  # fmt: skip
    found = kept("starts", key, best_start)
    table, seconds = found.pop("trace"), float(found.pop("seconds"))
    if len(network.mlp.weights[0]) > 1:
        network.mlp.pick(0)
    network.load_state_dict(found)
    trained.seconds["start"] = time.monotonic() - begin
    step, train_loss, held_out = table.tolist()
    trace = Trace([int(s) for s in step], train_loss, held_out, seconds, len(step) < settings.epochs)
    return network, trace


def _goes_on(plan: TrainingPlan, simulated: Voxels, columns: Tensor, trained: TrainedNetwork, progress: bool) -> Trace:
    """Train the start on the labels of the recipe."""
    begin = time.monotonic()
    signal, network = plan.scanner.signal, trained.network
    voxels = plan.scanner.batch.voxels if plan.labels.from_data else simulated
    examples, left_out = plan.labels.examples(signal, voxels, columns)
    trained.seconds["labels"] = time.monotonic() - begin
    if left_out:
        share = left_out / len(simulated)
        trained.notes.append(f"{left_out} labels ({share:.0%}) lay at a bound or were not found, and were held out")
    examples = examples.to(plan.device)
    examples = replace(examples, voxels=network.prepare(examples.voxels))
    with progress_bar("training", plan.learning.epochs, progress) as report:
        weights = _weights(plan, columns, plan.relative)
        trace = train(network, plan.labels, examples, weights, plan.learning, plan.seed, report)
    trained.seconds["train"] = time.monotonic() - begin - trained.seconds["labels"]
    return trace
