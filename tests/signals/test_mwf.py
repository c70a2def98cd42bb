"""Myelin water against pools whose echoes are computed state by state."""

import numpy as np
import pytest

import pyroqmri as pq
from benchmarks.myelin_water import TE, echoes, non_negative, simulated
from pyroqmri.fitting.expected import expected_latents
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.signals import MWF, BoundSignal

TRUTH = {"MWF": np.array([0.05, 0.12, 0.2]), "T2_my": np.array([15.0, 18, 22]), "T2_ie": np.array([75.0, 80, 90])}
B1 = np.array([0.8, 0.9, 0.95])


def trains(extra: float = 0.0) -> np.ndarray:
    """Noiseless echoes of two pools, and of free water in a share of the second."""
    myelin, cells, free = (echoes(T2, B1) for T2 in (TRUTH["T2_my"], TRUTH["T2_ie"], np.full(3, 2000.0)))
    share = TRUTH["MWF"][:, None]
    return 1000 * (share * myelin + (1 - share) * ((1 - extra) * cells + extra * free))


def test_the_population_of_the_t2_of_myelin_water_is_known_unless_one_is_stated():
    signal = BoundSignal(MWF, MWF.default_protocol, infer_s0=True)
    at = [p.name for p in signal.tissue].index("T2_my")
    mean, mean_sd, log_sd, log_sd_sd = expected_latents(load_recipe("hierarchical"), signal)[:, at]
    assert mean_sd == log_sd_sd == 0
    p = signal.tissue[at]
    np.testing.assert_allclose(p.constrain(mean), 18, rtol=1e-4)
    np.testing.assert_allclose(log_sd.exp() * p.slope(mean), 4, rtol=1e-4)
    stated = load_recipe("hierarchical", {"expected.T2_my": [20.0, 5.0, 3.0]})
    assert expected_latents(stated, signal)[3, at] > 0


def test_a_recipe_without_that_population_says_what_to_fix():
    fit = pq.fit(trains(), pq.Acquisition(te=TE), signal="mwf", recipe="least_squares", sigma=0.05)
    assert any("--fix T2_my=18" in text for text in fit.warnings)


def test_least_squares_finds_the_pools_of_a_noiseless_train():
    y = trains()
    fit = pq.fit(y, pq.Acquisition(te=TE), signal="mwf", recipe="least_squares", sigma=0.05)
    mean = fit.posterior(y).mean
    for name, value in (TRUTH | {"B1": B1}).items():
        np.testing.assert_allclose(mean[name], value, rtol=0.02)


@pytest.mark.slow
def test_free_water_is_a_third_pool_on_request():
    y = trains(extra=0.1)
    ranges = {"range.FWF": [0.0, 1.0]}
    call = {"signal": "mwf", "recipe": "least_squares", "sigma": 0.05}
    found = pq.fit(y, pq.Acquisition(te=TE), settings=ranges, **call).posterior(y).mean
    np.testing.assert_allclose(found["FWF"], 0.1, atol=0.005)
    np.testing.assert_allclose(found["MWF"], TRUTH["MWF"], atol=0.005)


@pytest.mark.slow
def test_a_population_lowers_the_error_of_non_negative_least_squares():
    truth, y, sigma = simulated(300, 100.0, False, 0)
    post = pq.fit(y, MWF.default_protocol, signal="mwf", recipe="hierarchical", sigma=sigma).posterior(y)
    for name, least in {"MWF": 0.78, "T2_my": 0.9, "T2_ie": 0.85, "B1": 0.85, "S0": 0.8}.items():
        low, high = post.interval(0.9)[name].numpy().T
        # of 200 voxels 0.84, 0.98, 0.90, 0.90, 0.90 were seen, of S0 0.843 here; the population of T2_my is wide
        assert least < np.mean((low < truth[name]) & (truth[name] < high)), name
    error, usual = post.mean["MWF"].numpy() - truth["MWF"], non_negative(y) - truth["MWF"]
    assert np.sqrt(np.mean(error**2)) < 0.7 * np.sqrt(np.mean(usual**2))
