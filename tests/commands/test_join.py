"""`pyroqmri join`: files of a series, as one scan that fit reads by itself."""

import json

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.commands.join import join_images
from pyroqmri.errors import InputError
from pyroqmri.io import read_scan

ECHOES = [0.012, 0.03, 0.06, 0.09]


def write(path, volume, sidecar=None, affine=None):
    """An image with its sidecar."""
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine), path)
    if sidecar is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def series(folder):
    """Four echoes of T2 = 60 ms, each a file of its own."""
    g = np.random.default_rng(0)
    level = 100 + 20 * g.random((4, 5, 3), dtype=np.float32)
    return [
        write(folder / f"sub-01_echo-{i + 1}_MESE.nii.gz", level * np.float32(np.exp(-te / 0.06)), {"EchoTime": te})
        for i, te in enumerate(ECHOES)
    ]


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_echoes_become_one_scan_with_their_times(tmp_path):
    images = series(tmp_path)
    out, acquisition = join_images(images, out=tmp_path / "joined" / "sub-01_MESE.nii.gz")
    np.testing.assert_allclose(acquisition.te, 1000 * np.array(ECHOES), rtol=1e-6)
    found = nib.load(out)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(found.dataobj[..., i], nib.load(image).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(found.affine, np.diag([2.0, 2.0, 2.0, 1.0]))
    scan = read_scan(out, need=("te",))
    np.testing.assert_allclose(scan.acquisition.te, 1000 * np.array(ECHOES), rtol=1e-6)
    assert json.loads(out.with_name("sub-01_MESE.json").read_text())["Sources"] == [image.name for image in images]


def test_they_are_fitted_with_no_further_option(run, tmp_path):
    images = [str(image) for image in series(tmp_path)]
    code, said, error = run("join", *images, "--out", "joined.nii.gz")
    assert (code, said) == (0, "joined.nii.gz\n")
    assert "4 volumes, with te from the sidecars" in error
    mask = write(tmp_path / "mask.nii.gz", np.ones((4, 5, 3), np.float32))
    code, _, error = run("fit", "joined.nii.gz", "--signal", "t2_decay", "--recipe", "least_squares", "--sigma", 0.5,
                         "--mask", mask, "--out", "fit", "--quiet")  # fmt: skip
    assert code == 0, error
    (path,) = (tmp_path / "fit").glob("*param-T2_stat-mean_*.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), 0.06, rtol=1e-3)  # s


def test_runs_of_a_diffusion_scan_keep_their_gradients(tmp_path):
    images = []
    for run_, n in (("1", 3), ("2", 2)):
        image = write(tmp_path / f"run-{run_}_dwi.nii.gz", np.ones((2, 2, 2, n), np.int16), {"EchoTime": 0.08})
        stem = tmp_path / f"run-{run_}_dwi"
        stem.with_suffix(".bval").write_text(" ".join(["0", "1000", "2000"][:n]))
        stem.with_suffix(".bvec").write_text("\n".join([" ".join("100"[:n]), " ".join("010"[:n]), " ".join("001"[:n])]))
        images.append(image)
    out, acquisition = join_images(images, out=tmp_path / "all_dwi.nii.gz")
    assert acquisition.bval.tolist() == [0, 1, 2, 0, 1]
    assert nib.load(out).shape == (2, 2, 2, 5)
    assert nib.load(out).get_data_dtype() == np.float32
    assert (tmp_path / "all_dwi.bval").is_file()
    assert (tmp_path / "all_dwi.bvec").is_file()


def other_grid(images):
    write(images[1], np.ones((4, 5, 2), np.float32))


def moved(images):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = 30
    write(images[1], np.ones((4, 5, 3), np.float32), affine=affine)


def no_sidecar(images):
    images[2].with_name("sub-01_echo-3_MESE.json").unlink()


def no_sidecars(images):
    for image in images:
        image.with_name(image.name.replace(".nii.gz", ".json")).unlink()


def taken(images):
    (images[0].parent / "out.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_grid, "join needs one grid"),
        (moved, "different affines"),
        (no_sidecar, "states no te, which others of the series do"),
        (no_sidecars, "no settings were found"),
        (taken, "out.json lie in .* already; give --overwrite"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_written(tmp_path, spoil, message):
    images = series(tmp_path)
    spoil(images)
    before = everything(tmp_path)
    with pytest.raises(InputError, match=message):
        join_images(images, out=tmp_path / "out.nii.gz")
    assert everything(tmp_path) == before


def test_long_echo_times_are_read_back_as_they_were(tmp_path):
    images = series(tmp_path)
    for image, te in zip(images, (1600, 1700, 1800, 1900), strict=True):  # ms; 1600 s is no echo time
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps({"EchoTime": te}))
    out, acquisition = join_images(images, out=tmp_path / "out.nii.gz")
    assert acquisition.te.tolist() == [1600, 1700, 1800, 1900]
    found = read_scan(out, need=("te",)).acquisition
    np.testing.assert_allclose(found.te, acquisition.te, rtol=1e-6)


def test_times_that_no_scan_has_lose_nothing(tmp_path):
    images = series(tmp_path)
    for image, te in zip(images, (6000, 7000, 8000, 9000), strict=True):
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps({"EchoTime": te}))
    (tmp_path / "out.json").write_text("{}")
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"neither s \(.*\) nor ms \(6000 to 9000 ms\) is possible"):
        join_images(images, out=tmp_path / "out.nii.gz", overwrite=True)
    assert everything(tmp_path) == before


def test_calls_that_make_no_sense(tmp_path):
    images = series(tmp_path)
    for wrong, out, message in (
        (images[:1], tmp_path / "out.nii.gz", "two images"),
        (images, tmp_path / "out.mgz", "must end in"),
        (images, images[0], "is one of the images"),
    ):
        with pytest.raises(InputError, match=message):
            join_images(wrong, out=out)
    join_images(images, out=tmp_path / "out.nii.gz")
    join_images(images[::-1], out=tmp_path / "out.nii.gz", overwrite=True)
    assert read_scan(tmp_path / "out.nii.gz", need=("te",)).acquisition.te[0] == pytest.approx(90)
