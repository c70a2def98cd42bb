"""A training that was interrupted goes on where it was: tensors in safetensors, the rest in its JSON header."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.whole_files import write_bytes


def save_checkpoint(path: Path, loop: Any, tag: dict[str, Any]) -> None:
    """Write the state of a loop into a file that is the earlier one or the new one, whole.

    Raises
    ------
    OSError
        When it cannot be written, as on a full disk; the earlier file stays.
    """
    tensors = {f"model.{k}": v for k, v in loop.model.state_dict().items()}
    tensors |= {f"guide.{k}": v for k, v in loop.guide.state_dict().items()}
    for i, p in enumerate(loop.parameters):
        for k, v in loop.optimizer.state.get(p, {}).items():
            tensors[f"optimizer.{i}.{k}"] = torch.as_tensor(v)
    tensors["random.torch"] = torch.get_rng_state()
    tensors["random.batches"] = loop.generator.get_state()
    if loop.voxels.y.is_cuda:
        tensors["random.cuda"] = torch.cuda.get_rng_state(loop.voxels.y.device)
    meta = {
        "tag": json.dumps(tag),
        "step": str(loop.step),
        "running": repr(loop.running),
        "trace": json.dumps(asdict(loop.trace)),
    }
    write_bytes(path, save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, metadata=meta))


def load_checkpoint(path: Path, loop: Any, tag: dict[str, Any]) -> None:
    """Bring a loop to the state that a checkpoint holds.

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
    other = difference(json.loads(meta["tag"]), json.loads(json.dumps(tag)))
    if other:
        raise InputError(
            f"{path} is the checkpoint of other settings or other data: {other}; start afresh without --resume"
        )
    try:
        loop.model.load_state_dict(_under(tensors, "model."))
        loop.guide.load_state_dict(_under(tensors, "guide."))
    except RuntimeError as error:
        raise InputError(f"{path} is the checkpoint of another model; start afresh without --resume") from error
    for i, p in enumerate(loop.parameters):
        state = _under(tensors, f"optimizer.{i}.")
        if state:
            loop.optimizer.state[p] = {k: v.to(p.device) for k, v in state.items()}
    torch.set_rng_state(tensors["random.torch"])
    loop.generator.set_state(tensors["random.batches"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], loop.voxels.y.device)
    loop.step, loop.running = int(meta["step"]), float(meta["running"])
    loop.trace = type(loop.trace)(**json.loads(meta["trace"]))


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
