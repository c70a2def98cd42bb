"""Samples of sticks in a tractography program: dipy follows a fibre through a crossing, by the page's own lines."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import pyroqmri as pq
from pyroqmri.commands import ScanFiles, export_bedpostx
from pyroqmri.fitting.save import save_fit
from tests.signals.test_ball_sticks import B, G
from tests.test_readme import REPOSITORY

SIZE, MIDDLE, BAND = 13, 6, 1
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])  # a positive determinant: FSL turns the first axis


def two_bundles(seed):
    """Image of two bundles that cross on the diagonals of three slices, and where each of them is ``(X, Y, Z)``."""
    x, y, _ = np.indices((SIZE, SIZE, 3))
    rising, falling = np.abs(x - y) <= BAND, np.abs(x + y - 2 * MIDDLE) <= BAND
    # the gradient table is FSL's, so that the first axis of the voxels is turned in it
    axes = np.array([[-1.0, 1, 0], [1.0, 1, 0]]) / np.sqrt(2)
    both = rising & falling
    f = np.stack([np.where(both, 0.35, 0.6 * rising), np.where(both, 0.35, 0.6 * falling)], -1)
    decay = np.exp(-1.1 * B * (axes @ G.T) ** 2)
    s = (1 - f.sum(-1, keepdims=True)) * np.exp(-1.1 * B) + f @ decay
    rng = np.random.default_rng(seed)
    return 100 * np.hypot(*(part + rng.normal(0, 1 / 30, s.shape) for part in (s, 0 * s))), rising, falling


@pytest.mark.slow
def test_dipy_follows_a_bundle_through_a_crossing(tmp_path, monkeypatch):
    pytest.importorskip("dipy")
    image, rising, falling = two_bundles(seed=2)
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), "sub-01_dwi.nii.gz")
    np.savetxt("sub-01_dwi.bval", 1000 * B[None], fmt="%g")
    np.savetxt("sub-01_dwi.bvec", G.T, fmt="%.6f")
    nib.save(nib.Nifti1Image((rising | falling).astype(np.uint8), AFFINE), "mask.nii.gz")
    x, y, z = np.indices(rising.shape)
    seed = rising & (x + y <= 3) & (z == 1)
    nib.save(nib.Nifti1Image(seed.astype(np.uint8), AFFINE), "seed.nii.gz")
    files = ScanFiles("sub-01_dwi.nii.gz", mask="mask.nii.gz")
    scan = files.read("ball_sticks")
    fit = pq.fit(scan.y, scan.acquisition, signal="ball_sticks", recipe="hierarchical", sigma=100 / 30, causes=False)
    save_fit(fit, Path("out/sticks/fit"), {"sources": ["sub-01_dwi.nii.gz"]})
    export_bedpostx("out/sticks", files, n_samples=20)

    page = (REPOSITORY / "docs" / "sticks.md").read_text()
    (lines,) = re.findall(r"### With dipy.*?```python\n(.*?)```", page, re.DOTALL)
    exec(lines, {})
    tracks = [np.rint(points / 2).astype(int) for points in nib.streamlines.load("tracks.trk").streamlines]
    long = [points for points in tracks if len(points) > 20]
    assert len(long) > 0.5 * len(tracks) > 10
    ends = np.array([points[[0, -1], :2].sum(1).max() for points in long])
    assert (ends >= 4 * MIDDLE - 4).mean() > 0.7  # at the other end of the same bundle
    strayed = np.array(
        [(falling & ~rising)[tuple(points.clip(0, np.array(rising.shape) - 1).T)].mean() for points in long]
    )
    assert strayed.mean() < 0.1
