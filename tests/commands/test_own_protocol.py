"""`--weights` and `--grad-dev` from files to maps, notes and refusals."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pyroqmri.cli import cli
from pyroqmri.errors import InputError
from tests.helpers import sphere

pytestmark = pytest.mark.usefixtures("no_pages")

SHAPE = (6, 6, 2)
BVAL = np.repeat([0.0, 1.0, 2.0], [4, 14, 14])
BVEC = np.concatenate([np.zeros((4, 3)), sphere(14), sphere(14, seed=1)])
SKEW = np.array([[0.04, 0.03, 0.0], [-0.02, 0.05, 0.01], [0.0, 0.02, 0.06]])  # row i: what adds to component i
OUT = np.arange(5, len(BVAL), 9)  # volumes that are garbage in half of the image


def run(*words):
    """Exit code and what is on standard error; the command line turns an InputError into exit code 2."""
    try:
        found = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    except InputError as error:
        return 2, str(error)
    return found.exit_code, found.stderr


def write(path, values, affine=None):
    nib.save(
        nib.Nifti1Image(np.asarray(values, np.float32), np.diag([2.0, 2, 2, 1]) if affine is None else affine), path
    )
    return path


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Tensors of one shape seen through deviating gradients, with spoiled measurements; MD is 0.8."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    frames = np.linalg.qr(rng.normal(size=(*SHAPE, 3, 3)))[0]
    D = np.einsum("...ij,j,...kj->...ik", frames, [1.7, 0.4, 0.3], frames)
    v = BVEC @ (np.eye(3) + SKEW).T
    y = 1000 * np.exp(-BVAL * np.einsum("mi,...ij,mj->...m", v, D, v))
    y = np.hypot(y + rng.normal(scale=15, size=y.shape), rng.normal(scale=15, size=y.shape))
    weights = np.ones_like(y)
    weights[:3, :, :, OUT] = 0
    write(folder / "sub-1_dwi.nii.gz", np.where(weights > 0, y, 3000))
    write(folder / "weights.nii.gz", weights)
    # FSL's order: what the x gradient adds to the three components, then y, then z
    write(folder / "grad_dev.nii.gz", np.broadcast_to(SKEW.T.ravel(), (*SHAPE, 9)))
    write(folder / "mask.nii.gz", np.ones(SHAPE))
    np.savetxt(folder / "sub-1_dwi.bval", 1000 * BVAL[None], fmt="%g")
    np.savetxt(folder / "sub-1_dwi.bvec", BVEC.T, fmt="%.7f")
    return folder


def maps(folder, name):
    (found,) = folder.glob(f"*param-{name}_stat-mean_dwimap.nii.gz")
    return nib.load(found).get_fdata()


def words(scan, *more):
    image = scan / "sub-1_dwi.nii.gz"
    return (
        "fit",
        image,
        "--signal",
        "dti",
        "--recipe",
        "least_squares",
        "--mask",
        scan / "mask.nii.gz",
        "--quiet",
        *more,
    )


def test_fit_and_apply(scan, tmp_path):
    own = ("--weights", scan / "weights.nii.gz", "--grad-dev", scan / "grad_dev.nii.gz")
    code, error = run(*words(scan, *own, "--drop-volumes", "7", "--out", tmp_path / "fit"))
    assert code == 0, error
    found = maps(tmp_path / "fit", "MD")
    assert found.mean() == pytest.approx(0.8, rel=0.02)
    assert found[:3].mean() == pytest.approx(found[3:].mean(), rel=0.03)
    record = json.loads((tmp_path / "fit" / "fit" / "fit.json").read_text())
    assert any("weights read from weights.nii.gz: 4.7% of the measurements do not count" in n for n in record["notes"])
    assert any("gradient deviations read from grad_dev.nii.gz: b-values are 1.1" in n for n in record["notes"])
    assert record["sigma"]["value"] == pytest.approx(15, rel=0.1)  # of what counts
    assert record["own_protocol"] == ["weights", "grad_dev"]
    code, error = run(
        "apply", tmp_path / "fit", scan / "sub-1_dwi.nii.gz", "--mask", scan / "mask.nii.gz", *own, "--quiet",
        "--drop-volumes", "7", "--out", tmp_path / "again",
    )  # fmt: skip
    assert code == 0, error
    assert np.allclose(maps(tmp_path / "again", "MD"), found, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "shape", "value", "message"),
    [
        ("--weights", (*SHAPE, 5), 1.0, "have 5 volumes and the image 32"),
        ("--weights", (*SHAPE, 32), 2.0, "are 2 to 2 inside the mask"),
        ("--grad-dev", (*SHAPE, 6), 0.0, "has 6 volumes, and a tensor per voxel has nine"),
        ("--grad-dev", (*SHAPE, 9), 4.0, "divide values in per cent by 100"),
        ("--grad-dev", (4, 4, 2, 9), 0.0, "does not lie on the grid"),
    ],
)
def test_what_is_wrong_with_a_file(scan, tmp_path, option, shape, value, message):
    path = write(tmp_path / "x.nii.gz", np.full(shape, value))
    code, error = run(*words(scan, option, path, "--out", tmp_path / "out"))
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_commands_that_see_one_protocol(scan, tmp_path):
    own = ("--weights", scan / "weights.nii.gz", "--out", tmp_path / "out")
    image = scan / "sub-1_dwi.nii.gz"
    code, error = run(
        "compare", image, "--signal", "dti", "--recipe", "least_squares", "--recipe", "hierarchical", *own
    )
    assert (code, "compare does not take --weights" in error) == (2, True)
    code, error = run("fit", image, "--signal", "dti", "--recipe", "self_supervised", *own)
    assert (code, "makes the protocol differ between voxels" in error) == (2, True)
