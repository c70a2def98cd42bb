"""Volumes kept aside lie inside 90 % predictive intervals nine times in ten, and seldom where a fit is wrong.

Truths and noise are numpy's. With 400 voxels and a tenth of the volumes a share has a standard error of at most 0.01,
for what voxels share is the population alone; the limits are four times that.
"""

import functools
import json

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.calibration.predicted import predicted, volumes_to_keep_aside
from pyroqmri.cli import main
from pyroqmri.commands import fit_image
from pyroqmri.errors import InputError
from tests.helpers import shells
from tests.misfit.test_by_direction import magnitudes
from tests.small_scan import SIGMA, write_scan

SETTINGS = {"training.steps": 60}
B = np.concatenate([np.zeros(3), np.repeat([0.5, 1.0, 1.5, 2.0], 10)])


@functools.cache
def kurtosis(recipe="hierarchical", n=400):
    rng = np.random.default_rng(0)
    D, K = rng.normal(1.0, 0.12, (n, 1)), rng.normal(0.9, 0.2, (n, 1))
    y = magnitudes(np.exp(-B * D + (B * D) ** 2 * K / 6), 0.05, rng)
    settings = {} if recipe == "least_squares" else SETTINGS
    return pq.fit(y, pq.Acquisition(bval=B), signal="msdki", recipe=recipe, sigma=0.05, settings=settings), y


def test_predictive_intervals_of_a_right_fit_contain_what_they_state():
    fit, y = kurtosis()
    found = predicted(fit, y)
    assert len(found.volumes) == 4  # one of each shell, and none of those that make S0
    assert min(found.volumes) >= 3
    assert found.inside == pytest.approx(0.9, abs=0.04)
    assert set(found.by_setting) == {f"b {1000 * b:g} s/mm2" for b in (0.5, 1.0, 1.5, 2.0)}
    shares = list(found.by_setting.values())
    assert np.mean(shares) == pytest.approx(found.inside, abs=1e-6)


@pytest.mark.parametrize(("told", "low", "high"), [(1 / 1.5, 0.66, 0.80), (1.5, 0.955, 1.0)])
def test_a_wrong_noise_level_shows_in_them(told, low, high):
    # a normal leaves 1.645 / 1.5 sd with probability .27, and 1.645 * 1.5 sd with .014
    assert low < predicted(*kurtosis(), sigma=0.05 * told).inside < high


def test_the_error_of_a_measured_s0_is_no_noise_of_the_others():
    rng = np.random.default_rng(1)
    b = np.concatenate([[0.0], np.repeat([0.2, 0.8], 20)])  # one b0: an error of S0 as large as the noise
    y = magnitudes(np.exp(-b * rng.normal(1.0, 0.1, (400, 1)) + b**2 * 0.15), 0.05, rng)
    fit = pq.fit(y, pq.Acquisition(bval=b), signal="msdki", recipe="hierarchical", sigma=0.05, settings=SETTINGS)
    assert predicted(fit, y).inside == pytest.approx(0.9, abs=0.04)


def test_nothing_is_kept_aside_where_it_cannot_be_spared():
    fit, y = kurtosis()
    few = fit.on(fit.acquisition, torch.arange(len(B)) < 20)
    assert predicted(few, y[:, :20]) is None
    assert predicted(*kurtosis("least_squares", 60)) is None


def test_means_over_directions_keep_an_even_half_aside():
    acq = shells(4, 60, 1.0, 2.0)
    y = np.random.default_rng(0).uniform(0.4, 0.5, (60, len(acq)))
    y[:, :4] = 1.0
    fit = pq.fit(y, acq, signal="msdki", recipe="least_squares", sigma=0.02)
    held = volumes_to_keep_aside(fit, acq)
    assert [int(((held >= a) & (held < a + 60)).sum()) for a in (4, 64)] == [30, 30]
    axes = acq.bvec[held[:30]].double().numpy()
    # an even half still averages any smooth function: the mean of (g.n)^2 over axes is 1/3 along each
    assert np.linalg.eigvalsh(axes.T @ axes / 30) == pytest.approx([1 / 3] * 3, abs=0.06)
    assert volumes_to_keep_aside(fit, shells(4, 30, 1.0, 2.0)) is None


def test_the_command_records_them(tmp_path):
    folder = fit_image(
        write_scan(tmp_path).files, signal="ball_stick", recipe="hierarchical", out=tmp_path / "out", sigma=SIGMA,
        settings={"training.steps": 20},
    )  # fmt: skip
    found = json.loads((folder / "fit" / "fit.json").read_text())["predictive"]
    assert 0.8 < found["inside"] < 0.98
    assert "kept aside inside 90 % predictive intervals" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize(("flags", "wanted"), [([], True), (["--no-predictive"], False)])
def test_they_can_be_switched_off(monkeypatch, tmp_path, flags, wanted):
    asked = {}

    def fit_image(files, **options):
        asked.update(options)
        raise InputError("enough is known")

    monkeypatch.setattr("pyroqmri.commands.fit_image", fit_image)
    arguments = ["fit", "x.nii.gz", "--signal", "msdki", "--recipe", "hierarchical", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*arguments, *flags])
    assert asked["predictive"] is wanted


@pytest.mark.slow
def test_an_s0_as_uncertain_as_it_is_large_is_not_drawn_below_zero():
    rng = np.random.default_rng(2)
    b = np.concatenate([[0.0], np.repeat([0.2, 0.8], 20)])
    level = rng.uniform(0.2, 1.0, (400, 1))  # down to the noise
    y = magnitudes(level * np.exp(-b * rng.normal(1.0, 0.1, (400, 1))), 0.15, rng)
    fit = pq.fit(y, pq.Acquisition(bval=b), signal="msdki", recipe="hierarchical", sigma=0.15, settings=SETTINGS)
    assert predicted(fit, y, sigma=0.4).inside > 0.9
