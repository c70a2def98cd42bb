"""Samples of sticks as tractography programs read them."""

import nibabel as nib
import numpy as np
import pytest

import pyroqmri as pq
from pyroqmri.commands import ScanFiles, export_bedpostx
from pyroqmri.commands.export import scanner_axes
from pyroqmri.errors import InputError
from pyroqmri.fitting.save import save_fit
from pyroqmri.maps import write_maps
from tests.signals.test_ball_sticks import B, G, crossing, degrees

SHAPE, SAMPLES = (2, 3, 2), 20
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small image of two sticks a voxel, its fit, and what is exported of it."""
    folder = tmp_path_factory.mktemp("export")
    y, d, f, axes = crossing(12, 2, seed=5, snr=40)
    nib.save(nib.Nifti1Image(y.reshape(*SHAPE, -1).astype(np.float32), AFFINE), folder / "sub-01_dwi.nii.gz")
    np.savetxt(folder / "sub-01_dwi.bval", 1000 * B[None], fmt="%g")
    np.savetxt(folder / "sub-01_dwi.bvec", G.T, fmt="%.6f")
    inside = np.ones(SHAPE, np.uint8)
    inside[0, 0, 0] = 0
    nib.save(nib.Nifti1Image(inside, AFFINE), folder / "mask.nii.gz")
    files = ScanFiles(folder / "sub-01_dwi.nii.gz", mask=folder / "mask.nii.gz")
    scan = files.read("ball_sticks")
    fit = pq.fit(scan.y, scan.acquisition, signal="ball_sticks", recipe="hierarchical", sigma=2.5)
    write_maps(
        fit.posterior(scan.y), scan.ref, scan.mask, folder / "fit", signal_name="ball_sticks", suffix="dwimap",
        recipe="hierarchical", likelihood="rician", sources=["sub-01_dwi.nii.gz"],
    )  # fmt: skip
    save_fit(fit, folder / "fit" / "fit", {"sources": ["sub-01_dwi.nii.gz"]})
    out = export_bedpostx(folder / "fit", files, n_samples=SAMPLES)
    return folder, out, inside > 0, d, f, axes


def volume(out, name):
    return np.asarray(nib.load(out / f"{name}.nii.gz").dataobj)


def test_samples_are_those_of_the_posterior(exported):
    _, out, inside, d, f, axes = exported
    assert out.name == "fit.bedpostX"
    np.testing.assert_array_equal(volume(out, "nodif_brain_mask") > 0, inside)
    for k in (1, 2):
        samples, th, ph = (volume(out, f"merged_{name}{k}samples") for name in ("f", "th", "ph"))
        assert samples.shape == th.shape == ph.shape == (*SHAPE, SAMPLES)
        np.testing.assert_allclose(volume(out, f"mean_f{k}samples"), samples.mean(-1), atol=1e-6)
        n = np.stack([np.sin(th) * np.cos(ph), np.sin(th) * np.sin(ph), np.cos(th)], -1)[inside]
        dyad = volume(out, f"dyads{k}")[inside]
        assert np.median(degrees(n, dyad[:, None])) < 5
        truth = axes[:, k - 1].reshape(*SHAPE, 3)[inside]
        assert np.median(degrees(dyad, truth)) < 4
        assert np.abs(volume(out, f"mean_f{k}samples")[inside] - f[:, k - 1].reshape(SHAPE)[inside]).mean() < 0.05
        assert not samples[~inside].any()
    assert (volume(out, "mean_f1samples") >= volume(out, "mean_f2samples")).all()
    assert np.median(volume(out, "mean_dsamples")[inside]) == pytest.approx(1e-3 * np.median(d), rel=0.15)  # mm2/s
    np.testing.assert_allclose(np.loadtxt(out / "bvals"), 1000 * B, atol=1e-2)
    np.testing.assert_allclose(np.loadtxt(out / "bvecs").T, G, atol=1e-5)


def test_peaks_are_as_long_as_their_fractions_and_lie_in_the_scanner(exported):
    _, out, inside, *_ = exported
    peaks = volume(out, "peaks").reshape(*SHAPE, 3, 3)
    f = np.stack([volume(out, f"mean_f{k}samples") for k in (1, 2, 3)], -1)
    np.testing.assert_allclose(np.linalg.norm(peaks, axis=-1)[inside], f[inside], atol=1e-5)
    dyad = volume(out, "dyads1")[inside]
    # the determinant of this affine is positive: FSL has turned x
    assert degrees(peaks[..., 0, :][inside] / f[..., :1][inside], dyad * [-1, 1, 1]).max() < 0.1


def test_axes_turn_with_the_affine():
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = 2 * turn @ np.diag([-1.0, 1, 1])  # negative determinant: no turn of x
    np.testing.assert_allclose(scanner_axes(np.array([1.0, 0, 0]), affine), [0, -1, 0], atol=1e-6)


def test_maps_of_the_number_and_of_all_axes_are_written(exported):
    folder, *_ = exported
    names = {path.name for path in (folder / "fit").glob("*.nii.gz")}
    for entity in ("param-nsticks_stat-prob", "param-n1_stat-mean", "param-n2_stat-cone90", "param-f3_stat-q95"):
        assert f"sub-01_model-ball_sticks_{entity}_dwimap.nii.gz" in names
    share = np.asarray(
        nib.load(folder / "fit" / "sub-01_model-ball_sticks_param-nsticks_stat-prob_dwimap.nii.gz").dataobj
    )
    assert share.shape == (*SHAPE, 4)
    np.testing.assert_allclose(share.sum(-1)[volume(folder / "fit.bedpostX", "nodif_brain_mask") > 0], 1, atol=1e-4)


def test_the_image_is_found_beside_the_fit_or_asked_for(exported, tmp_path):
    folder, *_ = exported
    out = export_bedpostx(folder / "fit", out=tmp_path / "found", n_samples=3)
    assert (out / "merged_f1samples.nii.gz").is_file()
    (folder / "sub-01_dwi.nii.gz").rename(folder / "elsewhere.nii.gz")
    with pytest.raises(InputError, match=r"the image 'sub-01_dwi.nii.gz' of .* is not in the working folder"):
        export_bedpostx(folder / "fit", out=tmp_path / "lost")
