"""Scans read from NIfTI: the same numbers as nibabel, and one clear sentence for every wrong input."""

import gzip
import shutil
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyroqmri import io
from pyroqmri.errors import InputError
from pyroqmri.io import images, nifti

SHAPE, M = (9, 8, 5), 11
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def folder(tmp_path, rng):
    """A small scan with mask and gradient files, as users have it."""
    data = rng.integers(50, 3000, (*SHAPE, M)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "sub-1_dwi.nii.gz")
    mask = rng.random(SHAPE) < 0.4
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    write_gradients(tmp_path, np.r_[0, 0, np.full(M - 2, 1000)])
    return tmp_path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def write_gradients(folder: Path, bval: np.ndarray) -> None:
    g = np.random.default_rng(1).normal(size=(3, len(bval)))
    g = g / np.linalg.norm(g, axis=0) * (bval > 0)
    (folder / "sub-1_dwi.bval").write_text(" ".join(map(str, bval)))
    np.savetxt(folder / "sub-1_dwi.bvec", g)


def read(folder: Path, name: str = "sub-1_dwi.nii.gz", **kwargs) -> io.Scan:
    return io.read_scan(folder / name, mask=folder / "mask.nii.gz", **kwargs)


def save(folder: Path, data: np.ndarray, name: str = "sub-1_dwi.nii.gz", dtype=None, slope=None, inter=0.0) -> None:
    image = nib.Nifti1Image(data, AFFINE, dtype=dtype)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nib.save(image, folder / name)


def expected(folder: Path, name: str = "sub-1_dwi.nii.gz") -> np.ndarray:
    mask = nib.load(folder / "mask.nii.gz").get_fdata() > 0
    return nib.load(folder / name).get_fdata()[mask].astype(np.float32)


@pytest.mark.parametrize("name", ["sub-1_dwi.nii.gz", "sub-1_dwi.nii"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_reads_what_nibabel_reads(folder, rng, name, dtype):
    save(folder, rng.integers(0, 250, (*SHAPE, M)).astype(dtype), name)
    scan = read(folder, name)
    assert scan.y.dtype == np.float32
    assert scan.y.shape == (scan.mask.sum(), M)
    assert scan.y.flags.c_contiguous
    np.testing.assert_array_equal(scan.y, expected(folder, name))


def test_scaling_and_byte_order(folder, rng):
    data = rng.uniform(-5, 90, (*SHAPE, M))
    image = nib.Nifti1Image(data, AFFINE)
    image.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nib.save(image, folder / "sub-1_dwi.nii.gz")
    np.testing.assert_allclose(read(folder).y, expected(folder), rtol=1e-6)
    np.testing.assert_allclose(read(folder).y, data[read(folder).mask], atol=2e-3)
    swapped = nib.Nifti1Image(data.astype(">f4"), AFFINE, header=nib.Nifti1Header(endianness=">"))
    nib.save(swapped, folder / "sub-1_dwi.nii.gz")
    assert nib.load(folder / "sub-1_dwi.nii.gz").header.endianness == ">"
    np.testing.assert_array_equal(read(folder).y, expected(folder))
    nib.save(nib.Nifti2Image(data.astype(np.float32), AFFINE), folder / "sub-1_dwi.nii.gz")
    np.testing.assert_array_equal(read(folder).y, expected(folder))


def test_the_grid_the_name_and_what_was_found_are_kept(folder):
    scan = read(folder)
    assert scan.ref.shape == SHAPE
    assert scan.ref.prefix == "sub-1"
    assert scan.ref.header_zooms[:3] == (2.0, 2.0, 3.0)
    np.testing.assert_array_equal(scan.ref.affine, AFFINE)
    assert len(scan.acquisition) == M
    assert scan.acquisition.bvec is not None
    assert "sub-1_dwi.bval and sub-1_dwi.bvec found beside the image" in scan.notes


def test_bad_voxels_are_no_error(folder, rng):
    data = rng.uniform(1, 90, (*SHAPE, M)).astype(np.float32)
    data[:3] = np.nan
    data[3:5] = 0
    data[5:7] *= -1
    save(folder, data)
    np.testing.assert_array_equal(read(folder).y, expected(folder))


def test_a_mask_is_made_when_none_is_given_and_said(folder, rng):
    centre = np.indices((24, 24, 12)) - np.array([12, 12, 6]).reshape(3, 1, 1, 1)
    head = (np.square(centre / np.array([9, 9, 5]).reshape(3, 1, 1, 1)).sum(0) < 1)[..., None]
    save(folder, np.where(head, 900, 20) + rng.normal(0, 8, (24, 24, 12, M)))
    scan = io.read_scan(folder / "sub-1_dwi.nii.gz")
    overlap = 2 * (scan.mask & head[..., 0]).sum() / (scan.mask.sum() + head.sum())
    assert overlap > 0.9
    assert any("median_otsu from the mean of 2 volumes with the lowest b" in note for note in scan.notes)
    assert len(scan.warnings) == 1  # the mask that lies beside it has another size
    assert "mask beside the image was not used" in scan.warnings[0]
    assert scan.background is not None
    assert abs(np.median(scan.background) - 20) < 2
    assert len(scan.background) == 5000


def test_a_mask_of_a_whole_head_takes_seconds(rng):
    shape = (130, 131, 61)
    centre = np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2
    head = np.square(centre / np.array([50, 55, 26]).reshape(3, 1, 1, 1)).sum(0) < 1
    start = time.process_time()
    mask = images._median_otsu(np.where(head, 900, 20) + rng.normal(0, 8, shape))
    assert time.process_time() - start < 30  # dipy's own settings take two minutes
    assert mask.shape == shape
    assert 2 * (mask & head).sum() / (mask.sum() + head.sum()) > 0.96


def test_masks_may_hold_probabilities_nan_and_an_axis_of_volumes(folder, rng):
    mask = rng.random((*SHAPE, 1)).astype(np.float32)
    mask[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(mask, AFFINE), folder / "mask.nii.gz")
    scan = read(folder)
    np.testing.assert_array_equal(scan.mask, np.nan_to_num(mask[..., 0]) >= 0.5)
    assert any("at least 0.5 count" in warning for warning in scan.warnings)  # a threshold of 0.1 leaves twice as many
    assert any("NaN or Inf in 1 voxels" in note for note in scan.notes)
    values, *_ = io.read_map(folder / "mask.nii.gz", scan.ref, scan.mask)
    np.testing.assert_array_equal(values, mask[..., 0][scan.mask])


def refused(folder: Path, words: str, **kwargs) -> None:
    with pytest.raises(InputError) as error:
        read(folder, **kwargs)
    assert words in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_mismatched_inputs_are_refused(folder, rng):
    save(folder, rng.random((*SHAPE, M + 1)))
    refused(folder, "11 entries and the image has 12 volumes")
    save(folder, rng.random(SHAPE))
    refused(folder, "is 3-D (9 x 8 x 5)")
    save(folder, rng.random((*SHAPE, M)))
    nib.save(nib.Nifti1Image(np.ones((9, 8, 4), np.uint8), AFFINE), folder / "mask.nii.gz")
    refused(folder, "has shape (9, 8, 4) where the image has (9, 8, 5)")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), folder / "mask.nii.gz")
    refused(folder, "is empty")


def test_a_scan_without_b0_is_read(folder):
    write_gradients(folder, np.full(M, 1000))
    assert len(read(folder).acquisition) == M


def test_missing_files_are_refused(folder):
    refused(folder, "No such file", name="sub-2_dwi.nii.gz")
    refused(folder, "No such file", bval=folder / "none.bval")
    refused(folder, "no te file beside it", need=("te",))
    (folder / "sub-1_dwi.bvec").unlink()
    refused(folder, "no bvec file beside it")
    assert read(folder, need=("bval",)).acquisition.bvec is None


def test_damaged_gzip_is_refused(folder):
    whole = (folder / "sub-1_dwi.nii.gz").read_bytes()
    damages = {"cut": whole[:-500], "head": whole[:100], "crc": whole[:-8] + b"\0\0\0\0" + whole[-4:]}
    damages["length"] = whole[:-1] + b"\7"
    for name, content in damages.items():
        (folder / "sub-1_dwi.nii.gz").write_bytes(content)
        refused(folder, "damaged or truncated" if name != "head" else "truncated")
    with pytest.raises(InputError, match="damaged or truncated"):  # whoever makes the mask first
        io.read_scan(folder / "sub-1_dwi.nii.gz")


def test_what_lies_behind_the_image_is_said_or_refused(folder, monkeypatch):
    image = folder / "sub-1_dwi.nii.gz"
    whole = gzip.decompress(image.read_bytes())
    image.write_bytes(gzip.compress(whole + bytes(1000)))
    assert any("1000 bytes behind the image" in note for note in read(folder).notes)
    monkeypatch.setattr(nifti, "LARGEST_TAIL", 999)
    refused(folder, "after the end its header gives")


def patched(folder: Path, offset: int, packed: bytes) -> None:
    """Overwrite bytes of the header."""
    path = folder / "sub-1_dwi.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(packed)] = packed
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize(
    ("offset", "packed", "words"),
    [
        (42, struct.pack("<h", -9), "impossible dimensions"),
        (42, struct.pack("<h", 0), "impossible dimensions"),
        (40, struct.pack("<h", 12), "impossible dimensions"),
        (40, struct.pack("<h", -1), "not a NIfTI file|impossible dimensions"),
        (42, struct.pack("<4h", 32000, 32000, 32000, 11), "cannot be true"),
        (70, struct.pack("<h", 32), "complex64"),
        (70, struct.pack("<h", 999), "code 999"),
        (108, struct.pack("<f", float("nan")), "vox_offset"),
        (108, struct.pack("<f", 100.0), "vox_offset"),
        (112, struct.pack("<2f", 2.0, float("inf")), "scl_inter"),
        (280, struct.pack("<f", float("nan")), "affine with NaN"),
        (344, b"ni1\0", "hdr/.img"),
        (344, b"abcd", "not a NIfTI file"),
        (0, struct.pack("<i", 1234), "not a NIfTI file"),
    ],
)
def test_impossible_headers_are_refused(folder, offset, packed, words):
    patched(folder, offset, packed)
    with pytest.raises(InputError, match=words):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b", b"PK\3\4" * 200, bytes(1000), b"\x1f\x8b" * 300])
def test_what_is_no_nifti_is_refused(folder, content):
    (folder / "sub-1_dwi.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"sub-1_dwi\.nii\.gz"):
        read(folder)


def test_a_bomb_is_refused_before_it_is_unpacked(folder, monkeypatch):
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 1000, M))
    header.set_data_dtype(np.int16)
    header["magic"], header["vox_offset"] = b"n+1", 352
    packer = zlib.compressobj(9, wbits=31)
    content = packer.compress(header.binaryblock + bytes(4))
    content += b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    (folder / "sub-1_dwi.nii.gz").write_bytes(content)
    tracemalloc.start()
    refused(folder, "cannot be true")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    monkeypatch.setattr(nifti, "LARGEST_RATIO", 1e9)
    refused(folder, "too large")


def test_an_uncompressed_image_that_is_cut_is_refused(folder, rng):
    save(folder, rng.random((*SHAPE, M)), "sub-1_dwi.nii")
    path = folder / "sub-1_dwi.nii"
    path.write_bytes(path.read_bytes()[:-10])
    refused(folder, "is truncated", name="sub-1_dwi.nii")
    shutil.copy(folder / "sub-1_dwi.nii.gz", path)  # gzip whatever its name says
    assert read(folder, name="sub-1_dwi.nii").y.shape[1] == M


def test_memory_stays_near_the_result(tmp_path, rng):
    """No more than y, a block of 8 volumes of masked voxels and a few volumes; get_fdata takes twice y."""
    shape, m = (40, 40, 30), 60
    nib.save(nib.Nifti1Image(rng.integers(0, 999, (*shape, m)).astype(np.int16), AFFINE), tmp_path / "sub-1_dwi.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    write_gradients(tmp_path, np.r_[0, np.full(m - 1, 1000)])
    read(tmp_path)
    tracemalloc.start()
    scan = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scan.y.nbytes + 8 * scan.y.nbytes // m + 50 * np.prod(shape)


def test_real_scans(shared_data):
    brain = shared_data / "mdt_b1k_b2k"
    scan = io.read_scan(brain / "dwi.nii.gz", mask=brain / "mask.nii.gz")
    mask = nib.load(brain / "mask.nii.gz").get_fdata() > 0
    np.testing.assert_array_equal(scan.y, nib.load(brain / "dwi.nii.gz").get_fdata()[mask])
    assert "13 x b 0, 30 x b 1000, 60 x b 2000 s/mm2" in scan.notes
    cord = io.read_scan(
        shared_data / "ivim_spinalcord_7T" / "dwi_rl.nii.gz",
        mask=shared_data / "ivim_spinalcord_7T" / "mask_rl.nii.gz",
        need=("bval",),
    )
    np.testing.assert_allclose(cord.acquisition.bval[:5] * 1000, [5, 10, 20, 30, 50], rtol=1e-6)
    echoes = io.read_scan(shared_data / "t2_se_brain_santini" / "data.nii.gz", need=("te",))
    np.testing.assert_allclose(echoes.acquisition.te, [10, 25, 50, 90, 150, 250])
