"""Scans of a few hundred voxels with relaxation in them, simulated and written as files."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import ScanFiles
from pyroqmri.signals import SIGNALS, BoundSignal

SHAPE = (8, 8, 4)
AFFINE = np.diag([-2.0, 2, 2, 1])
S0, SNR = 800.0, 60.0


@dataclass
class RelaxationScan:
    """The files, and what they hold: true maps and measurements of the voxels inside, in the order of the mask."""

    image: Path
    mask: Path
    inside: np.ndarray
    theta: dict[str, np.ndarray]

    @property
    def files(self) -> ScanFiles:
        """Image and mask as commands take them; the rest lies beside the image."""
        return ScanFiles(self.image, mask=self.mask)

    def write_map(self, name: str, values: np.ndarray) -> Path:
        """Values ``(X, Y, Z)`` as an image beside the scan."""
        path = self.image.parent / name
        nib.save(nib.Nifti1Image(values.astype(np.float32), AFFINE), path)
        return path


def write_relaxation_scan(
    folder: Path,
    name: str,
    signal: str,
    ranges: dict[str, tuple[float, float]],
    acquisition: Acquisition,
    sidecar: dict[str, list[float]],
    inputs: dict[str, np.ndarray] | None = None,
) -> RelaxationScan:
    """Simulate a signal with parameters uniform in ``ranges`` and write image, mask and sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    theta = {key: rng.uniform(*ends, size=SHAPE) for key, ends in ranges.items()}
    bound = BoundSignal(SIGNALS[signal], acquisition)
    given = {key: torch.from_numpy(value.ravel()).float() for key, value in ({} if inputs is None else inputs).items()}
    clean = bound({key: torch.from_numpy(value.ravel()).float() for key, value in theta.items()}, given)
    clean = S0 * clean.numpy().reshape(*SHAPE, -1)
    noise = rng.normal(scale=clean.max() / SNR, size=(2, *clean.shape))
    values = clean + noise[0] if SIGNALS[signal].signed else np.hypot(clean + noise[0], noise[1])
    inside = np.zeros(SHAPE, bool)
    inside[1:-1, 1:-1] = True
    image, mask = folder / f"{name}.nii.gz", folder / "brain.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.float32), AFFINE), image)
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), AFFINE), mask)
    (folder / f"{name}.json").write_text(json.dumps(sidecar))
    return RelaxationScan(image, mask, inside, {key: value[inside] for key, value in theta.items()})
