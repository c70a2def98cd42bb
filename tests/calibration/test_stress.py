"""A check with the noise of a scan's residuals fails where its own population cannot; stress names what breaks.

Scans are numpy's. Coverages are of 600 voxels: a standard error of 0.012 at 0.9.
"""

import functools

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.calibration.check import check
from pyroqmri.calibration.simulated_voxels import scan_voxels
from pyroqmri.calibration.stress import StressRow, stress, stress_sentence
from pyroqmri.commands.check import stress_table, untested
from pyroqmri.errors import InputError
from tests.misfit.test_by_direction import magnitudes

B = np.concatenate([np.zeros(4), np.repeat([0.5, 1.0, 2.0, 3.0], 6)])
SETTINGS = {"training.steps": 60}


@functools.cache
def scan(told=1.0, likelihood="rician", sigma=0.05):
    rng = np.random.default_rng(3)
    D, K = rng.normal(1.0, 0.12, (300, 1)), rng.normal(0.9, 0.2, (300, 1))
    y = magnitudes(np.exp(-B * D + (B * D) ** 2 * K / 6), sigma, rng)
    return pq.fit(
        y, pq.Acquisition(bval=B), signal="msdki", recipe="hierarchical", sigma=told * sigma, settings=SETTINGS,
        likelihood=likelihood,
    )  # fmt: skip


def test_a_right_fit_passes_with_the_noise_of_its_scan():
    fit = scan()
    assert fit.residual_noise.magnitude
    assert fit.residual_noise.ratio == pytest.approx(1.0, abs=0.05)
    assert check(fit, n=600, truth="scan").holds


def test_a_noise_level_1_3_times_off_fails_it_and_not_its_own_population():
    fit = scan(1 / 1.3)
    assert check(fit, n=600, truth="own").holds
    found = check(fit, n=600, truth="scan")
    assert not found.holds
    assert any("intervals too narrow" in cell.faults for cell in found.cells)


def test_a_gaussian_likelihood_on_magnitudes_fails_it():
    fit = scan(likelihood="gaussian", sigma=0.15)
    assert check(fit, n=600, truth="own").holds
    assert not check(fit, n=600, truth="scan").holds


def test_the_simulated_noise_is_that_of_the_residuals():
    fit = scan(1 / 1.3)
    found = scan_voxels(fit, 2000, 0)
    b0 = found.y[:, :4]  # S0 is 1: far above the noise
    assert float(b0.std(1).mean()) == pytest.approx(0.05 * 0.921, rel=0.05)  # of four values, 0.921 sigma
    assert found.sigma == pytest.approx(0.05 / 1.3, rel=1e-5)


def test_a_fit_without_residuals_says_so():
    rng = np.random.default_rng(0)
    y = magnitudes(np.exp(-B * rng.normal(1.0, 0.12, (60, 1))), 0.05, rng)
    fit = pq.fit(y, pq.Acquisition(bval=B), signal="msdki", recipe="hierarchical", settings={"training.steps": 2})
    with pytest.raises(InputError, match="fewer than 200 voxels"):
        check(fit, n=200, truth="scan")


def test_the_noise_of_the_residuals_is_saved_with_the_fit(tmp_path):
    fit = scan()
    fit.save(tmp_path / "fit")
    assert pq.load_fit(tmp_path / "fit").residual_noise == fit.residual_noise


def test_stress_names_what_breaks():
    rows = {row.name: row for row in stress(scan(), n=300)}
    assert len(rows) == 6  # no second fibre in a signal without directions
    quiet, loud = (rows[f"noise {factor:g} times the level that is given"].coverage for factor in (0.8, 1.25))
    for name in ("D", "K"):
        assert quiet[name] > 0.88
        assert loud[name] < quiet[name] - 0.03
    lesion = rows["tissue 2 sd from the population (a lesion)"]
    assert min(lesion.coverage.values()) < 0.85
    torch.testing.assert_close(sum(row.fine for row in rows.values()) / 6, 0.9, atol=0.1, rtol=0)


def test_the_sentences_state_what_was_and_was_not_tried():
    rows = [
        StressRow("louder noise", 300, {"D": 0.7, "K": 0.85}, 0.96),
        StressRow("quiet", 300, {"D": 0.9, "K": 0.9}, 1),
    ]
    assert stress_sentence(rows) == (
        "Under stress 90 % intervals contain fewer than 80 % of the truths with louder noise (D 70%; 96% of voxels "
        "with status fine)."
    )
    assert "2 conditions" in stress_sentence([rows[1], rows[1]])
    assert untested({}, ()).startswith(
        "Not tested: the noise of the scan itself, tissue outside the population, noise of"
    )
    assert "lesions" not in untested({}, rows)
    assert "| louder noise | 0.70 | 0.85 | 96% |" in stress_table(rows)
