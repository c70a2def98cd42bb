"""A small BIDS data set, its signal written out in numpy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pyroqmri.cohort import Cohort, Reading
from pyroqmri.cohort.learn import Training

SHAPE = (6, 6, 3)
SIGMA = 15.0
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@dataclass
class Subject:
    """One participant's files and the truth of its voxels."""

    image: Path
    mask: Path
    D: np.ndarray
    K: np.ndarray


def table(seed: int = 0, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """b-values in s/mm2 and directions ``(M, 3)``."""
    b = np.repeat([0.0, 1000.0, 2000.0], [4, n, n])
    g = np.random.default_rng(seed).normal(size=(len(b), 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    return b, g * (b > 0)[:, None]


def write_subject(root: Path, label: str, seed: int, session: str = "", shift: float = 0.0) -> Subject:
    """Image, gradients, mask and sidecar of a participant, in units of its own."""
    rng = np.random.default_rng(seed)
    folder = root / f"sub-{label}" / (f"ses-{session}/dwi" if session else "dwi")
    folder.mkdir(parents=True)
    stem = f"sub-{label}" + (f"_ses-{session}" if session else "")
    b, g = table()
    D = rng.normal(0.9 + shift, 0.1, SHAPE)
    K = rng.normal(0.8, 0.1, SHAPE)
    x = b / 1000
    signal = 400 * (1 + rng.random()) * np.exp(-x * D[..., None] + x**2 * (D**2 * K)[..., None] / 6)
    real, imaginary = rng.normal(scale=SIGMA, size=(2, *signal.shape))
    image, mask = folder / f"{stem}_dwi.nii.gz", folder / f"{stem}_desc-brain_mask.nii.gz"
    nib.save(nib.Nifti1Image(np.hypot(signal + real, imaginary).astype(np.float32), AFFINE), image)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), mask)
    np.savetxt(folder / f"{stem}_dwi.bval", b[None], fmt="%g")
    np.savetxt(folder / f"{stem}_dwi.bvec", g.T, fmt="%.6f")
    return Subject(image, mask, D, K)


def data_set(root: Path, n: int = 6) -> list[Subject]:
    """``n`` participants; the second has two sessions, and the sidecar stands at the root."""
    root.mkdir(parents=True)
    description = {"Name": "simulated", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "dwi.json").write_text(json.dumps({"EchoTime": 0.08}))
    return [write_subject(root, f"{i:02d}", i, session="1" if i == 2 else "") for i in range(1, n + 1)]


# ways in which a participant is broken, and words that must name it


def no_bval(subject: Subject) -> str:
    subject.image.with_name(subject.image.name.replace(".nii.gz", ".bval")).unlink()
    return "bval"


def truncated(subject: Subject) -> str:
    subject.image.write_bytes(subject.image.read_bytes()[:-3000])
    return "truncated"


def empty_mask(subject: Subject) -> str:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), subject.mask)
    return "mask"


def other_number_of_volumes(subject: Subject) -> str:
    path = subject.image.with_name(subject.image.name.replace(".nii.gz", ".bval"))
    path.write_text("0 0 1000")
    return "3"


def nothing_finite(subject: Subject) -> str:
    nib.save(nib.Nifti1Image(np.full((*SHAPE, 24), np.nan, np.float32), AFFINE), subject.image)
    return "finite"


BROKEN = {
    "04": no_bval,
    "05": truncated,
    "06": empty_mask,
    "07": other_number_of_volumes,
    "08": nothing_finite,
}


def cohort_of(root: Path, out: Path, **changes: Any) -> Cohort:
    """A cohort whose training is short."""
    plan = Training("msdki", "hierarchical", settings={"training.steps": 20, "training.batch_size": 64})
    return Cohort(root, out, Reading("msdki"), training=plan, pages=False, **changes)
