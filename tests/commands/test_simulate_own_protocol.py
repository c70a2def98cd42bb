"""`pyroqmri simulate --weights --grad-dev`: what is measured, and files that `fit` takes."""

import json

import nibabel as nib
import numpy as np
import pytest

import pyroqmri as pq
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.protocol_files import ProtocolFiles
from pyroqmri.commands.simulate import S0, simulate_files
from pyroqmri.errors import InputError
from tests.helpers import sphere

SHAPE = (8, 8, 4)
BVAL = np.repeat([0.0, 1.0, 2.0], [4, 14, 14])
BVEC = np.concatenate([np.zeros((4, 3)), sphere(14), sphere(14, seed=1)])
SKEW = np.array([[0.04, 0.03, 0.0], [-0.02, 0.05, 0.01], [0.0, 0.02, 0.06]])  # row i: what adds to component i
LOST, HALF = 6, 20  # a volume without signal, and one that counts a quarter


def save(path, values):
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), np.diag([2.0, 2, 2, 1])), path)
    return path


def read(folder, name):
    return nib.load(folder / name).get_fdata()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    np.savetxt(folder / "bval", 1000 * BVAL[None], fmt="%g")
    np.savetxt(folder / "bvec", BVEC.T, fmt="%.7f")
    weights = np.ones((*SHAPE, len(BVAL)))
    weights[..., LOST], weights[..., HALF] = 0, 0.25
    save(folder / "weights.nii.gz", weights)
    # FSL's order: what the x gradient adds to the three components, then y, then z
    save(folder / "grad_dev.nii.gz", np.broadcast_to(SKEW.T.ravel(), (*SHAPE, 9)))
    return folder


def call(files, out, **more):
    protocol = ProtocolFiles(bval=files / "bval", bvec=files / "bvec")
    ranges = {"D": [0.6, 1.0]}
    return simulate_files("msdki", "uniform", out=out, shape=SHAPE, protocol=protocol, ranges=ranges, **more)


def test_what_is_measured_is_the_signal_at_the_gradients_that_each_voxel_sees(files, tmp_path):
    own = {"weights": files / "weights.nii.gz", "grad_dev": files / "grad_dev.nii.gz"}
    out = call(files, tmp_path / "clean", noise="none", **own)
    D, K = (read(out, f"sub-sim_param-{name}_truth_dwimap.nii.gz")[..., None] for name in "DK")
    b = BVAL * ((BVEC @ (np.eye(3) + SKEW).T) ** 2).sum(-1)
    expected = S0 * np.exp(-b * D + b**2 * D**2 * K / 6)
    expected[..., LOST] = 0
    np.testing.assert_allclose(read(out, "sub-sim_dwi.nii.gz"), expected, rtol=2e-4, atol=1e-3)
    noisy = call(files, tmp_path / "noisy", noise="gaussian", snr=50, **own)
    sd = (read(noisy, "sub-sim_dwi.nii.gz") - expected).std((0, 1, 2))
    level = np.where(np.arange(len(BVAL)) == HALF, 2, 1) * S0 / 50  # a quarter of the weight is twice the noise
    np.testing.assert_allclose(sd, level, rtol=0.2)  # 256 voxels: five standard errors
    for name in own:
        assert np.array_equal(read(noisy, f"sub-sim_{name}.nii.gz"), read(files, f"{name}.nii.gz"))
    assert json.loads((noisy / "simulate.json").read_text())["call"]["weights"] == str(files / "weights.nii.gz")


def test_the_files_are_what_fit_takes(files, run, tmp_path):
    own = ("--weights", files / "weights.nii.gz", "--grad-dev", files / "grad_dev.nii.gz")
    protocol = ("--bval", files / "bval", "--bvec", files / "bvec", "--shape", *SHAPE, "--range", "D=[0.6,1]")
    code, _, error = run("simulate", "--signal", "msdki", "--phantom", "uniform", "--snr", 200, *protocol, *own,
                         "--out", "sim")  # fmt: skip
    assert code == 0
    assert "fit it with --weights sim/sub-sim_weights.nii.gz" in error
    assert "fit it with --grad-dev sim/sub-sim_grad_dev.nii.gz" in error
    sim = tmp_path / "sim"
    beside = {name: sim / f"sub-sim_{name}.nii.gz" for name in ("mask", "weights", "grad_dev")}
    scan = ScanFiles(sim / "sub-sim_dwi.nii.gz", **beside).read("msdki")
    call = {"signal": "msdki", "recipe": "least_squares", "sigma": S0 / 200, "inputs": scan.inputs}
    found = pq.fit(scan.y, scan.acquisition, **call).posterior(scan.y, inputs=scan.inputs).mean["D"].numpy()
    truth = read(sim, "sub-sim_param-D_truth_dwimap.nii.gz").ravel()
    assert abs(np.median(found / truth) - 1) < 0.01  # with nominal gradients it is a tenth too large


@pytest.mark.parametrize(
    ("option", "shape", "value", "message"),
    [
        ("weights", (*SHAPE, 5), 1.0, "the number of volumes is 5, and the protocol 32"),
        ("weights", (*SHAPE, 32), 2.0, "weights must be from 0 to 1"),
        ("weights", (2, 2, 2, 32), 1.0, r"has shape \(2, 2, 2\) and the phantom \(8, 8, 4\)"),
        ("grad_dev", (*SHAPE, 6), 0.0, "the number of volumes is 6, and a tensor per voxel has nine"),
        ("grad_dev", (*SHAPE, 9), 4.0, "divide values in per cent by 100"),
        ("grad_dev", (*SHAPE, 9), np.nan, "has NaN inside the phantom"),
    ],
)
def test_what_is_wrong_with_a_file(files, tmp_path, option, shape, value, message):
    path = save(tmp_path / "own.nii.gz", np.full(shape, value))
    with pytest.raises(InputError, match=message):
        call(files, tmp_path / "sim", snr=20, **{option: path})
    assert not (tmp_path / "sim").exists()


def test_deviations_need_directions(files, tmp_path):
    with pytest.raises(InputError, match=r"the scan has no gradient directions \(bvec\)"):
        simulate_files("msdki", "uniform", out=tmp_path / "sim", snr=20, shape=SHAPE,
                       protocol=ProtocolFiles(bval=files / "bval"), grad_dev=files / "grad_dev.nii.gz")  # fmt: skip
