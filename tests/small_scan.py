"""A scan of a few hundred voxels, simulated and written as files."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from pyroqmri.commands import ScanFiles

SHAPE = (8, 8, 4)
S0, SIGMA = 500.0, 10.0


@dataclass
class SmallScan:
    """The files, and what they hold."""

    folder: Path
    image: Path
    bval: Path
    bvec: Path
    mask: Path
    values: np.ndarray
    b: np.ndarray
    g: np.ndarray
    inside: np.ndarray

    def write_image(self, values: np.ndarray) -> None:
        """Put other values into the image file."""
        self.values = values
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([-2.0, 2, 2, 1])), self.image)

    def write_gradients(self, b: np.ndarray, g: np.ndarray) -> None:
        """Put another gradient table into its files."""
        self.b, self.g = b, g
        np.savetxt(self.bval, b[None], fmt="%g")
        np.savetxt(self.bvec, g.T, fmt="%.6f")

    @property
    def files(self) -> ScanFiles:
        """Image and mask as commands take them; the rest lies beside the image."""
        return ScanFiles(self.image, mask=self.mask)

    @property
    def arguments(self) -> list[str]:
        """Image and mask as the command line takes them."""
        return [str(self.image), "--mask", str(self.mask)]


def gradients(n_b0: int = 3, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """b-values in s/mm2 and directions ``(M, 3)``, two shells."""
    rng = np.random.default_rng(7)
    g = rng.normal(size=(2 * n, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    b = np.concatenate([np.zeros(n_b0), np.full(n, 1000.0), np.full(n, 2000.0)])
    return b, np.concatenate([np.zeros((n_b0, 3)), g])


def sticks(b: np.ndarray, g: np.ndarray, seed: int = 0) -> np.ndarray:
    """Ball-stick volumes ``(X, Y, Z, M)`` with Rician noise; no tissue is like another."""
    rng = np.random.default_rng(seed)
    f, d_par, d_iso = (rng.uniform(*ends, size=(*SHAPE, 1)) for ends in ((0.2, 0.7), (1.2, 2.0), (0.6, 1.2)))
    axis = rng.normal(size=(*SHAPE, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    signal = f * np.exp(-b / 1000 * d_par * (axis @ g.T) ** 2) + (1 - f) * np.exp(-b / 1000 * d_iso)
    real, imaginary = rng.normal(scale=SIGMA, size=(2, *signal.shape))
    return np.hypot(S0 * signal + real, imaginary)


def write_scan(folder: Path, name: str = "sub-01_dwi") -> SmallScan:
    """Write image, gradients and mask; the border of the image is outside the mask."""
    folder.mkdir(parents=True, exist_ok=True)
    inside = np.zeros(SHAPE, bool)
    inside[1:-1, 1:-1] = True
    paths = [folder / f"{name}{ending}" for ending in (".nii.gz", ".bval", ".bvec")]
    mask = folder / "brain.nii.gz"
    b, g = gradients()
    scan = SmallScan(folder, *paths, mask, np.empty(0), b, g, inside)
    scan.write_gradients(b, g)
    scan.write_image(sticks(b, g))
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), np.diag([-2.0, 2, 2, 1])), mask)
    return scan
