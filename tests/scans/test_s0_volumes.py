"""Which volumes make S0: one answer, the count that is used, whatever the protocol's lowest b-value."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.commands import ScanFiles, fit_image
from pyroqmri.errors import InputError
from pyroqmri.fitting.denoiser import fit_denoiser
from pyroqmri.measurements.directions import direction_warnings
from pyroqmri.measurements.preparation import Preparation, prepare_for
from pyroqmri.measurements.s0 import s0_volumes
from pyroqmri.signals import SIGNALS

N = 200


def magnitude(s: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hypot(s + sigma * rng.normal(size=s.shape), sigma * rng.normal(size=s.shape)).astype(np.float32)


def kurtosis_scan(b: np.ndarray, D: float = 1.2, K: float = 0.8, sigma: float = 8.0) -> np.ndarray:
    b = np.asarray(b, float) / 1000
    return magnitude(np.tile(1000 * np.exp(-b * D + (b * D) ** 2 * K / 6), (N, 1)), sigma)


def perfusion_scan(b: np.ndarray, f: float = 0.25, fast: float = 70.0, slow: float = 1.1, sigma: float = 6.0):
    b = np.asarray(b, float) / 1000
    return magnitude(np.tile(1000 * (f * np.exp(-b * (fast + slow)) + (1 - f) * np.exp(-b * slow)), (N, 1)), sigma)


def settings_of(b) -> pq.Acquisition:
    return pq.Acquisition(bval=np.asarray(b, float) / 1000)


LISTS = {
    "50 first": [50] * 2 + [400] * 6 + [800] * 6 + [1500] * 6,
    "10 first": [10] * 4 + [500] * 8 + [1000] * 8 + [2000] * 8,
    "60 and 65 first": [60, 65] * 3 + [1000] * 10 + [2000] * 10,
    "20 among many": [20] * 3 + [100] * 3 + [300] * 4 + [700] * 6 + [1000] * 6 + [1400] * 6,
}


@pytest.mark.parametrize("name", LISTS)
def test_a_lowest_b_that_is_not_negligible_is_no_s0(name):
    b = LISTS[name]
    fit = pq.fit(kurtosis_scan(b), settings_of(b), signal="msdki", recipe="least_squares")
    assert fit.preparation.s0 == "inferred"
    assert f"the lowest b-value is {min(b)} s/mm2" in fit.preparation.note(fit.acquisition)
    mean = fit.posterior(kurtosis_scan(b)).mean
    # the mean of 200 voxels whose sd is below 0.06 and 0.2
    assert float(mean["D"].mean()) == pytest.approx(1.2, abs=0.02)
    assert float(mean["K"].mean()) == pytest.approx(0.8, abs=0.06)
    assert not fit.warnings


@pytest.mark.parametrize(
    ("signal", "b", "n"),
    [
        ("msdki", [5] * 6 + [1000] * 10 + [2000] * 10, 6),  # the b0s of the Human Connectome Project
        ("msdki", [0, 5, 0, 5] + [1000] * 10 + [2000] * 10, 4),
        ("msdki", [0] * 3 + [10] * 3 + [1000] * 10 + [2000] * 10, 3),
        ("ivim", [0, 1, 2, 5, 10, 20, 50, 100, 200, 400, 800] * 4, 4),
        ("ivim", [0] + [5, 10, 20, 40, 80, 150, 300, 600] * 3, 1),
        ("ivim", [1, 5, 10, 20, 40, 80, 150, 300, 600] * 3, 0),
        ("ivim", [5, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800], 0),
    ],
)
def test_the_count_that_is_stated_is_the_count_that_is_used(signal, b, n):
    acq = settings_of(b)
    preparation = prepare_for(
        SIGNALS[signal], acq, torch.ones(5, len(b)), s0="measured", average="auto", magnitude=True
    )
    note, seen = preparation.note(acq), preparation.seen(acq)
    assert (seen.n_s0 or 0) == n
    assert len(seen.acquisition) == len(b) - n
    assert preparation.s0 == ("measured" if n else "inferred")
    if n:
        assert note.startswith(f"S0 is measured on {n} volume")
    else:
        assert note.startswith("S0 is inferred: the lowest b-value is")


@pytest.mark.parametrize(
    "b",
    [
        [0, 1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 400, 600, 800] * 4,
        [0, 2, 4, 8, 15, 30, 60, 120, 250, 500, 800] * 6,
        [5, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800] * 4,
    ],
)
def test_perfusion_keeps_its_low_b_values(b):
    fit = pq.fit(perfusion_scan(b), settings_of(b), signal="ivim", recipe="least_squares")
    mean = fit.posterior(perfusion_scan(b)).mean
    # five standard errors of the mean of 200 voxels, whose sds are at most .02 and 8
    assert float(mean["f"].median()) == pytest.approx(0.25, abs=0.007)
    assert float(mean["D_fast"].median()) == pytest.approx(70, abs=3)
    assert fit.sigma == pytest.approx(6, rel=0.1)
    assert not fit.warnings


def test_saturation_that_is_never_far_leaves_s0_to_be_inferred():
    near = np.r_[-15.6, np.arange(-6, 6.01, 0.25)]
    assert not s0_volumes(pq.Acquisition(offset=near), 0.0).any()
    acq = pq.Acquisition(offset=near)
    found = prepare_for(
        SIGNALS["cest_lorentz"], acq, torch.ones(2, len(near)), s0="measured", average="auto", magnitude=True
    )
    assert found.s0 == "inferred"
    assert "15.6 ppm" in found.note(acq)


@pytest.mark.parametrize("signal", ["t1_inversion", "t2_adc"])
def test_relaxation_leaves_nothing_to_measure_s0_on(signal):
    acq = SIGNALS[signal].default_protocol
    found = prepare_for(SIGNALS[signal], acq, torch.ones(2, len(acq)), s0="measured", average="auto", magnitude=True)
    assert found.s0 == "inferred"


def test_a_fit_is_read_back_as_it_was(tmp_path):
    b = [0, 1, 2, 5, 10, 30, 80, 150, 300, 600] * 3
    y, acq = perfusion_scan(b), settings_of(b)
    fit = pq.fit(y, acq, signal="ivim", recipe="least_squares")
    fit.save(tmp_path)
    again = pq.load_fit(tmp_path)
    assert again.preparation == fit.preparation
    assert torch.equal(again.posterior(y).mean["f"], fit.posterior(y).mean["f"])


def test_a_fit_of_before_keeps_the_volumes_that_it_was_trained_on():
    b = settings_of([0, 1, 2, 5, 10, 30] * 2)
    record = {"s0": "measured", "scale": 1.0, "average": False, "magnitude": True, "shortest_te": 0.0}
    old = Preparation.of(record, b)
    assert old.s0_volumes(b).tolist() == [True] * 4 + [False] * 2 + [True] * 4 + [False] * 2
    new = Preparation.of(old.record(), b)
    assert new == old
    # and b = 50 where that was the lowest
    assert Preparation.of(record, settings_of([50, 50, 400])).s0_volumes(settings_of([50, 50, 400])).sum() == 2


def test_measured_on_nothing_is_refused():
    fit = pq.fit(kurtosis_scan([0, 0, 500, 1000, 1500]), settings_of([0, 0, 500, 1000, 1500]), signal="msdki",
                 recipe="least_squares", sigma=8.0)  # fmt: skip
    with pytest.raises(InputError, match="no volume is left that S0 could be measured on"):
        fit.on(fit.acquisition, keep=torch.tensor([False, False, True, True, True]))


def test_a_denoiser_asks_for_the_value():
    b = [50] * 4 + [500] * 6 + [1000] * 6
    with pytest.raises(InputError, match=r"the lowest b-value is 50 s/mm2.*give its value with s0"):
        fit_denoiser(kurtosis_scan(b), settings_of(b), signal="msdki")


@pytest.mark.parametrize(("b", "said"), [(30, True), (45, True), (5, False)])
def test_low_b_without_a_direction_is_named(b, said):
    g = np.r_[np.zeros((3, 3)), np.eye(3), np.eye(3)[::-1]]
    acq = pq.Acquisition(bval=np.r_[[b] * 3, [1000] * 6] / 1000, bvec=g)
    preparation = prepare_for(SIGNALS["dti"], acq, torch.ones(2, 9), s0="measured", average="auto", magnitude=True)
    found = direction_warnings(SIGNALS["dti"], acq, preparation)
    assert bool(found) == said
    assert not said or "no direction (0 0 0)" in found[0]


def test_the_page_states_what_was_used_and_the_mask_is_of_the_lowest_b(tmp_path):
    b = np.r_[[50.0] * 3, np.repeat([400.0, 800.0, 1500.0], 6), 50.0]
    grid = np.indices((14, 14, 3)).astype(float)
    disc = (grid[0] - 6.5) ** 2 + (grid[1] - 6.5) ** 2 < 30
    signal = np.exp(-b * 1.2e-3 + (b * 1.2e-3) ** 2 * 0.8 / 6)
    nib.save(nib.Nifti1Image(magnitude(1000 * disc[..., None] * signal, 8), np.eye(4)), tmp_path / "dwi.nii.gz")
    np.savetxt(tmp_path / "dwi.bval", b[None], fmt="%g")
    out = fit_image(
        ScanFiles(tmp_path / "dwi.nii.gz", drop="21"), signal="msdki", recipe="least_squares", out=tmp_path / "out"
    )
    record = json.loads((out / "fit" / "fit.json").read_text())
    assert record["s0"] == "inferred"
    assert any("S0 is inferred: the lowest b-value is 50 s/mm2" in note for note in record["notes"])
    assert any("from the mean of 3 volumes with the lowest b" in note for note in record["notes"])
    assert not any("b0 volume" in note for note in record["notes"])
