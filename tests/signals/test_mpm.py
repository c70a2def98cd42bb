"""Multi-parameter mapping: the steady state pulse by pulse, the classical estimates, and files of BIDS."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import fit_image
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.join import join_series
from pyroqmri.errors import InputError
from pyroqmri.signals import MPM, BoundSignal

pytestmark = pytest.mark.usefixtures("no_pages")

TE = np.arange(1, 7) * 2.3
TR, FLIPS, MT = 25.0, (6.0, 21.0, 6.0), (0, 0, 1)
B1 = 1.15


def steady_state(R1: float, delta: float, flip: float, b1: float = 1.0) -> float:
    """Transverse magnetisation after the excitation, 2,000 repetitions on."""
    m, angle, decay = 1.0, b1 * np.radians(flip), np.exp(-TR * R1 / 1000)
    for _ in range(2000):
        m = m * (1 - delta)
        seen, m = m * np.sin(angle), m * np.cos(angle)
        m = 1 + (m - 1) * decay
    return seen


def contrasts(R1: float, R2star: float, MTsat: float, b1: float = 1.0) -> np.ndarray:
    delta = MTsat / 100 * b1**2 * (1 - 0.4 * b1) / 0.6
    echoes = np.exp(-TE * R2star / 1000)
    return np.concatenate([steady_state(R1, mt * delta, flip, b1) * echoes for flip, mt in zip(FLIPS, MT, strict=True)])


def test_it_is_the_steady_state_of_its_pulses():
    theta = {"R1": 1.04, "R2star": 21.0, "MTsat": 1.76}
    signal = BoundSignal(MPM, MPM.default_protocol).double()
    given = {k: torch.tensor([v], dtype=torch.float64) for k, v in theta.items()}
    for b1 in (1.0, B1):
        found = signal(given, {"B1": torch.tensor([b1], dtype=torch.float64)})[0]
        np.testing.assert_allclose(found, contrasts(**theta, b1=b1), rtol=1e-5)


def test_the_joint_fit_agrees_with_the_rational_approximation():
    """Helms et al. 2008: R1, amplitude and MTsat by hand, from measurements at TE 0."""
    R1, MTsat = 0.9, 1.5
    pd, t1, mt = (steady_state(R1, d, flip) for flip, d in ((6.0, 0.0), (21.0, 0.0), (6.0, MTsat / 100)))
    a1, a2 = np.radians(6.0), np.radians(21.0)
    r1 = 0.5 * (t1 * a2 - pd * a1) / (pd / a1 - t1 / a2) / TR
    amplitude = pd * t1 * (a2 / a1 - a1 / a2) / (t1 * a2 - pd * a1)
    delta = (amplitude * a1 / mt - 1) * r1 * TR - a1**2 / 2
    y = 1000 * np.tile(contrasts(R1, 20.0, MTsat), (4, 1))
    found = pq.fit(y, MPM.default_protocol, signal="mpm", recipe="least_squares", sigma=0.1).posterior(y).mean
    assert float(found["R1"][0]) == pytest.approx(R1, rel=1e-3)
    assert float(found["S0"][0]) == pytest.approx(1000, rel=1e-3)
    assert float(found["MTsat"][0]) == pytest.approx(MTsat, rel=2e-3)
    assert 1000 * r1 == pytest.approx(R1, rel=0.03)  # its error of second order in the angles
    assert 100 * delta == pytest.approx(MTsat, rel=0.06)


def write_series(folder, states: bool) -> list:
    """18 files named as BIDS has it, of 4 x 4 x 2 voxels, with B1 away from 1."""
    folder.mkdir()
    rng, images, k = np.random.default_rng(0), [], 0
    clean = 1000 * contrasts(1.0, 20.0, 1.7, B1)
    for i, (flip, mt) in enumerate(zip(FLIPS, MT, strict=True)):
        for echo, te in enumerate(TE):
            mt_name = "on" if mt else "off"
            name = f"sub-1_acq-{'ptm'[i]}_echo-{echo + 1}_flip-{1 + (flip > 10)}_mt-{mt_name}_MPM"
            values = np.abs(clean[k] + 0.5 * rng.standard_normal((4, 4, 2)))
            nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 2, 1])), folder / f"{name}.nii.gz")
            sidecar = {"EchoTime": te / 1000, "FlipAngle": flip, "RepetitionTimeExcitation": TR / 1000}
            sidecar |= {"MTState": bool(mt)} if states else {}
            (folder / f"{name}.json").write_text(json.dumps(sidecar))
            images.append(folder / f"{name}.nii.gz")
            k += 1
    return images


@pytest.mark.parametrize("states", [True, False])
def test_a_series_of_bids_becomes_maps(tmp_path, states):
    joined = join_series(write_series(tmp_path / "in", states), out=tmp_path / "sub-1_MPM.nii.gz")
    assert joined.acquisition.mt.tolist() == [0.0] * 12 + [1.0] * 6
    assert json.loads((tmp_path / "sub-1_MPM.json").read_text())["MTState"] == [False] * 12 + [True] * 6
    for name, volume in (("b1", np.full((4, 4, 2), B1)), ("mask", np.ones((4, 4, 2)))):
        nib.save(nib.Nifti1Image(volume.astype(np.float32), np.diag([2.0, 2, 2, 1])), tmp_path / f"{name}.nii.gz")
    files = ScanFiles(joined.path, mask=tmp_path / "mask.nii.gz", inputs={"B1": tmp_path / "b1.nii.gz"})
    if not states:
        return
    out = fit_image(files, signal="mpm", recipe="least_squares", sigma=0.5, out=tmp_path / "out")
    for name, suffix, value in (("R1", "R1map", 1.0), ("R2star", "R2starmap", 20.0), ("MTsat", "MTsat", 1.7)):
        (path,) = out.glob(f"sub-1_model-mpm_param-{name}_stat-mean_{suffix}.nii.gz")
        # 32 voxels at a signal-to-noise ratio above 100
        assert np.median(np.asarray(nib.load(path).dataobj)) == pytest.approx(value, rel=0.02)


def test_a_state_that_is_neither_on_nor_off_is_refused(tmp_path):
    with pytest.raises(InputError, match="mt must be 1 where"):
        Acquisition(te=[1.0, 2.0], mt=[0.0, 0.5])
    images = write_series(tmp_path / "in", True)
    path = images[3].with_name(images[3].name.replace(".nii.gz", ".json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"MTState": 2}))
    with pytest.raises(InputError, match=r"mt .* contains 2 for volume 0 .*give 1 for on and 0 for off"):
        join_series(images, out=tmp_path / "x_MPM.nii.gz")
