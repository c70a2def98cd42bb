"""Samples of sticks in a tractography program: dipy's probabilistic tracker on two bundles that cross.

    python -m benchmarks.sticks_tractography [--snr 20] [--angle 60]

An image is made in numpy: a bundle along x and one at an angle to it, 4 voxels wide, 6 b0 and 2 x 45 volumes at b = 1
and 2. It is fitted and exported by command line, and dipy tracks what the exported files contain. Printed is the
share of the streamlines seeded at one end of a bundle that come out at its other end, with the sticks and with the
single axis of `ball_stick`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from dipy.data import get_sphere
from dipy.direction import ProbabilisticDirectionGetter
from dipy.tracking.local_tracking import LocalTracking
from dipy.tracking.stopping_criterion import BinaryStoppingCriterion
from dipy.tracking.streamline import Streamlines

from benchmarks.noise_conditions import directions

RESULTS = Path(__file__).parent / "results" / "sticks_tractography.json"
SHAPE, VOXEL, WIDTH, D = (16, 16, 2), 2.0, 4.0, 1.3
SEEDS, LEAST = 4, 0.05  # a voxel and its edge; fraction below which a sampled stick is left out
AFFINE = np.diag([VOXEL, VOXEL, VOXEL, 1.0])  # of positive determinant: FSL's frame has x turned


def pyroqmri(*arguments: str) -> None:
    """A command of the package."""
    subprocess.run([sys.executable, "-m", "pyroqmri", *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def bundles(angle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes ``(2, 3)``, which voxels each bundle takes ``(2, X, Y, Z)``, and where along it they lie, in voxels."""
    turn = np.deg2rad(angle)
    axes = np.array([[1.0, 0, 0], [np.cos(turn), np.sin(turn), 0]])
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"), -1)
    along = at @ axes.T
    across = np.abs(at[..., 0, None] * axes[:, 1] - at[..., 1, None] * axes[:, 0])
    return axes, np.moveaxis(across < WIDTH / 2, -1, 0), np.moveaxis(along, -1, 0)


def write_scan(folder: Path, axes: np.ndarray, there: np.ndarray, snr: float) -> None:
    """The image, its gradients in FSL's frame and a mask."""
    g = np.concatenate([np.zeros((6, 3)), directions(45), directions(45)])
    b = np.repeat([0.0, 1.0, 2.0], [6, 45, 45])
    share = 0.6 * there / np.maximum(there.sum(0), 1)
    y = (1 - share.sum(0))[..., None] * np.exp(-b * D)
    for f, n in zip(share, axes, strict=True):
        y = y + f[..., None] * np.exp(-b * D * (g @ n) ** 2)
    rng = np.random.default_rng(0)
    y = 100 * np.hypot(y + rng.standard_normal(y.shape) / snr, rng.standard_normal(y.shape) / snr)
    nib.save(nib.Nifti1Image(y.astype(np.float32), AFFINE), folder / "sub-01_dwi.nii.gz")
    nib.save(nib.Nifti1Image(there.any(0).astype(np.uint8), AFFINE), folder / "mask.nii.gz")
    np.savetxt(folder / "sub-01_dwi.bval", 1000 * b[None], fmt="%g")
    np.savetxt(folder / "sub-01_dwi.bvec", (g * [-1, 1, 1]).T, fmt="%.6f")


def shares(out: Path, n_sticks: int, sphere: Any) -> np.ndarray:
    """Weight of each axis of a sphere ``(X, Y, Z, V)``: fractions of the samples whose axis is the nearest."""
    found = np.zeros((*SHAPE, len(sphere.vertices)))
    for k in range(1, n_sticks + 1):
        f, th, ph = (np.asarray(nib.load(out / f"merged_{x}{k}samples.nii.gz").dataobj) for x in ("f", "th", "ph"))
        n = np.stack([-np.sin(th) * np.cos(ph), np.sin(th) * np.sin(ph), np.cos(th)], -1)  # out of FSL's frame
        for sign in (1, -1):
            nearest = (sign * n @ sphere.vertices.T).argmax(-1)
            for s in range(f.shape[-1]):
                at = (*np.indices(SHAPE), nearest[..., s])
                np.add.at(found, at, np.where(f[..., s] > LEAST, f[..., s], 0.0))
    return found


def arrive(pmf: np.ndarray, sphere: Any, mask: np.ndarray, there: np.ndarray, along: np.ndarray) -> float:
    """Share of the streamlines seeded at a bundle's lower end that end at its upper end."""
    getter = ProbabilisticDirectionGetter.from_pmf(pmf, max_angle=35.0, sphere=sphere, pmf_threshold=0.02)
    low, high = there & (along < along[there].min() + 1.5), there & (along > along[there].max() - 2.5)
    points = np.argwhere(low)
    rng = np.random.default_rng(0)
    seeds = (np.repeat(points, SEEDS**2, 0) + rng.uniform(-0.4, 0.4, (len(points) * SEEDS**2, 3))) * VOXEL
    lines = Streamlines(
        LocalTracking(getter, BinaryStoppingCriterion(mask), seeds, AFFINE, step_size=0.5, random_seed=1)
    )
    ends = np.array([[line[0], line[-1]] for line in lines if len(line) > 1]) / VOXEL
    cell = np.clip(np.rint(ends).astype(int), 0, np.array(SHAPE) - 1)
    arrived = high[tuple(np.moveaxis(cell, -1, 0))].any(1)
    return round(float(arrived.sum() / len(seeds)), 3)


def single_axis(folder: Path) -> np.ndarray:
    """Mean axis of `ball_stick` ``(X, Y, Z, 3)`` in the scanner's frame, by the same command."""
    scan, mask = str(folder / "sub-01_dwi.nii.gz"), str(folder / "mask.nii.gz")
    call = ("fit", scan, "--mask", mask, "--signal", "ball_stick", "--recipe", "least_squares")
    pyroqmri(*call, "--out", str(folder / "one"))
    path = next((folder / "one").glob("*param-n_stat-mean_dwimap.nii.gz"))
    return np.asarray(nib.load(path).dataobj) * [-1, 1, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snr", type=float, default=20.0)
    parser.add_argument("--angle", type=float, default=60.0)
    args = parser.parse_args()
    axes, there, along = bundles(args.angle)
    sphere = get_sphere(name="repulsion724")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scan(folder, axes, there, args.snr)
        scan, mask = str(folder / "sub-01_dwi.nii.gz"), str(folder / "mask.nii.gz")
        call = ("fit", scan, "--mask", mask, "--signal", "ball_sticks", "--recipe", "hierarchical", "--no-predictive")
        pyroqmri(*call, "--out", str(folder / "out"))
        pyroqmri("export", str(folder / "out"), scan, "--bedpostx")
        pmf = shares(folder / "out.bedpostX", 3, sphere)
        one = np.zeros_like(pmf)
        axis = single_axis(folder)
        for sign in (1, -1):
            np.put_along_axis(one, (sign * axis @ sphere.vertices.T).argmax(-1)[..., None], 1.0, -1)
    inside = there.any(0)
    row = {"snr": args.snr, "angle": args.angle, "voxels": int(inside.sum()), "crossing": int(there.all(0).sum())}
    for what, weights in (("sticks", pmf), ("one stick", one)):
        row[what] = [arrive(weights * inside[..., None], sphere, inside, there[i], along[i]) for i in range(2)]
    print(json.dumps(row))
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
