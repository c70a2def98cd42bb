"""Outlier volumes are named and left out, and only they."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.commands import ScanFiles, apply_image, fit_image
from pyroqmri.commands.apply import on_scan
from pyroqmri.commands.outlier_volumes import drop_volumes, outlier_note, outlier_volumes
from pyroqmri.errors import InputError
from pyroqmri.io import ImageRef, Scan
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate, tissue_classes, uniform
from tests.helpers import shells


def scan_of(signal: str, acq: pq.Acquisition, n: int = 300, seed: int = 0) -> Scan:
    """White and grey matter with S0 100 and SNR 25."""
    kind = SIGNALS[signal]
    theta = uniform(kind, n, seed) | tissue_classes(kind, (1, 1, 0)).sample(n, seed)[0]
    y = 100 * simulate(kind, acq, theta, snr=25, seed=seed + 1).numpy()
    mask = np.ones((n, 1, 1), bool)
    ref = ImageRef(Path("a_dwi.nii.gz"), (n, 1, 1), np.eye(4), np.ones(3), "a")
    return Scan(y, mask, acq, ref, [], None)


CASES = {"msdki": shells(6, 20, 1.0, 2.0), "ball_stick": shells(6, 20, 1.0, 2.0)}


@pytest.mark.parametrize("name", CASES)
def test_none_is_found_where_there_is_none(name):
    # false alarms: none in 20 seeds of either when this was written
    for seed in range(3):
        assert not outlier_volumes(scan_of(name, CASES[name], seed=seed), name).any()


@pytest.mark.parametrize("name", CASES)
def test_dropout_and_shuffled_volumes_are_found(name):
    scan = scan_of(name, CASES[name])
    scan.y[:, 12] *= 0.5  # dropout
    scan.y[:, 40] = scan.y[::-1, 40] + 40 * np.random.default_rng(0).random(len(scan.y))  # motion
    found = np.flatnonzero(outlier_volumes(scan, name))
    assert found.tolist() == [12, 40]
    (note,) = outlier_note(scan, name)
    assert "12" in note
    assert "40" in note
    left = drop_volumes(scan, name, "outliers")
    assert left.y.shape[1] == len(left.acquisition) == len(scan.acquisition) - 2
    assert "left out" in left.notes[-1]
    kept = [i for i in range(46) if i not in (12, 40)]
    torch.testing.assert_close(left.acquisition.bval, scan.acquisition.bval[kept])
    assert (left.y == scan.y[:, kept]).all()


@pytest.mark.parametrize("name", CASES)
def test_a_volume_spoiled_in_some_slices_is_found(name):
    scan = scan_of(name, CASES[name], n=1200)
    scan.y[::8, 20] *= 0.3  # every second of the voxels that a step of four would look at, and none of the others
    scan.y[1::8, 20] *= 0.3
    assert np.flatnonzero(outlier_volumes(scan, name)).tolist() == [20]


def test_few_volumes_of_a_b_value_that_the_signal_misfits_are_no_outliers():
    # what a multi-shell scan up to b = 6 ms/um2 showed: three volumes of b = 0.75 were named for ball-stick
    acq = shells(6, 24, 0.75, 3.0)
    scan = scan_of("ball_stick", acq[torch.cat([torch.arange(9), torch.arange(30, 54)])])
    scan.y[:, 6:9] *= 0.8
    assert not outlier_volumes(scan, "ball_stick").any()
    scan.y[:, 8] *= 0.4
    assert np.flatnonzero(outlier_volumes(scan, "ball_stick")).tolist() == [8]


def test_volumes_by_number():
    scan = scan_of("msdki", CASES["msdki"], 20)
    assert len(drop_volumes(scan, "msdki", "0,3").acquisition) == 44
    for wish, words in (("46", "0 to 45"), ("x", "numbers such as"), (",".join(map(str, range(45))), "leaves 1")):
        with pytest.raises(InputError, match=words):
            drop_volumes(scan, "msdki", wish)


@pytest.mark.slow
def test_a_spoiled_volume_is_warned_of_and_left_out(tmp_path):
    from tests.small_scan import write_scan

    scan = write_scan(tmp_path / "in")
    values = scan.values.copy()
    values[..., 20] *= 0.4
    scan.write_image(values)
    folder = fit_image(scan.image, out=tmp_path / "a", signal="ball_stick", recipe="least_squares")
    record = json.loads((folder / "fit" / "fit.json").read_text())
    assert any("volume 20 " in warning for warning in record["warnings"])
    assert "<li>Volume 20 " in (folder / "report.html").read_text()
    # the same fit on an image without the volume; its own warning was of the other image
    other = apply_image(folder, ScanFiles(scan.image, drop="4,20"), out=tmp_path / "b")
    record = json.loads((other / "fit" / "fit.json").read_text())
    assert "left out: volumes 4, 20" in " ".join(record["notes"])
    assert not any("volume 20" in warning for warning in record["warnings"])
    assert len(pq.load_fit(other).acquisition) == 25
    # an image of the full protocol goes without the same volumes
    third = apply_image(other, scan.image, out=tmp_path / "c")
    record = json.loads((third / "fit" / "fit.json").read_text())
    assert "left out: volumes 4, 20 (counted from 0), as in the training of the fit" in record["notes"]


@pytest.mark.parametrize("recipe", ["maximum_likelihood", "hierarchical", "vae_unig"])
def test_a_fit_of_all_volumes_goes_without_one(recipe):
    scan = scan_of("ball_stick", CASES["ball_stick"])
    settings = {} if recipe == "maximum_likelihood" else {"training.steps": 5}
    fit = pq.fit(scan.y, scan.acquisition, signal="ball_stick", recipe=recipe, sigma=4.0, settings=settings)
    before = fit.posterior(scan.y).mean["f"]
    scan.y[:, 12] *= 0.4
    spoiled = (fit.posterior(scan.y).mean["f"] - before).abs().median()
    kept = drop_volumes(scan, "ball_stick", "outliers")
    again = on_scan(fit, kept)
    assert len(again.acquisition) == kept.y.shape[1] == 45
    # 10 to 15 times when this was written
    assert 4 * (again.posterior(kept.y).mean["f"] - before).abs().median() < spoiled
    same = on_scan(again, drop_volumes(scan, "ball_stick", "12"))  # a fit that was trained without the volume
    assert len(same.acquisition) == 45


def test_a_network_of_all_volumes_says_that_it_needs_them():
    scan = scan_of("ball_stick", CASES["ball_stick"])
    fit = pq.fit(scan.y, scan.acquisition, signal="ball_stick", recipe="self_supervised", sigma=4.0,
                 settings={"training.epochs": 1, "training.starts": 1})  # fmt: skip
    with pytest.raises(InputError, match="self_supervised has a network of all 46 volumes, and without volume 12 "):
        on_scan(fit, drop_volumes(scan, "ball_stick", "12"))
