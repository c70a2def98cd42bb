"""A scan's files, and the noise level as the caller gives it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri.commands.left_out import LeaveOut, number_ranges, option
from pyroqmri.commands.outlier_volumes import OUTLIERS, drop_volumes, outlier_note
from pyroqmri.commands.own_protocol_files import plausible, read_grad_dev, read_weights
from pyroqmri.commands.protocol_files import PathLike, ProtocolFiles
from pyroqmri.commands.s0_volumes import volume_warnings
from pyroqmri.commands.sidecar_runs import run_sentences
from pyroqmri.errors import InputError
from pyroqmri.io import Scan, read_map, read_scan
from pyroqmri.io.directions import undirected_volumes
from pyroqmri.io.sidecars import averages_note, stated_beside
from pyroqmri.io.units import input_in_unit
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.own_protocol import WEIGHTS
from pyroqmri.measurements.voxel_inputs import is_factor
from pyroqmri.protocol_checks.ceiling import cut_off
from pyroqmri.protocol_checks.file_names import judge_files
from pyroqmri.protocol_checks.order import against_decay
from pyroqmri.protocol_checks.phase import refuse_phase
from pyroqmri.protocol_checks.reach import beyond_reach
from pyroqmri.protocol_checks.settings import unused_settings
from pyroqmri.signals import SIGNALS, SignalModel

TRAINING_VOXELS = 100_000  # a population is learned from no more; maps are made of all
NOISE_VOXELS = 60_000


@dataclass(frozen=True)
class ScanFiles(ProtocolFiles):
    """An image and the files of its settings; those that are None are looked for beside it.

    ``inputs`` are maps of the signal's per-voxel inputs, by name, such as ``{"B1": "b1.nii.gz"}``; ``drop`` are
    volumes to leave out: ``outliers``, or numbers from 0 on such as ``12,40-45``; ``bmax`` is a limit on b (s/mm2);
    ``resample`` interpolates masks and maps that lie on another grid than the image, which are refused otherwise.
    ``weights`` is an image of the volumes' weights in each voxel, ``grad_dev`` one of the gradients' deviations.
    """

    image: PathLike
    _: KW_ONLY
    json: PathLike | None = None
    mask: PathLike | None = None
    inputs: Mapping[str, PathLike] = field(default_factory=dict)
    drop: str | None = None
    bmax: float | None = None
    resample: bool = False
    weights: PathLike | None = None
    grad_dev: PathLike | None = None

    @classmethod
    def of(cls, files: "ScanFiles | PathLike") -> "ScanFiles":
        """Files as they are; of an image alone, all the others are looked for beside it."""
        return files if isinstance(files, ScanFiles) else cls(files)

    def read(self, signal: str | Sequence[str], earlier: Mapping[str, Any] | None = None) -> Scan:
        """Read what a signal or each of several needs, without the volumes to leave out, and judge what was read.

        Parameters
        ----------
        signal
            As in :func:`pyroqmri.fit`.
        earlier
            What a fit that is used again was trained without (:func:`pyroqmri.commands.left_out.left_out_record`).

        Raises
        ------
        InputError
            When a file is wrong, or no voxel of the mask can be fitted.
        """
        signals = [signal] if isinstance(signal, str) else list(dict.fromkeys(signal))
        models = [SIGNALS[name] for name in signals]
        _check_names(models, self.inputs)
        leave_out = LeaveOut(None if self.drop == OUTLIERS else self.drop, self.bmax, earlier or {})
        scan = read_scan(
            self.image, mask=self.mask, json=self.json, need=_union(m.requires for m in models),
            optional=_union(m.optional for m in models), leave_out=leave_out, resample=self.resample, **self.settings,
        )  # fmt: skip
        scan, weights = self._weighted(self._with_averages(scan))
        scan.notes.extend(leave_out.notes(scan))
        for name in signals:
            scan.warnings.extend(judge_files(self.image, name, self.json))
        _check_usable(scan)
        refuse_phase(scan.y, scan.background, Path(self.image).name)
        _leave_out_cut_off(scan)
        for model in models:
            scan.acquisition.require(*model.requires)  # directions too, of the volumes that are left
        scan.warnings.extend(undirected_volumes(scan.acquisition))
        for name, path in self.inputs.items():
            positive = any(is_factor(m, name) for m in models if name in m.inputs)
            values, notes, doubted = read_map(
                path, scan.ref, scan.mask, f"input {name}", resample=self.resample, positive=positive
            )
            stated = str(stated_beside(path).get("Units", ""))
            scan.inputs[name], said, unsure = input_in_unit(name, values, Path(path).name, stated)
            scan.notes.extend([f"{name} read from {Path(path).name}", *notes, *said])
            scan.warnings.extend([*doubted, *unsure])
        missing = {name: m.default_input(name) for m in models for name in m.inputs if name not in self.inputs}
        scan.notes.extend(f"no map of {name} was given: it is {value:g} everywhere" for name, value in missing.items())
        if self.grad_dev is not None:
            read_grad_dev(self.grad_dev, scan, self.resample)
        scan = self._judged(scan, signals)
        if weights is not None:
            scan.inputs[WEIGHTS] = np.ascontiguousarray(weights[:, scan.numbers])
        return scan

    def _weighted(self, scan: Scan) -> tuple[Scan, np.ndarray | None]:
        """The scan without what does not count, and the weights of all volumes of the file; None without any."""
        if self.weights is None:
            return scan, None
        weights = read_weights(self.weights, scan, self.resample)
        return replace(scan, y=plausible(scan, weights[:, scan.numbers])), weights

    def refuse_own_protocol(self, command: str) -> None:
        """Raise InputError where a command cannot use weights or deviations of gradients, and they are given."""
        for name, value in (("--weights", self.weights), ("--grad-dev", self.grad_dev)):
            if value is not None:
                raise InputError(f"{command} does not take {name}; leave it out, or fit with it")

    def _judged(self, scan: Scan, signals: Sequence[str]) -> Scan:
        """The scan with what its volumes say of one another, and without outliers where that is asked for."""
        found = volume_warnings(scan)
        notes, stated = run_sentences(scan, self.json, bool(found))
        scan.notes.extend(notes)
        each = [f(scan.acquisition, signal) for signal in signals for f in (unused_settings, beyond_reach)]
        turned = against_decay(scan.y, scan.acquisition)
        scan.warnings.extend([*turned, *found, *stated, *(sentence for some in each for sentence in some)])
        if self.drop == OUTLIERS:
            return drop_volumes(scan, signals[0], OUTLIERS)
        # where whole runs are apart, residuals of single volumes mean nothing
        scan.warnings.extend([] if self.drop is not None or found or turned else outlier_note(scan, signals[0]))
        return scan

    def _with_averages(self, scan: Scan) -> Scan:
        """The scan with the averages that were given; where none were, a note names those of the sidecar."""
        if self.averages is None:
            scan.notes.extend(averages_note(self.image, self.json))
            return scan
        whole = self.averaged(scan.acquisition if scan.whole is None else scan.whole)
        kept = whole if scan.whole is None else whole[torch.from_numpy(scan.numbers)]
        return replace(scan, acquisition=kept, whole=None if scan.whole is None else whole)

    @property
    def given(self) -> list[PathLike]:
        """Every file that was named."""
        averages = None if isinstance(self.averages, int | float) else self.averages
        own = (self.weights, self.grad_dev)
        files = (self.image, *self.settings.values(), averages, self.json, self.mask, *self.inputs.values(), *own)
        return [path for path in files if path is not None]


def _union(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))


def _check_names(models: Sequence[type[SignalModel]], inputs: Mapping[str, PathLike]) -> None:
    known = _union(model.inputs for model in models)
    for name in inputs:
        if name not in known:
            has, their = ("has", "its") if len(models) == 1 else ("have", "their")
            who = " and ".join(model.__name__ for model in models)
            listed = ", ".join(known) if known else "none"
            raise InputError(f"{who} {has} no input {name!r}; {their} inputs are: {listed}")
    for model in models:
        for name in model.inputs:
            if name not in inputs and model.default_input(name) is None:
                raise InputError(f"{model.__name__} needs a map of {name}; give it with --input {name}=FILE")


def _check_usable(scan: Scan) -> None:
    if any(_usable(scan.y[i : i + NOISE_VOXELS]) for i in range(0, len(scan.y), NOISE_VOXELS)):
        return
    lost = ~np.isfinite(scan.y[:NOISE_VOXELS]).any(0)
    if lost.any() and not lost.all():
        numbers = scan.numbers[lost]
        raise InputError(
            f"{number_ranges(numbers)} of image {scan.ref.path} has no finite value inside the mask; leave out "
            f"what is no measurement with {option(numbers)}"
        )
    raise InputError(f"image {scan.ref.path} has no voxel with finite values and a signal inside the mask")


def _leave_out_cut_off(scan: Scan) -> None:
    """Voxels with a measurement at the ceiling have none that is finite from here on."""
    voxels, sentence = cut_off(scan.y)
    if voxels.all():
        raise InputError(f"image {scan.ref.path}: {sentence}")
    if sentence:
        scan.y[voxels] = np.nan
        scan.warnings.append(sentence)


def _usable(y: np.ndarray) -> bool:
    return bool((np.isfinite(y).all(1) & (y > 0).any(1)).any())


def per_voxel(level: Any) -> np.ndarray | None:
    """A noise level as values ``(N,)`` where it is a map or a field; None where it is one number or a word."""
    level = level.level if isinstance(level, NoiseLevel) else level
    return level.numpy() if isinstance(level, torch.Tensor) else level if isinstance(level, np.ndarray) else None


@dataclass(frozen=True)
class TrainingVoxels:
    """The n voxels of a scan to learn from.

    ``y`` is ``(n, M)``; ``inputs`` are ``(n,)`` each; ``level`` is the noise level as :func:`pyroqmri.fit` takes it,
    ``(n,)`` where it is a map; ``notes`` say which they are, the
    ``index`` ``(n,)`` among the scan's.
    """

    y: np.ndarray
    inputs: dict[str, np.ndarray]
    level: Any
    notes: list[str]
    index: np.ndarray


def training_voxels(scan: Scan, level: Any, seed: int, together: bool = False) -> TrainingVoxels:
    """All voxels of a scan, or as many as a population needs, drawn at random and in order.

    ``together``: the middle ones along the last axis, which have their neighbours with them.
    """
    n = len(scan.y)
    if n <= TRAINING_VOXELS:
        return TrainingVoxels(scan.y, scan.inputs, level, [], np.arange(n))
    index = np.sort(np.random.default_rng(seed).choice(n, TRAINING_VOXELS, replace=False))
    if together:
        first = (n - TRAINING_VOXELS) // 2
        index = np.sort(np.argsort(np.argwhere(scan.mask)[:, 2], kind="stable")[first : first + TRAINING_VOXELS])
    how = "a slab from the middle of the image" if together else "drawn at random"
    note = f"trained on {TRAINING_VOXELS} of the {n} voxels, {how}; maps are of all"
    inputs = {name: value[index] for name, value in scan.inputs.items()}
    some = level.of(index) if isinstance(level, NoiseLevel) else level
    return TrainingVoxels(scan.y[index], inputs, level[index] if isinstance(level, np.ndarray) else some, [note], index)


def digest(y: np.ndarray) -> str:
    """A fingerprint of the training data."""
    found = sha256()
    for i in range(0, len(y), NOISE_VOXELS):
        found.update(y[i : i + NOISE_VOXELS].tobytes())
    return found.hexdigest()


def data_record(scan: Scan, y: np.ndarray, inputs: Mapping[str, np.ndarray], level: Any) -> dict[str, Any]:
    """What a training sees of a scan, as fingerprints: a checkpoint goes on with the same only."""
    settings, noise = scan.acquisition.settings(), per_voxel(level)
    return {
        "data": digest(y),
        "inputs": {name: digest(values) for name, values in inputs.items()},
        "protocol": {name: digest(value.numpy()) for name, value in settings.items()},
        "noise": None if noise is None else digest(noise),
    }
