"""Voxels of one image to train the cohort's fit on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.cohort.attempt import Log, attempt
from pyroqmri.cohort.map_image import one_image
from pyroqmri.cohort.record import STATE, WAITING, Record, input_record, same_inputs
from pyroqmri.cohort.task import Task
from pyroqmri.whole_files import whole_file

_SETTING, _INPUT = "setting ", "input "


@dataclass(frozen=True)
class Sample:
    """Voxels of one image: ``y`` ``(n, M)`` in its units, their noise level ``(n,)``, the ``scale`` of the units.

    ``subject`` is the label of whom they are; ``inputs`` are weights ``(n, M)`` of the measurements and deviations
    ``(n, 3, 3)`` of the gradients, where there are any.
    """

    label: str
    subject: str
    y: np.ndarray
    sigma: np.ndarray
    scale: float
    acquisition: Acquisition
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)


def sample_image(task: Task) -> Record:
    """Draw voxels of an image and keep them for the training; drawn already from these very files, nothing is done."""
    return attempt(task, "sampling", _sampled)


def sample_path(out: Path, label: str) -> Path:
    """Where the voxels of an image are kept."""
    return out / STATE / "samples" / f"{label}.npz"


def is_sampled(task: Task) -> bool:
    """Whether the voxels that are kept are those that would be drawn."""
    try:
        with np.load(sample_path(task.out, task.image.label), allow_pickle=False) as found:
            key, names, sums = str(found["key"]), found["inputs"].tolist(), found["sums"].tolist()
            stats = found["stats"].tolist()
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return False
    before = {
        name: {"sha256": one, "size": stat[0], "mtime_ns": stat[1]}
        for name, one, stat in zip(names, sums, stats, strict=True)
    }
    return key == task.key and same_inputs(task.image, before)


def read_sample(out: Path, label: str, subject: str) -> Sample:
    """The voxels of an image that :func:`sample_image` kept."""
    with np.load(sample_path(out, label), allow_pickle=False) as found:
        settings = {
            name.removeprefix(_SETTING): torch.from_numpy(found[name]) for name in found if name.startswith(_SETTING)
        }
        acquisition = Acquisition.trusted(**settings)
        own = {name.removeprefix(_INPUT): found[name] for name in found if name.startswith(_INPUT)}
        return Sample(label, subject, found["y"], found["sigma"], float(found["scale"]), acquisition, own)


def _sampled(task: Task, log: Log) -> Record:
    from pyroqmri.commands.noise import given_noise
    from pyroqmri.fitting.scan_scale import image_scale
    from pyroqmri.fitting.train import fit

    inputs, signal = input_record(task.image), task.reading.signal
    with one_image(task, log) as path:
        scan = task.reading.files(path, task.image).read(signal)
    index = _chosen(scan.y, task)
    y = scan.y[index]
    level: Any = given_noise(scan, task.reading.sigma, coils=task.reading.coils)
    level = level.of(index) if hasattr(level, "of") else level[index] if isinstance(level, np.ndarray) else level
    position, own = np.argwhere(scan.mask)[index], {name: value[index] for name, value in scan.inputs.items()}
    # the noise level is settled as for a fit of this image alone
    alone = fit(y, scan.acquisition, signal=signal, recipe="least_squares", sigma=level, voxels=position, inputs=own)
    sigma = np.broadcast_to(np.asarray(alone.noise.level, dtype=np.float32), len(y))
    settings = {f"{_SETTING}{name}": value.numpy() for name, value in scan.acquisition.settings().items()}
    arrays = {"y": y, "sigma": sigma, "scale": image_scale(scan.y, scan.acquisition, signal), **settings}
    _keep(task, inputs, arrays | {f"{_INPUT}{name}": value for name, value in own.items()})
    log(f"{len(y)} of {len(scan.y)} voxels, noise level {float(np.median(sigma)):.4g}: {alone.noise.note}")
    return replace(Record.of(task.image, WAITING, "sampled for the training"), inputs=inputs)


def _chosen(y: np.ndarray, task: Task) -> np.ndarray:
    """Voxels with a signal, drawn by the image's label alone, so that every run draws the same."""
    usable = np.flatnonzero(np.isfinite(y).all(1) & (y > 0).any(1))
    seed = int.from_bytes(hashlib.sha256(task.image.label.encode()).digest()[:4], "big")
    n = min(task.n_voxels, len(usable))
    return np.sort(np.random.default_rng(seed).choice(usable, n, replace=False))


def _keep(task: Task, inputs: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, Any]) -> None:
    path = sample_path(task.out, task.image.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    stats = np.array([(one["size"], one["mtime_ns"]) for one in inputs.values()], dtype=np.int64)
    sums = [one["sha256"] for one in inputs.values()]
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, key=task.key, inputs=list(inputs), sums=sums, stats=stats, **arrays)
