"""Masks and maps that lie otherwise than the image: turned, refused with the numbers, or resampled; never ignored."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from pyroqmri import io
from pyroqmri.cli import main
from pyroqmri.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pages")

SHAPE, M = (12, 10, 6), 4
ZOOMS = np.diag([2.0, 2.0, 3.0, 1.0])


def rotation(degrees: float, axis: int = 2) -> np.ndarray:
    """About the scanner's axis, ``(4, 4)``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across, up = (a for a in range(3) if a != axis)
    turned = np.eye(4)
    turned[[across, across, up, up], [across, up, across, up]] = c, -s, s, c
    return turned


def moved(affine: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    shifted = affine.copy()
    shifted[:3, 3] += (x, y, z)
    return shifted


def blob() -> np.ndarray:
    """A tissue without any symmetry."""
    inside = np.zeros(SHAPE, bool)
    inside[1:6, 2:9, 1:4] = True
    inside[2:4, 1, 2] = True
    return inside


def save(path: Path, data: np.ndarray, affine: np.ndarray | None) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def scan_in(folder: Path, affine: np.ndarray | None = ZOOMS) -> Path:
    folder.mkdir(exist_ok=True)
    data = np.random.default_rng(0).uniform(50, 900, (*SHAPE, M)).astype(np.float32)
    (folder / "te.txt").write_text("10 20 40 80")
    return save(folder / "scan.nii.gz", data, affine)


def read(folder: Path, mask: Path | None, **more) -> io.Scan:
    return io.read_scan(folder / "scan.nii.gz", te=folder / "te.txt", need=("te",), mask=mask, **more)


def turned(data: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same volume as a program with another order of axes stores it."""
    order = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(data, order), affine @ inv_ornt_aff(order, data.shape)


def refused(folder: Path, mask: Path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        read(folder, mask)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("codes", ["LAS", "RPS", "RAI", "LPI", "ARS", "SRA", "PIL", "ILP"])
@pytest.mark.parametrize("image", [ZOOMS, rotation(20) @ rotation(-12, 0) @ moved(ZOOMS, -30, 11, 5)])
def test_a_mask_and_a_map_with_other_axes_are_turned_voxel_by_voxel(tmp_path, codes, image):
    scan_in(tmp_path, image)
    values = np.random.default_rng(1).uniform(0.5, 1.5, SHAPE).astype(np.float32)
    mask = save(tmp_path / "m.nii.gz", *turned(blob().astype(np.uint8), image, codes))
    field = save(tmp_path / "b1.nii.gz", *turned(values, image, codes))
    scan = read(tmp_path, mask)
    np.testing.assert_array_equal(scan.mask, blob())
    np.testing.assert_array_equal(io.read_map(field, scan.ref, scan.mask).values, values[blob()])
    assert any(f"m.nii.gz is stored {codes} and the image RAS: its axes were turned" in note for note in scan.notes)
    assert scan.warnings == []


def test_a_turned_image_turns_its_mask(tmp_path):
    data = np.random.default_rng(0).uniform(50, 900, (*SHAPE, M)).astype(np.float32)
    scan_in(tmp_path)
    save(tmp_path / "scan.nii.gz", *turned(data, ZOOMS, "PSL"))
    scan = read(tmp_path, save(tmp_path / "m.nii.gz", blob().astype(np.uint8), ZOOMS))
    np.testing.assert_allclose(np.sort(scan.y, 0), np.sort(data[blob()], 0))


@pytest.mark.parametrize(
    ("affine", "shape", "words"),
    [
        (moved(ZOOMS, 20), SHAPE, "its middle is (20, 0, 0) mm (x, y, z) away"),
        (moved(ZOOMS, 0, -60, 0), SHAPE, "(0, -60, 0) mm"),
        (moved(ZOOMS, 0, 1.0, 0), SHAPE, "(0, 1, 0) mm"),  # half a voxel
        (moved(ZOOMS, 0, 0, 0.45), SHAPE, "(0, 0, 0.45) mm"),  # .15 voxel
        (rotation(5) @ ZOOMS, SHAPE, "rotated by 5 degrees"),
        (rotation(-2, 0) @ ZOOMS, SHAPE, "rotated by 2 degrees"),
        (np.diag([4.0, 4, 6, 1]), (6, 5, 3), "it has shape (6, 5, 3) where the image has (12, 10, 6)"),
        (np.diag([2.0, 2, 2, 1]), SHAPE, "voxels of 2 x 2 x 2 mm where the image has 2 x 2 x 3 mm"),
        (ZOOMS, (12, 10, 5), "it has shape (12, 10, 5) where the image has (12, 10, 6)"),
        (np.eye(4), SHAPE, "an identity affine"),
        (moved(np.diag([-2.0, 2, 3, 1]), 25), SHAPE, "(3, 0, 0) mm"),  # flipped and shifted as well
    ],
)
def test_another_grid_is_refused_with_the_numbers(tmp_path, affine, shape, words):
    scan_in(tmp_path)
    path = save(tmp_path / "m.nii.gz", np.ones(shape, np.uint8), affine)
    refused(tmp_path, path, "does not lie on the grid of image scan.nii.gz", words, "--resample")
    scan = read(tmp_path, save(tmp_path / "own.nii.gz", blob().astype(np.uint8), ZOOMS))
    with pytest.raises(InputError, match=r"sigma map .*m\.nii\.gz does not lie on the grid"):
        io.read_map(path, scan.ref, scan.mask, "sigma map")


@pytest.mark.parametrize(
    "affine",
    [
        moved(ZOOMS, 0.05, -0.1, 0.1),  # under a tenth of a voxel
        ZOOMS + 1e-3 * np.r_[np.ones((3, 4)), np.zeros((1, 4))],
        np.diag([2.0004, 1.9996, 3.0009, 1]),
    ],
)
def test_rounding_in_headers_is_no_other_grid(tmp_path, affine):
    scan_in(tmp_path)
    scan = read(tmp_path, save(tmp_path / "m.nii.gz", blob().astype(np.uint8), affine))
    np.testing.assert_array_equal(scan.mask, blob())
    assert scan.warnings == []
    assert not any("m.nii.gz" in note for note in scan.notes)


def test_rounded_voxel_sizes_of_a_wide_field_of_view_are_no_other_grid(tmp_path):
    shape, exact = (256, 200, 1), np.diag([0.9375, 0.9375, 5.0, 1])
    (tmp_path / "te.txt").write_text("10 20")
    save(tmp_path / "scan.nii.gz", np.ones((*shape, 2), np.uint8), exact)
    mask = save(tmp_path / "m.nii.gz", np.eye(*shape[:2], dtype=np.uint8)[..., None], np.diag([0.938, 0.938, 5.0, 1]))
    assert read(tmp_path, mask).mask.sum() == 200


def test_a_mask_with_a_qform_alone_lies_on_the_grid_of_an_image_with_an_sform(tmp_path):
    oblique = rotation(17) @ rotation(33, 1) @ moved(ZOOMS, -90, 14.5, 33)
    scan_in(tmp_path, oblique)
    image = nib.Nifti1Image(blob().astype(np.uint8), oblique)
    image.set_qform(oblique, code=1)
    image.header["sform_code"] = 0
    image.to_filename(tmp_path / "m.nii.gz")
    scan = read(tmp_path, tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(scan.mask, blob())
    assert scan.warnings == []


def test_an_image_whose_sform_and_qform_disagree_is_doubted(tmp_path):
    path = scan_in(tmp_path)
    mask = save(tmp_path / "m.nii.gz", blob().astype(np.uint8), ZOOMS)
    for qform, words in ((np.diag([-2.0, 2, 3, 1]), "RAS and LAS"), (moved(ZOOMS, 0, 30), "up to 30 mm apart")):
        image = nib.load(path)
        data = np.asarray(image.dataobj)
        image = nib.Nifti1Image(data, ZOOMS)
        image.set_qform(qform, code=1)
        nib.save(image, path)
        (warning,) = read(tmp_path, mask).warnings
        assert words in warning
    image.set_qform(moved(ZOOMS, 0.4), code=1)  # .2 voxel: not worth a word
    nib.save(image, path)
    assert read(tmp_path, mask).warnings == []


def test_a_mask_that_agrees_by_qform_alone_is_used_with_a_warning(tmp_path):
    path = scan_in(tmp_path)
    image = nib.Nifti1Image(
        np.asarray(nib.load(path).dataobj), rotation(8) @ moved(ZOOMS, 12, 3)
    )  # in a template's space
    image.set_qform(ZOOMS, code=1)
    nib.save(image, path)
    mask = nib.Nifti1Image(blob().astype(np.uint8), ZOOMS)
    mask.set_qform(ZOOMS, code=1)
    nib.save(mask, tmp_path / "m.nii.gz")
    scan = read(tmp_path, tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(scan.mask, blob())
    assert any("by its qform" in warning for warning in scan.warnings)


def test_a_smooth_map_on_another_grid_is_resampled_on_request(tmp_path):
    """A plane is linear, so that interpolation keeps it exactly; beyond the map's outer faces there is no value."""
    scan_in(tmp_path)
    affine, shape = rotation(4) @ moved(np.diag([5.0, 5, 5, 1]), -6, -6, -5), (6, 7, 6)
    ijk = np.indices(shape).reshape(3, -1).T
    plane = (nib.affines.apply_affine(affine, ijk) @ [0.01, 0.02, -0.01] + 1).reshape(shape)
    path = save(tmp_path / "b1.nii.gz", plane.astype(np.float32), affine)
    scan = read(tmp_path, save(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), ZOOMS))
    values, notes, warnings = io.read_map(path, scan.ref, scan.mask, "input B1", resample=True)
    at = nib.affines.apply_affine(ZOOMS, np.argwhere(scan.mask))
    place = nib.affines.apply_affine(np.linalg.inv(affine), at)
    within = ((place >= 0) & (place <= np.array(shape) - 1)).all(1)
    assert within.sum() > 300
    np.testing.assert_allclose(values[within], (at @ [0.01, 0.02, -0.01] + 1)[within], rtol=1e-5)
    beyond = ((place < -0.5) | (place > np.array(shape) - 0.5)).any(1)
    np.testing.assert_array_equal(np.isnan(values), beyond)
    assert any("resampled" in note for note in notes)
    assert beyond.sum() > 0.05 * len(values)
    assert any(
        f"no value (NaN, or outside its field of view) in {beyond.sum()} of {len(values)}" in w for w in warnings
    )


def test_a_mask_of_half_the_voxels_is_resampled_on_request(tmp_path):
    scan_in(tmp_path)
    coarse = np.zeros((6, 5, 3), np.uint8)
    coarse[1:3, 1:4, 1] = 1
    whole = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # its voxels are two by two by two of the image's
    path = save(tmp_path / "m.nii.gz", coarse, moved(np.diag([4.0, 4, 6, 1]), 1, 1, 1.5))
    scan = read(tmp_path, path, resample=True)
    np.testing.assert_array_equal(scan.mask, whole > 0)
    assert any("was resampled to it" in note for note in scan.notes)


def test_holes_do_not_spread_and_zeros_do_not_dilute_what_is_resampled(tmp_path):
    scan_in(tmp_path)
    coarse = np.zeros((6, 5, 3), np.float32)
    coarse[:3] = 0.8
    coarse[1, 2, 1] = np.nan
    path = save(tmp_path / "b1.nii.gz", coarse, np.diag([4.0, 4, 6, 1]))
    scan = read(tmp_path, save(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), ZOOMS))
    values = io.read_map(path, scan.ref, scan.mask, resample=True, positive=True).values
    np.testing.assert_allclose(values[np.isfinite(values)], 0.8, rtol=1e-6)
    assert 0.3 < np.isfinite(values).mean() < 0.55


def test_a_mask_elsewhere_is_empty_when_it_is_resampled(tmp_path):
    scan_in(tmp_path)
    path = save(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), moved(ZOOMS, 500))
    with pytest.raises(InputError, match="is empty where image scan"):
        read(tmp_path, path, resample=True)


@pytest.mark.parametrize(("image", "mask"), [(None, ZOOMS), (ZOOMS, None), (None, None)])
def test_without_orientation_a_mask_of_the_same_shape_is_taken_voxel_by_voxel(tmp_path, image, mask):
    scan_in(tmp_path, image)
    scan = read(tmp_path, save(tmp_path / "m.nii.gz", blob().astype(np.uint8), mask))
    np.testing.assert_array_equal(scan.mask, blob())
    assert scan.ref.oriented == (image is not None)
    assert any("has no orientation in its header" in note and "voxel by voxel" in note for note in scan.notes)
    other = save(tmp_path / "m.nii.gz", np.ones((10, 12, 6), np.uint8), mask)
    refused(tmp_path, other, "(10, 12, 6)", "no orientation")


def singular(path: Path, how: str) -> None:
    """Break the affine of a file."""
    image = nib.load(path)
    data, header = np.asarray(image.dataobj), image.header.copy()
    broken = nib.Nifti1Image(data, None, header)
    if how == "flat sform":
        flat = ZOOMS.copy()
        flat[:3, 2] = flat[:3, 0] + flat[:3, 1]
        broken.header.set_sform(flat, code=1)
    elif how == "zero sform":
        broken.header["sform_code"] = 1
        for row in ("srow_x", "srow_y", "srow_z"):
            broken.header[row] = 0
    elif how == "zero voxel":
        broken.header["pixdim"][3] = 0
        broken.header["sform_code"] = 0
    else:
        huge = ZOOMS.copy()
        huge[0, 0] = 1e30
        broken.header.set_sform(huge, code=1)
    broken._affine = None  # nibabel would write the one that it read
    nib.save(broken, path)


@pytest.mark.parametrize("how", ["flat sform", "zero sform", "zero voxel", "huge sform"])
@pytest.mark.parametrize("which", ["scan", "m", "b1"])
def test_a_singular_affine_is_refused_before_the_work(tmp_path, how, which):
    scan_in(tmp_path)
    save(tmp_path / "m.nii.gz", blob().astype(np.uint8), ZOOMS)
    save(tmp_path / "b1.nii.gz", np.ones(SHAPE, np.float32), ZOOMS)
    singular(tmp_path / f"{which}.nii.gz", how)

    def whole() -> None:
        scan = read(tmp_path, tmp_path / "m.nii.gz")
        io.read_map(tmp_path / "b1.nii.gz", scan.ref, scan.mask)

    with pytest.raises(InputError, match=rf"{which}\.nii\.gz has .*singular"):
        whole()


def ended(words: list[str]) -> int:
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return 0 if end.value.code is None else int(end.value.code)


def test_the_command_line_has_a_word_for_it(tmp_path, capsys):
    path = scan_in(tmp_path)
    mask = save(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), moved(ZOOMS, 2.5))
    call = [
        "fit", str(path), "--te", str(tmp_path / "te.txt"), "--signal", "t2_decay", "--recipe", "least_squares",
        "--mask", str(mask), "--out", str(tmp_path / "out"), "--sigma", "5", "--quiet",
    ]  # fmt: skip
    assert ended(call) == 2
    assert "does not lie on the grid of image scan.nii.gz: its middle is (2.5, 0, 0) mm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert ended([*call, "--resample"]) == 0
    assert nib.load(next((tmp_path / "out").glob("*status_mask.nii.gz"))).get_fdata().astype(bool).sum() == 11 * 10 * 6
