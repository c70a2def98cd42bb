"""Means over subjects against cases with a known answer, and over many simulated cohorts."""

import numpy as np
import pytest

from pyroqmri.cohort.random_effects import false_discovery, random_effects


def test_equal_uncertainties_give_the_plain_mean_and_its_t_interval():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    found = random_effects(values, np.full(4, 0.1), np.ones((4, 1)))
    assert found.beta[0] == pytest.approx(3.0)
    assert found.se[0] == pytest.approx(values.std(ddof=1) / 2, rel=1e-4)
    assert found.tau == pytest.approx(np.sqrt(values.var(ddof=1) - 0.1), rel=1e-3)
    # 2.3534 is the 95 % point of Student's t with 3 degrees of freedom
    assert found.interval(0.9)[0] == pytest.approx(3 + np.array([-1, 1]) * 2.35336 * found.se[0], rel=1e-4)


def test_a_published_meta_analysis_is_reproduced():
    """BCG vaccine, 13 trials; log risk ratio and tau2 by REML, and the Knapp-Hartung error, as metafor prints them."""
    tpos, tneg = [4, 6, 3, 62, 33, 180, 8, 505, 29, 17, 186, 5, 27], [
        119, 300, 228, 13536, 5036, 1361, 2537, 87886, 7470, 1699, 50448, 2493, 16886]  # fmt: skip
    cpos, cneg = [11, 29, 11, 248, 47, 372, 10, 499, 45, 65, 141, 3, 29], [
        128, 274, 209, 12619, 5761, 1079, 619, 87892, 7232, 1600, 27197, 2338, 17825]  # fmt: skip
    a, b, c, d = (np.array(x, float) for x in (tpos, tneg, cpos, cneg))
    y = np.log(a / (a + b)) - np.log(c / (c + d))
    v = 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    found = random_effects(y, v, np.ones((13, 1)))
    assert found.beta[0] == pytest.approx(-0.7145, abs=2e-4)
    assert found.tau**2 == pytest.approx(0.3132, abs=3e-4)
    assert found.se[0] == pytest.approx(0.1807, abs=3e-4)


def test_differences_are_covered_where_subjects_are_unequally_certain():
    rng, inside = np.random.default_rng(0), 0
    design = np.column_stack([np.ones(16), np.arange(16) % 2])
    for _ in range(60):
        variances = rng.uniform(0.001, 0.2, 16)
        values = design @ [1.0, 0.3] + rng.normal(size=16) * np.sqrt(0.05 + variances)
        low, high = random_effects(values, variances, design).interval(0.9)[1]
        inside += low < 0.3 < high
    # 60 of probability 0.9: four standard errors are 0.15
    assert inside / 60 > 0.75


def test_no_more_subjects_than_coefficients_give_nothing():
    assert random_effects(np.ones(2), np.ones(2), np.ones((2, 2))) is None
    assert random_effects(np.ones(4), np.ones(4), np.ones((4, 2))) is None  # two columns that are one


def test_false_discovery_rates():
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.5])
    assert false_discovery(p) == pytest.approx([0.04, 0.0533333, 0.0533333, np.nan, 0.5], nan_ok=True)
