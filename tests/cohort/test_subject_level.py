"""The level of subjects through fits: whose voxels are drawn to whom."""

import json

import numpy as np
import pytest

import pyroqmri as pq
from pyroqmri.cohort.subject_level import cohort_levels, for_subject, population_of, read_levels, write_levels
from pyroqmri.errors import InputError

# the levels themselves are tested without fits in test_levels.py, the option in test_command.py
pytestmark = pytest.mark.slow

B = np.repeat([0.0, 1.0, 2.0], [4, 6, 6])
SNR = 12.0
OWN = np.array([0.75, 0.85, 0.95, 1.05, 1.15, 0.80])  # mean D of each subject


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    D = rng.normal(OWN[:, None], 0.06, (len(OWN), 150))
    K = rng.normal(0.8, 0.08, D.shape)
    clean = np.exp(-B * D[..., None] + B**2 * (D**2 * K)[..., None] / 6)
    real, imaginary = rng.normal(scale=1 / SNR, size=(2, *clean.shape))
    y = np.hypot(clean + real, imaginary)
    acq = pq.Acquisition(bval=B)
    flat = y.reshape(-1, len(B))
    options = {"training.steps": 40, "training.batch_size": 128}
    fit = pq.fit(flat, acq, signal="msdki", recipe="hierarchical", sigma=1 / SNR, settings=options)
    names, owner = [f"{i}" for i in range(len(OWN))], np.repeat(np.arange(len(OWN)), 150)
    levels = cohort_levels(fit, flat, np.full(len(flat), 1 / SNR), owner, names, {})
    return fit, levels, y, D


def test_scatter_is_shared_out_between_subjects_and_voxels(cohort, tmp_path):
    fit, levels, _, D = cohort
    write_levels(tmp_path, fit, levels)
    found = json.loads((tmp_path / "subject_level.json").read_text())["physical"][""]["D"]
    assert found["median"] == pytest.approx(OWN.mean(), abs=0.05)
    assert found["sd between subjects"] == pytest.approx(D.mean(1).std(ddof=1), rel=0.2)
    assert found["sd within subjects"] == pytest.approx(0.06, rel=0.3)
    # of a mean over six subjects
    assert found["sd"] == pytest.approx(D.mean(1).std(ddof=1) / 6**0.5, rel=0.25)


def test_a_subject_with_few_voxels_is_where_it_is_and_not_where_the_cohort_is(cohort):
    fit, levels, y, D = cohort
    few = y[4, :20]
    moved, mean = for_subject(fit, levels, few, 1 / SNR)
    off = {
        name: abs(float(one.posterior(few).mean["D"].mean()) - D[4, :20].mean())
        for name, one in (("cohort", fit), ("subject", moved))
    }
    # the cohort's population draws this subject, 0.2 above the mean, down
    assert off["subject"] < 0.6 * off["cohort"]
    own = population_of(moved)[0]
    assert own == pytest.approx(mean.mean, abs=1e-4)
    # the cohort's own fit is as it was
    assert not np.allclose(population_of(fit)[0], own, atol=1e-2)


def test_levels_are_read_back(cohort, tmp_path):
    fit, levels, *_ = cohort
    write_levels(tmp_path, fit, levels)
    back = read_levels(tmp_path)
    for name in ("mean", "mean_covariance", "between", "within"):
        assert getattr(back, name) == pytest.approx(getattr(levels, name))
    (tmp_path / "subject_level.json").write_text('{"mean": [[1, 2]]}')
    with pytest.raises(InputError, match="damaged"):
        read_levels(tmp_path)


def test_a_recipe_without_such_a_population_is_refused(cohort):
    _, _, y, _ = cohort
    acq = pq.Acquisition(bval=B)
    fit = pq.fit(y[0], acq, signal="msdki", recipe="least_squares", sigma=1 / SNR)
    with pytest.raises(InputError, match="needs recipe hierarchical"):
        cohort_levels(fit, y[0], np.full(150, 1 / SNR), np.zeros(150, int), ["0"], {})
