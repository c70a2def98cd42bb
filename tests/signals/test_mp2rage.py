"""MP2RAGE: the uniform image and the pair, Marques' equations, B1, timing from BIDS sidecars."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.commands import fit_image
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.join import join_series
from pyroqmri.errors import InputError
from pyroqmri.signals import MP2RAGE, BoundSignal, mp2rage_acquisition

pytestmark = pytest.mark.usefixtures("no_pages")

TI, FLIP, TR, SPACING, N = (700.0, 2500.0), np.radians([4.0, 5.0]), 5000.0, 7.0, 160
T1 = np.array([500.0, 850, 1350, 2000, 4000])


def marques(T1: np.ndarray, b1: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Both images by equations A1.1 to A1.4 of Marques et al. 2010, which count excitations as half and half."""
    E1, half = np.exp(-SPACING / T1), N // 2
    EA = np.exp(-(TI[0] - half * SPACING) / T1)
    EB = np.exp(-(TI[1] - TI[0] - N * SPACING) / T1)
    EC = np.exp(-(TR - TI[1] - half * SPACING) / T1)
    c1, c2 = np.cos(b1 * FLIP) * 1.0
    x1, x2 = c1 * E1, c2 * E1
    mz = ((1 - EA) * x1**N + (1 - E1) * (1 - x1**N) / (1 - x1)) * EB + 1 - EB
    mz = (mz * x2**N + (1 - E1) * (1 - x2**N) / (1 - x2)) * EC + 1 - EC
    mz = mz / (1 + 0.96 * (c1 * c2) ** N * np.exp(-TR / T1))
    one = (-0.96 * mz * EA + 1 - EA) * x1**half + (1 - E1) * (1 - x1**half) / (1 - x1)
    two = (mz - (1 - EC)) / (EC * x2**half) - (1 - E1) * (x2**-half - 1) / (1 - x2)
    return np.sin(b1 * FLIP[0]) * one, np.sin(b1 * FLIP[1]) * two


def ratio(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return one * two / (one**2 + two**2)


def protocol(uniform: bool):
    return mp2rage_acquisition(TI, FLIP.tolist(), TR, SPACING, N, uniform=uniform)


@pytest.mark.parametrize("b1", [0.8, 1.0, 1.2])
def test_it_is_the_published_steady_state(b1):
    theta = {"T1": torch.as_tensor(T1)}, {"B1": torch.full((5,), b1, dtype=torch.float64)}
    pair = BoundSignal(MP2RAGE, protocol(False)).double()(*theta).numpy()
    one, two = marques(T1, b1)
    np.testing.assert_allclose(pair, np.stack([one, two], 1), rtol=1e-5)
    uniform = BoundSignal(MP2RAGE, protocol(True)).double()(*theta).numpy()
    np.testing.assert_allclose(uniform[:, 0], ratio(one, two), rtol=1e-5)
    # either image alone is that of the whole cycle
    second = BoundSignal(MP2RAGE, protocol(False)[[1]]).double()(*theta).numpy()
    np.testing.assert_allclose(second[:, 0], two, rtol=1e-5)


@pytest.mark.parametrize("uniform", [True, False])
def test_t1_comes_back(uniform):
    rng = np.random.default_rng(0)
    truth, b1 = rng.uniform(500, 2500, 200), rng.uniform(0.8, 1.2, 200)
    images = np.array([marques(t, b) for t, b in zip(truth, b1, strict=True)])
    y = ratio(*images.T)[:, None] if uniform else 1000 * images
    sigma = 1e-4 if uniform else 0.1
    fit = pq.fit(y, protocol(uniform), signal="mp2rage", recipe="least_squares", sigma=sigma,
                 inputs={"B1": torch.as_tensor(b1, dtype=torch.float32)})  # fmt: skip
    post = fit.posterior(y, inputs={"B1": torch.as_tensor(b1, dtype=torch.float32)})
    np.testing.assert_allclose(post.mean["T1"], truth, rtol=0.01)
    assert ("S0" in post.mean) != uniform  # a ratio has none
    if uniform:
        near = np.abs(b1 - 1) < 0.03  # whose slope is that without B1; with other B1 two long T1 may have one ratio
        slope = (ratio(*marques(truth * 1.001)) - ratio(*marques(truth * 0.999))) / (0.002 * truth)
        np.testing.assert_allclose(post.sd["T1"].numpy()[near], (sigma / np.abs(slope))[near], rtol=0.25)


def test_magnitudes_of_the_pair_are_refused():
    y = np.abs(1000 * np.array(marques(np.linspace(500, 4000, 200))).T)
    with pytest.raises(InputError, match="give the uniform image"):
        pq.fit(y, protocol(False), signal="mp2rage", recipe="least_squares", sigma=1.0)


def test_trains_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="left before the first train"):
        mp2rage_acquisition((300.0, 2500.0), (0.07, 0.09), TR, SPACING, N)
    with pytest.raises(InputError, match="two inversion times"):
        mp2rage_acquisition((700.0,), (0.07,), TR, SPACING, N)


CYCLE = {"RepetitionTimePreparation": TR / 1000, "RepetitionTimeExcitation": SPACING / 1000, "NumberShots": N}


def write(path, values: np.ndarray, **sidecar) -> None:
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 2, 1])), path)
    if sidecar:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))


def test_a_uniform_image_of_a_scanner_becomes_a_map(tmp_path):
    truth = np.linspace(700, 1500, 27).reshape(3, 3, 3)
    one, two = marques(truth)
    for i, image in enumerate((one, two)):
        write(tmp_path / f"sub-1_inv-{i + 1}_MP2RAGE.nii.gz", 1000 * image, InversionTime=TI[i] / 1000,
              FlipAngle=[4, 5][i], **CYCLE)  # fmt: skip
    write(tmp_path / "sub-1_UNIT1.nii.gz", np.round(4095 * (ratio(one, two) + 0.5)), MagneticFieldStrength=3)
    write(tmp_path / "mask.nii.gz", np.ones((3, 3, 3)))
    files = ScanFiles(tmp_path / "sub-1_UNIT1.nii.gz", mask=tmp_path / "mask.nii.gz")
    out = fit_image(files, signal="mp2rage", recipe="least_squares", sigma=1e-3, out=tmp_path / "out")
    (path,) = out.glob("sub-1_model-mp2rage_param-T1_stat-mean_T1map.nii.gz")
    np.testing.assert_allclose(1000 * np.asarray(nib.load(path).dataobj), truth, rtol=0.01)
    notes = json.loads((out / "fit" / "fit.json").read_text())["notes"]
    assert any("stored from 0 to 4095" in note for note in notes)
    assert "timing of both trains read from the sidecars of the pair" in notes
    pair = join_series(sorted(tmp_path.glob("*_MP2RAGE.nii.gz")), out=tmp_path / "sub-2_MP2RAGE.nii.gz").path
    out = fit_image(ScanFiles(pair, mask=tmp_path / "mask.nii.gz"), signal="mp2rage", recipe="least_squares", sigma=0.1,
                    out=tmp_path / "both")  # fmt: skip
    (path,) = out.glob("*_param-T1_stat-mean_T1map.nii.gz")
    np.testing.assert_allclose(1000 * np.asarray(nib.load(path).dataobj), truth, rtol=0.01)


def test_a_sidecar_without_timing_is_named(tmp_path):
    write(tmp_path / "sub-1_UNIT1.nii.gz", np.zeros((2, 2, 2)), InversionTime=[0.7, 2.5], FlipAngle=[4, 5])
    with pytest.raises(InputError, match="states no RepetitionTimePreparation and no RepetitionTimeExcitation and no"):
        ScanFiles(tmp_path / "sub-1_UNIT1.nii.gz").read("mp2rage")
