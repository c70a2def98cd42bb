"""A scan's files, and the noise level as the caller gives it."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri.commands.outlier_volumes import drop_volumes
from pyroqmri.commands.protocol_files import PathLike, ProtocolFiles
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.noise_level import noise_level
from pyroqmri.io import Scan, read_map, read_scan
from pyroqmri.measurements.arguments import as_tensor
from pyroqmri.measurements.noise import NoiseLevel, estimate_sigma
from pyroqmri.measurements.preparation import complete_inputs, settled_s0
from pyroqmri.signals import SIGNALS, SignalModel

TRAINING_VOXELS = 100_000  # a population is learned from no more; maps are made of all
NOISE_VOXELS = 60_000


@dataclass(frozen=True)
class ScanFiles(ProtocolFiles):
    """An image and the files of its settings; those that are None are looked for beside it.

    ``inputs`` are maps of the signal's per-voxel inputs, by name, such as ``{"B1": "b1.nii.gz"}``; ``drop`` are
    volumes to leave out: ``outliers``, or numbers from 0 on such as ``12,40``.
    """

    image: PathLike
    _: KW_ONLY
    json: PathLike | None = None
    mask: PathLike | None = None
    inputs: Mapping[str, PathLike] = field(default_factory=dict)
    drop: str | None = None

    @classmethod
    def of(cls, files: "ScanFiles | PathLike") -> "ScanFiles":
        """Files as they are; of an image alone, all the others are looked for beside it."""
        return files if isinstance(files, ScanFiles) else cls(files)

    def read(self, signal: str, s0: str | float) -> Scan:
        """Read what a signal needs.

        Raises
        ------
        InputError
            When a file is wrong, or no voxel of the mask can be fitted.
        """
        model = SIGNALS[signal]
        _check_names(model, self.inputs)
        scan = read_scan(
            self.image, mask=self.mask, json=self.json, need=model.requires, optional=model.optional,
            need_b0=settled_s0(model, s0) == "measured", **self.settings,
        )  # fmt: skip
        if not any(_usable(scan.y[i : i + NOISE_VOXELS]) for i in range(0, len(scan.y), NOISE_VOXELS)):
            raise InputError(f"image {self.image} has no voxel with finite values and a signal inside the mask")
        if s0 != settled_s0(model, s0):
            scan.notes.append("S0 is inferred: no measurement of this signal is S0 itself")
        for name, path in self.inputs.items():
            scan.inputs[name], notes = read_map(path, scan.ref, scan.mask, f"input {name}")
            scan.notes.extend([f"{name} read from {Path(path).name}", *notes])
        missing = [name for name in model.inputs if name not in self.inputs]
        scan.notes.extend(
            f"no map of {name} was given: it is {model.default_input(name):g} everywhere" for name in missing
        )
        return scan if self.drop is None else drop_volumes(scan, signal, self.drop)

    @property
    def given(self) -> list[PathLike]:
        """Every file that was named."""
        files = (self.image, *self.settings.values(), self.json, self.mask, *self.inputs.values())
        return [path for path in files if path is not None]


def _check_names(model: type[SignalModel], inputs: Mapping[str, PathLike]) -> None:
    has = ", ".join(model.inputs) if model.inputs else "none"
    for name in inputs:
        if name not in model.inputs:
            raise InputError(f"{model.__name__} has no input {name!r}; its inputs are: {has}")
    for name in model.inputs:
        if name not in inputs and model.default_input(name) is None:
            raise InputError(f"{model.__name__} needs a map of {name}; give it with --input {name}=FILE")


def _usable(y: np.ndarray) -> bool:
    return bool((np.isfinite(y).all(1) & (y > 0).any(1)).any())


@dataclass(frozen=True)
class TrainingVoxels:
    """The n voxels of a scan to learn from.

    ``y`` is ``(n, M)``; ``inputs`` are ``(n,)`` each; ``level`` is the noise level as :func:`pyroqmri.fit` takes it,
    ``(n,)`` where it is a map; ``notes`` say which they are.
    """

    y: np.ndarray
    inputs: dict[str, np.ndarray]
    level: Any
    notes: list[str]


def training_voxels(scan: Scan, level: Any, seed: int) -> TrainingVoxels:
    """All voxels of a scan, or as many as a population needs, drawn at random and in order."""
    n = len(scan.y)
    if n <= TRAINING_VOXELS:
        return TrainingVoxels(scan.y, scan.inputs, level, [])
    index = np.sort(np.random.default_rng(seed).choice(n, TRAINING_VOXELS, replace=False))
    note = f"trained on {TRAINING_VOXELS} of the {n} voxels, drawn at random; maps are of all"
    inputs = {name: value[index] for name, value in scan.inputs.items()}
    return TrainingVoxels(scan.y[index], inputs, level[index] if isinstance(level, np.ndarray) else level, [note])


def digest(y: np.ndarray) -> str:
    """A fingerprint of the training data."""
    found = sha256()
    for i in range(0, len(y), NOISE_VOXELS):
        found.update(y[i : i + NOISE_VOXELS].tobytes())
    return found.hexdigest()


def data_record(scan: Scan, y: np.ndarray, inputs: Mapping[str, np.ndarray], level: Any) -> dict[str, Any]:
    """What a training sees of a scan, as fingerprints: a checkpoint goes on with the same only."""
    settings = scan.acquisition.settings()
    return {
        "data": digest(y),
        "inputs": {name: digest(values) for name, values in inputs.items()},
        "protocol": {name: digest(value.numpy()) for name, value in settings.items()},
        "noise": digest(level) if isinstance(level, np.ndarray) else None,
    }


def given_noise(scan: Scan, sigma: PathLike | float) -> Any:
    """The noise level as :func:`pyroqmri.fit` takes it: a number, the ``(N,)`` values of a map, or an estimate.

    Raises
    ------
    InputError
        When a map cannot be read or is not above zero everywhere in the mask.
    """
    if sigma in ("estimate", "learn"):
        try:
            found = estimate_sigma(scan.y[:: _every(scan)], scan.acquisition, background=scan.background)
        except InputError:
            return None  # fit has one more way, from the residuals of the signal itself
        return NoiseLevel(found.sigma, found.method, found.note)
    if isinstance(sigma, int | float):
        return float(sigma)
    values, notes = read_map(sigma, scan.ref, scan.mask, "sigma map")
    bad = int((~(values > 0)).sum())
    if bad:
        raise InputError(f"sigma map {sigma} is not above zero in {bad} voxels of the mask; correct it or the mask")
    scan.notes.extend(notes)
    return values


def settle_noise(fit: Fit, scan: Scan, level: Any) -> NoiseLevel:
    """One number and its story for the noise of a scan that a fit is applied to."""
    y = torch.from_numpy(scan.y[:: _every(scan)])
    sample = level[:: _every(scan)] if isinstance(level, np.ndarray) else level
    inputs = {name: as_tensor(value[:: _every(scan)]) for name, value in scan.inputs.items()}
    known = complete_inputs(fit.signal.signal, inputs, len(y))
    noise = noise_level(y, fit.acquisition, sample, fit.preparation, fit.signal, known)
    return replace(noise, level=noise.sigma)


def _every(scan: Scan) -> int:
    return max(1, len(scan.y) // NOISE_VOXELS)
