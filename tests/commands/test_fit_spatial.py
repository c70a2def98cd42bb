"""The commands with recipe spatial: the image knows where its voxels lie."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pyroqmri.cli import cli

B = np.repeat([0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0], [4, 4, 4, 4, 4, 4])


def write_scan(folder, seed: int) -> str:
    """An image of 11 x 10 x 2 voxels with two regions, and a mask with a hole."""
    x = np.indices((11, 10, 2))[0][..., None]
    d, k, b = np.where(x < 6, 0.8, 1.2), np.where(x < 6, 1.0, 0.6), B / 1000
    signal = np.exp(-b * d + b**2 * d**2 * k / 6)
    noise = np.random.default_rng(seed).standard_normal((2, *signal.shape)) / 15
    image = (1000 * np.hypot(signal + noise[0], noise[1])).astype(np.float32)
    mask = np.ones((11, 10, 2), np.uint8)
    mask[3, 3] = 0
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(image, affine), folder / "dwi.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    np.savetxt(folder / "dwi.bval", B[None], fmt="%g")
    return str(folder / "dwi.nii.gz")


@pytest.mark.slow
def test_fit_and_apply_map_an_image_among_neighbours(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = write_scan(tmp_path / "one", 0), write_scan(tmp_path / "two", 1)
    shared = ["--sigma", "66.7", "--quiet"]
    mask = str(tmp_path / "one" / "mask.nii.gz")
    few = ["--set", "training.steps=10", "--set", "prior.rounds=3"]
    call = ["fit", one, "--mask", mask, "--signal", "msdki", "--recipe", "spatial", *few,
            "--out", str(tmp_path / "out"), *shared]  # fmt: skip
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 0, done.output
    found = nib.load(next((tmp_path / "out").glob("*param-D_stat-mean*.nii.gz"))).get_fdata()
    assert abs(np.median(found[:6]) - 0.8) < 0.06
    assert abs(np.median(found[6:]) - 1.2) < 0.08
    assert json.loads((tmp_path / "out" / "fit" / "fit.json").read_text())["recipe"] == "spatial"
    assert (tmp_path / "out" / "report.html").is_file()
    mask = str(tmp_path / "two" / "mask.nii.gz")
    call = ["apply", str(tmp_path / "out"), two, "--mask", mask, "--out", str(tmp_path / "new"), *shared]
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 0, done.output
    again = nib.load(next((tmp_path / "new").glob("*param-D_stat-mean*.nii.gz"))).get_fdata()
    assert np.std(again[:5]) < 0.12
    share = nib.load(next((tmp_path / "out").glob("*param-D_stat-neighbours_dwimap.nii.gz"))).get_fdata()
    alone = nib.load(next((tmp_path / "out").glob("*desc-alone_dwimap.nii.gz"))).get_fdata()
    for volume in (share, alone):
        assert volume.min() >= 0
        assert volume.max() <= 1
    assert np.median(share) > 0.4
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What neighbours add" in page
    call = ["check", str(tmp_path / "out"), "--out", str(tmp_path / "check"), "--voxels", "200"]
    done = CliRunner().invoke(cli, call)
    assert done.exit_code in (0, 1), done.output
    assert "image of the fit's own field" in (tmp_path / "check" / "check.json").read_text()
