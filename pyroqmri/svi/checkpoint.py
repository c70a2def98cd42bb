"""A training that was interrupted goes on where it was: tensors in safetensors, the rest in its JSON header."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pyroqmri.errors import InputError
from pyroqmri.whole_files import write_bytes


@dataclass(frozen=True)
class TrainingState:
    """What a training changes, but for its own counters.

    Parameters
    ----------
    modules
        What is trained, and whatever else has a state, by name.
    optimizer
        Over parameters of these modules.
    generator
        Draws voxels and noise.
    device
        Where the training runs.
    """

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    device: torch.device

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Parameters that are trained, in the order of the modules."""
        return [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]


def save_checkpoint(path: Path, state: TrainingState, counters: Mapping[str, Any], tag: dict[str, Any]) -> None:
    """Write the state of a training into a file that is the earlier one or the new one, whole.

    Parameters
    ----------
    path
        The file.
    state, counters
        What :func:`load_checkpoint` brings back: the state, and anything that JSON can have.
    tag
        What the training was asked for: the checkpoint is of use to no other.

    Raises
    ------
    OSError
        When it cannot be written, as on a full disk; the earlier file stays.
    """
    tensors = {f"{name}.{k}": v for name, module in state.modules.items() for k, v in module.state_dict().items()}
    for i, p in enumerate(state.parameters):
        for k, v in state.optimizer.state.get(p, {}).items():
            tensors[f"optimizer.{i}.{k}"] = torch.as_tensor(v)
    tensors["random.torch"] = torch.get_rng_state()
    tensors["random.batches"] = state.generator.get_state()
    if state.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(state.device)
    meta = {"tag": json.dumps(tag), **{name: json.dumps(value) for name, value in counters.items()}}
    write_bytes(path, save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, metadata=meta))


def load_checkpoint(path: Path, state: TrainingState, tag: dict[str, Any]) -> dict[str, Any]:
    """Bring a training to the state of a checkpoint; returns the counters that were saved with it.

    Raises
    ------
    InputError
        When the checkpoint is damaged, or belongs to other settings or other data; names the first difference.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is no checkpoint that can be read ({error}); start afresh without --resume"
        ) from error
    other = difference(json.loads(meta.pop("tag")), json.loads(json.dumps(tag)))
    if other:
        raise InputError(
            f"{path} is the checkpoint of other settings or other data: {other}; start afresh without --resume"
        )
    try:
        for name, module in state.modules.items():
            module.load_state_dict(_under(tensors, f"{name}."))
    except RuntimeError as error:
        raise InputError(f"{path} is the checkpoint of another model; start afresh without --resume") from error
    fused = state.optimizer.defaults.get("fused")  # which counts its steps where the parameters are
    for i, p in enumerate(state.parameters):
        found = _under(tensors, f"optimizer.{i}.")
        if found:
            state.optimizer.state[p] = {k: v.to(p.device) if fused or k != "step" else v for k, v in found.items()}
    torch.set_rng_state(tensors["random.torch"])
    state.generator.set_state(tensors["random.batches"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], state.device)
    return {name: json.loads(value) for name, value in meta.items()}


def difference(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> str:
    """The first entry in which two calls differ, in words; empty where they are the same."""
    for name in (*now, *(name for name in before if name not in now)):
        one, other = before.get(name), now.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return difference(one, other, f"{above}{name}.")
        shown = f": {one} then, {other} now" if len(f"{one}{other}") <= 100 else ""
        return f"{above}{name} differs{shown}"
    return ""


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
