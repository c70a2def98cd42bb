"""What a mask's values mean is said, whatever they are; and a mask that lies beside the image is the scan's own."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pyroqmri import io
from pyroqmri.commands import ScanFiles, fit_image
from pyroqmri.commands.simulate import simulate_files
from pyroqmri.errors import InputError
from pyroqmri.measurements.status import FINE, NO_SIGNAL
from pyroqmri.protocol_checks.no_signal import mask_in_air

pytestmark = pytest.mark.usefixtures("no_pages")

SHAPE, AFFINE = (16, 14, 10), np.diag([2.0, 2.0, 2.0, 1.0])


def ball(radius: float = 5.0) -> np.ndarray:
    x, y, z = (a - (n - 1) / 2 for a, n in zip(np.indices(SHAPE), SHAPE, strict=True))
    return np.sqrt(x**2 + y**2 + (1.4 * z) ** 2) < radius


@pytest.fixture
def folder(tmp_path):
    data = np.where(ball()[..., None], 700.0, 15.0) * np.exp(-np.array([10, 20, 40, 80]) / 80)
    data += np.random.default_rng(0).normal(0, 4, data.shape)
    save(tmp_path / "sub-1_MESE.nii.gz", np.abs(data))
    (tmp_path / "te.txt").write_text("10 20 40 80")
    return tmp_path


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data.astype(np.float32 if data.dtype == float else data.dtype), affine), path)
    return path


def read(folder: Path, mask: np.ndarray | None = None) -> io.Scan:
    path = None if mask is None else save(folder / "given.nii.gz", mask)
    return io.read_scan(folder / "sub-1_MESE.nii.gz", te=folder / "te.txt", need=("te",), mask=path)


@pytest.mark.parametrize(
    "mask",
    [
        ball().astype(np.uint8),
        ball().astype(bool).astype(np.int16),
        ball().astype(float),
        np.where(ball(), 255, 0).astype(np.uint8),
        np.where(ball(), 0.3, 0.0),
        np.where(ball(), 1.0 - 1e-7, 0.0),
    ],
)
def test_one_value_beside_zero_is_a_mask_without_a_word(folder, mask):
    scan = read(folder, mask)
    np.testing.assert_array_equal(scan.mask, ball())
    assert not any("given.nii.gz" in said for said in [*scan.notes, *scan.warnings])


@pytest.mark.parametrize("top", [1.0, 100.0, 255.0])
def test_probabilities_have_a_threshold_that_is_named(folder, top):
    probability = np.clip(gaussian_filter(ball(5.5).astype(float), 0.6), 0, 1) * top
    if top > 1:
        probability = probability.round().astype(np.uint8)  # as some programs store them
    scan = read(folder, probability)
    np.testing.assert_array_equal(scan.mask, probability >= 0.5 * top)
    assert any(f"at least {0.5 * top:g} count, {scan.mask.sum()} of the" in s for s in [*scan.notes, *scan.warnings])


def test_a_probability_map_all_over_the_image_is_a_warning_with_both_counts(folder):
    """A tissue probability: small numbers everywhere, of which every one counted once."""
    probability = np.clip(0.02 + gaussian_filter(ball().astype(float), 2.5), 0, 1)
    scan = read(folder, probability)
    np.testing.assert_array_equal(scan.mask, probability.astype(np.float32) >= 0.5)
    (warning,) = scan.warnings
    assert f"{scan.mask.sum()} of the {ball().size} above 0 ({(probability >= 0.1).sum()} at 0.1" in warning


def test_labels_all_count_and_are_named(folder):
    labels = ball().astype(np.int16)
    labels[8:] *= 2
    labels[:, 7:] *= 5
    scan = read(folder, labels)
    np.testing.assert_array_equal(scan.mask, ball())
    assert "mask given.nii.gz has labels (1, 2, 5, 10): every voxel above 0 counts" in scan.notes
    x, y, z = np.indices(SHAPE)
    many = (ball(6.5) * (1000 + 100 * (x // 4) + 10 * (y // 4) + z // 5)).astype(np.int16)  # an atlas of small regions
    scan = read(folder, many)
    assert any(f"has labels ({len(np.unique(many)) - 1} of them from 1" in note for note in scan.notes)
    assert len(np.unique(many)) > 20
    assert scan.warnings == []


def test_an_intensity_image_is_no_mask(folder):
    for image in (
        np.where(ball(), np.random.default_rng(0).uniform(300, 900, SHAPE), 0),
        np.where(ball(), np.random.default_rng(0).uniform(1.1, 7, SHAPE), 0),
        np.where(ball(), np.random.default_rng(0).integers(300, 2000, SHAPE), 0).astype(np.int16),
    ):
        with pytest.raises(InputError, match="neither 0 and 1, labels nor probabilities; threshold it"):
            read(folder, image)
    with pytest.raises(InputError, match=r"none reaches 0\.5"):
        read(folder, np.where(ball(), np.random.default_rng(0).uniform(0.1, 0.4, SHAPE), 0))


def test_nan_and_negative_values_are_outside_and_counted(folder):
    mask = ball().astype(float)
    mask[7, 7, 4:6] = np.nan
    mask[0, 0] = -1
    scan = read(folder, mask)
    assert scan.mask.sum() == ball().sum() - 2
    assert any("NaN or Inf in 2 voxels" in note for note in scan.notes)
    assert scan.warnings == ["mask given.nii.gz is below zero in 10 voxels, which were taken to be outside"]
    with pytest.raises(InputError, match="not above zero anywhere and below it in"):
        read(folder, np.where(ball(), -1, 0).astype(np.int8))
    with pytest.raises(InputError, match="is empty"):
        read(folder, np.full(SHAPE, np.nan))


def test_a_mask_of_the_whole_field_of_view_is_a_note(folder):
    scan = read(folder, np.ones(SHAPE, np.uint8))
    assert any("is the whole field of view" in note for note in scan.notes)
    assert scan.warnings == []


@pytest.mark.parametrize("name", ["sub-1_mask", "sub-1_MESE_mask", "sub-1_desc-brain_mask", "mask"])
def test_the_mask_beside_the_image_is_used_and_named(folder, name):
    own = ball(3.3)
    save(folder / f"{name}.nii.gz", own.astype(np.uint8))
    scan = read(folder)
    np.testing.assert_array_equal(scan.mask, own)
    assert f"no mask given: {name}.nii.gz beside the image was used, {own.sum()} voxels" in scan.notes
    assert scan.warnings == []


def another_grid(path: Path) -> None:
    save(path, np.ones((4, 4, 4), np.uint8))


def damaged(path: Path) -> None:
    path.write_bytes(save(path, ball().astype(np.uint8)).read_bytes()[:-30])


def empty(path: Path) -> None:
    save(path, np.zeros(SHAPE, np.uint8))


@pytest.mark.parametrize("break_it", [another_grid, damaged, empty])
def test_a_mask_beside_the_image_that_cannot_be_used_is_a_warning(folder, break_it):
    break_it(folder / "sub-1_mask.nii.gz")
    scan = read(folder)
    (warning,) = scan.warnings
    assert warning.startswith("the mask beside the image was not used, and one was made from the image instead: ")
    assert "sub-1_mask.nii.gz" in warning
    assert ball()[scan.mask].all()
    assert scan.mask.sum() > 0.5 * ball().sum()
    os.remove(folder / "sub-1_mask.nii.gz")
    assert read(folder).warnings == []


def test_a_simulated_scan_is_read_in_its_own_mask(tmp_path):
    folder = tmp_path / "sim"
    simulate_files(signal="msdki", phantom="brain", snr=30, shape=(20, 20, 8), out=folder)
    (image,) = (p for p in folder.glob("*.nii.gz") if nib.load(p).ndim == 4)
    scan = io.read_scan(image)
    assert scan.warnings == []
    assert not scan.mask.all()
    np.testing.assert_array_equal(scan.mask, nib.load(folder / "sub-sim_mask.nii.gz").get_fdata() > 0)


def test_a_mask_of_two_dimensions_is_named(folder):
    with pytest.raises(InputError, match=r"has the dimensions \[16, 14\] alone; expected x, y and z"):
        read(folder, ball()[:, :, 5].astype(np.uint8))


def test_a_mask_that_lies_in_air_is_named():
    mask = ball()
    status = np.where(np.arange(mask.sum()) < 0.4 * mask.sum(), NO_SIGNAL, FINE)
    (text,) = mask_in_air(status, mask)
    assert text.startswith("40 % of the voxels in the mask have no signal (status 3)")
    assert mask_in_air(np.where(np.arange(mask.sum()) < 0.2 * mask.sum(), NO_SIGNAL, FINE), mask) == []
    whole = np.arange(mask.size) / mask.size
    assert mask_in_air(np.where(whole < 0.7, NO_SIGNAL, FINE), np.ones_like(mask)) == []  # known to contain air
    assert "89 %" in mask_in_air(np.where(whole < 0.89, NO_SIGNAL, FINE), np.ones_like(mask))[0]  # noise alone


def test_a_mask_without_one_voxel_to_fit_is_an_error(folder):
    data = np.asarray(nib.load(folder / "sub-1_MESE.nii.gz").dataobj)
    save(folder / "x_dwi.nii.gz", data * np.array([-1.0, 1, 1, 1]))
    (folder / "x_dwi.bval").write_text("0 500 800 1000")
    files = ScanFiles(folder / "x_dwi.nii.gz", mask=save(folder / "given.nii.gz", ball().astype(np.uint8)))
    with pytest.raises(InputError, match=r"no voxel of the mask can be fitted: \d+ x no signal"):
        fit_image(files, signal="adc", recipe="least_squares", out=folder / "out", sigma=4.0)
