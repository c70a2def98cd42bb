"""Blocks of an image's voxels, mapped one after another or by several processes at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyroqmri.commands.processes import run_here
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import Nearby
from pyroqmri.measurements.voxel_inputs import complete_inputs
from pyroqmri.networks.network import NetworkEstimates
from pyroqmri.posterior.estimates import at_bound
from pyroqmri.posterior.posterior import QUANTILES, Posterior
from pyroqmri.posterior.voxel_sample import VoxelSample, VoxelSampler
from pyroqmri.voxelwise.estimates import PointEstimates

BLOCK = 16_384  # voxels; their copies stay below the size of one volume
CONE = 0.9
_LEAST = 1000  # voxels of a block: starting a process costs as much as mapping some thousand


@dataclass
class Block:
    """What maps show of some voxels ``(n,)``: every array by what it is, and a few counts.

    ``kind`` is the class of the estimates, None where no voxel can be fitted.
    """

    status: Tensor
    kind: type | None = None
    has_sd: bool = False
    n_fitted: int = 0
    n_at_bound: Mapping[str, int] = field(default_factory=dict)
    n_beyond_bound: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    sample: VoxelSample | None = None


@dataclass
class _Task:
    """Voxels of one block and the fit that maps them; what a process is handed."""

    fit: Fit
    y: Tensor
    sigma: Tensor
    complete: dict[str, Any]
    known: dict[str, Any]
    khat: bool
    nearby: Nearby | None
    chosen: NDArray[np.bool_] | None


@dataclass
class Blocks:
    """The voxels ``(N, M)`` of an image and what maps them; arguments as of ``summarise``."""

    fit: Fit
    y: Tensor
    sigma: Any
    inputs: dict[str, Any]
    khat: bool = False
    nearby: Nearby | None = None
    chosen: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        self.n = len(self.y)
        self.complete = complete_inputs(self.fit.signal.signal, self.inputs, self.n)
        self.level = torch.as_tensor(self.fit.noise.level if self.sigma is None else self.sigma, dtype=torch.float32)

    def run(self, jobs: int = 1) -> Iterator[tuple[slice, Block]]:
        """Every block with its place, in the order in which they are done; by ``jobs`` processes."""
        on_gpu = self.fit.model is not None and self.fit.model.sigma.is_cuda  # one process fills it
        tasks = _Tasks(self, min(BLOCK, max(_LEAST, -(-self.n // jobs))))
        if min(jobs, len(tasks)) <= 1 or on_gpu:
            yield from ((tasks.place(i), mapped(tasks[i])) for i in range(len(tasks)))
            return
        for outcome in run_here(_mapped_alone, tasks, jobs):
            where = tasks.place(outcome.index)
            if outcome.result is None:
                raise InputError(
                    f"voxels {where.start} to {where.stop - 1} were not mapped by a process of their own "
                    f"({outcome.lost}); give fewer --jobs, or leave them out"
                )
            yield where, outcome.result


class _Tasks(Sequence[_Task]):
    """Blocks of ``size`` voxels, each cut out when it is asked for."""

    def __init__(self, blocks: Blocks, size: int) -> None:
        self.blocks, self.size = blocks, size

    def __len__(self) -> int:
        return -(-self.blocks.n // self.size)

    def place(self, index: int) -> slice:
        """Where block ``index`` lies."""
        return slice(index * self.size, min((index + 1) * self.size, self.blocks.n))

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        b, where = self.blocks, self.place(index)
        level = b.level[where] if b.level.dim() else b.level
        complete, known = ({name: value[where] for name, value in some.items()} for some in (b.complete, b.inputs))
        nearby = None if b.nearby is None else b.nearby.at(where)
        chosen = None if b.chosen is None else b.chosen[where].copy()
        return _Task(b.fit, b.y[where].clone(), level.clone(), complete, known, b.khat, nearby, chosen)


def mapped(task: _Task) -> Block:
    """What maps show of the voxels of a task."""
    fit = task.fit
    batch = fit.preparation(task.y, task.sigma, fit.acquisition, task.complete)
    if len(batch.voxels) == 0:  # a block of background has nobody to ask
        return Block(batch.status)
    neighbours = True if task.nearby is None else task.nearby
    part = fit.posterior(task.y, sigma=task.sigma, inputs=task.known, neighbours=neighbours)
    sampler = None if task.chosen is None else VoxelSampler(part, task.chosen)
    n_at_bound = {name: int(bound.sum()) for name, bound in at_bound(part).items()}
    n_beyond_bound = {name: int(bound.sum()) for name, bound in part.beyond_bounds().items()}
    arrays = {key: values.float() for key, values in _arrays(part, task.khat) if values is not None}
    kind = next((kind for kind in (PointEstimates, NetworkEstimates, Posterior) if isinstance(part, kind)), type(part))
    sample = None if sampler is None else sampler.sample()
    return Block(part.status, kind, part.has_sd, len(part.batch.index), n_at_bound, n_beyond_bound, arrays, sample)


def _mapped_alone(task: _Task) -> Block:
    torch.set_num_threads(1)  # the others have the other cores
    return mapped(task)


def _arrays(part: Any, khat: bool) -> Iterator[tuple[str, Tensor | None]]:
    found = {"mean": part.mean}
    if part.has_sd:
        found |= {"sd": part.sd} | {str(q): part.quantile(q) for q in QUANTILES}
    for stat, values in found.items():
        yield from ((f"{stat} {name}", values[name]) for name in part.names)
    yield from part.goodness_of_fit.found().items()
    yield from ((f"axis {name}", axis) for name, axis in part.axes.items())
    yield "responsibilities", part.responsibilities
    yield from ((f"contraction {name}", values) for name, values in part.contraction.items())
    yield from ((f"neighbours {name}", values) for name, values in getattr(part, "neighbours", {}).items())
    yield "alone", getattr(part, "alone", None)
    if hasattr(part, "cone"):
        yield from ((f"cone {p.name}", part.cone(CONE, p.name)) for p in part.signal.axes)
    # where voxels are reweighted the weights are there, and so is their shape
    if getattr(part, "has_khat", False) or (khat and hasattr(part, "khat")):
        yield "khat", part.khat
