"""A hole in a map that the fit needs costs the voxels in it and no others, and says which."""

import os

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.commands import ScanFiles, apply_image, fit_image
from pyroqmri.errors import InputError
from pyroqmri.io import read_scan
from pyroqmri.io.nifti import read_header
from pyroqmri.measurements.status import NO_INPUT
from pyroqmri.report.folder_of_maps import read_folder

FLIP, TR, SHAPE, AFFINE = np.radians([2.0, 4, 8, 12, 18, 25]), 15.0, (8, 8, 2), np.diag([2.0, 2, 3, 1])


def spoiled(b1: np.ndarray, t1: float = 1000.0, sigma: float = 1.0) -> np.ndarray:
    """Spoiled gradient echo with Rician noise ``(..., 6)``."""
    e, a = np.exp(-TR / t1), FLIP * b1[..., None]
    clean = 1000 * np.sin(a) * (1 - e) / (1 - e * np.cos(a))
    r = np.random.default_rng(0)
    return np.hypot(clean + sigma * r.standard_normal(clean.shape), sigma * r.standard_normal(clean.shape))


@pytest.fixture(scope="module")
def b1():
    return np.linspace(0.7, 1.1, np.prod(SHAPE)).reshape(SHAPE)


ACQ = pq.Acquisition(flip=torch.tensor(FLIP), tr=torch.full((6,), TR))
HOLES = [np.nan, 0.0, -0.4, np.inf]


def with_holes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    holed = values.copy()
    holed.reshape(-1)[[3, 40, 41, 99]] = HOLES
    return holed, ~(np.isfinite(holed) & (holed > 0))


@pytest.mark.parametrize("recipe", ["least_squares", "hierarchical"])
def test_holes_of_an_input_are_a_status_in_python(b1, recipe):
    holed, lost = with_holes(b1)
    y = spoiled(b1).reshape(-1, 6)
    fit = pq.fit(
        y, ACQ, signal="t1_vfa", recipe=recipe, inputs={"B1": holed.ravel()}, sigma=1.0,
        settings={"training.steps": 100} if recipe == "hierarchical" else None,
    )  # fmt: skip
    post = fit.posterior(y, inputs={"B1": holed.ravel()})
    np.testing.assert_array_equal(post.status.numpy() == NO_INPUT, lost.ravel())
    t1 = post.mean["T1"].numpy()
    np.testing.assert_array_equal(np.isnan(t1), lost.ravel())
    assert abs(np.nanmedian(t1) - 1000) < 30
    assert torch.isfinite(post.sd["T1"][~torch.tensor(lost.ravel())]).all()


def test_a_sigma_map_with_holes_is_a_status_in_python(b1):
    sigma, lost = with_holes(np.full(SHAPE, 1.0))
    y = spoiled(b1).reshape(-1, 6)
    fit = pq.fit(y, ACQ, signal="t1_vfa", recipe="least_squares", inputs={"B1": b1.ravel()}, sigma=sigma.ravel())
    assert fit.sigma == 1.0
    status = fit.posterior(y, inputs={"B1": b1.ravel()}, sigma=sigma.ravel()).status.numpy()
    np.testing.assert_array_equal(status == NO_INPUT, lost.ravel())


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_a_map_without_any_value_is_refused_by_name(b1, value):
    y, n = spoiled(b1).reshape(-1, 6), b1.size
    with pytest.raises(InputError, match=f"input B1 has no value .* in any of the {n} voxels"):
        pq.fit(y, ACQ, signal="t1_vfa", recipe="least_squares", inputs={"B1": np.full(n, value)}, sigma=1.0)
    with pytest.raises(InputError, match=f"sigma must be finite and above zero, and is not in any of the {n} voxels"):
        pq.fit(y, ACQ, signal="t1_vfa", recipe="least_squares", inputs={"B1": b1.ravel()}, sigma=np.full(n, value))


def save(path, data):
    nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), path)
    return path


@pytest.fixture
def scan(tmp_path, b1):
    save(tmp_path / "sub-1_VFA.nii.gz", spoiled(b1))
    save(tmp_path / "mask.nii.gz", np.ones(SHAPE))
    (tmp_path / "sub-1_VFA.json").write_text('{"FlipAngle": [2, 4, 8, 12, 18, 25], "RepetitionTime": 0.015}')
    return tmp_path


@pytest.mark.parametrize("which", ["B1", "sigma"])
def test_holes_of_a_map_are_a_status_on_the_command_line(scan, b1, which):
    holed, lost = with_holes(b1 if which == "B1" else np.ones(SHAPE))
    field = save(scan / "b1.nii.gz", holed if which == "B1" else b1)
    sigma = save(scan / "sigma.nii.gz", holed) if which == "sigma" else 1.0
    files = ScanFiles(scan / "sub-1_VFA.nii.gz", inputs={"B1": field})
    fit_image(files, signal="t1_vfa", recipe="least_squares", sigma=sigma, out=scan / "out")
    apply_image(scan / "out", files, sigma=sigma, out=scan / "again")
    for out in ("out", "again"):
        results = read_folder(scan / out)
        np.testing.assert_array_equal(results.status == NO_INPUT, lost)
        np.testing.assert_array_equal(np.isnan(results.volume("T1", "mean")), lost)
        notes = " ".join(results.record["notes"])
        assert "has no value (NaN, or not above zero, or outside its field of view) in 4 of 128 voxels" in notes
        page = (scan / out / "report.html").read_text()
        assert "124 fitted of 128 in the mask" in page
        assert "a map that the signal needs has no value here" in page


@pytest.mark.usefixtures("no_pages")
def test_many_holes_are_a_warning_and_only_holes_an_error(scan, b1):
    holed = b1.copy()
    holed[:2] = 0
    files = ScanFiles(scan / "sub-1_VFA.nii.gz", inputs={"B1": save(scan / "b1.nii.gz", holed)})
    fit_image(files, signal="t1_vfa", recipe="least_squares", sigma=1.0, out=scan / "out")
    (warning,) = (w for w in read_folder(scan / "out").record["warnings"] if "B1" in w)
    assert "in 32 of 128 voxels of the mask; these are not fitted (status 10)" in warning
    save(scan / "b1.nii.gz", np.zeros(SHAPE))
    with pytest.raises(InputError, match=r"input B1 .*b1\.nii\.gz has no value"):
        fit_image(files, signal="t1_vfa", recipe="least_squares", sigma=1.0, out=scan / "none")
    with pytest.raises(InputError, match=r"sigma map .*b1\.nii\.gz has no value"):
        fit_image(scan / "sub-1_VFA.nii.gz", signal="t1_vfa", recipe="least_squares", sigma=scan / "b1.nii.gz",
                  out=scan / "none")  # fmt: skip


def test_only_files_are_read_as_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "endless.nii").symlink_to("/dev/zero")
    for name, what in (
        ("pipe.nii.gz", "is a pipe"), ("folder.nii.gz", "a folder"), ("endless.nii", "is a device"),
        ("a\0b.nii", "possible file name"), ("n" * 300, "nnn"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=what):
            read_header(tmp_path / name)
        with pytest.raises(InputError, match=what):
            read_scan(tmp_path / name)
