"""Estimates at a bound by noise, and by data that ask for a value beyond it; the data are numpy's."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.report import words
from pyroqmri.report.fit_numbers import FitNumbers
from pyroqmri.report.verdict import judge

TE = np.arange(10.0, 170, 10)
N = 600


def decays(floor, seed=0):
    """Mono-exponential decays of 80 ms over a constant floor, with noise of 1/40 of S0."""
    rng = np.random.default_rng(seed)
    clean = 1000 * ((1 - floor) * np.exp(-TE / 80.0) + floor)
    return clean + 25 * rng.standard_normal((N, len(TE)))


def shares(y, signal, acquisition, name, recipe="least_squares", **kwargs):
    fit = pq.fit(y, acquisition, signal=signal, recipe=recipe, sigma=25.0, likelihood="gaussian", **kwargs)
    post = fit.posterior(y)
    p = post.parameters[name]
    share = (post.mean[name] - p.lower) / (p.upper - p.lower)
    at = (share < 0.01) | (share > 0.99)
    beyond = post.beyond_bounds()[name]
    assert not bool((beyond & ~at).any())
    return float(at.float().mean()), float(beyond.float().mean())


def test_a_floor_of_zero_is_at_its_bound_by_noise_alone():
    at, beyond = shares(decays(0.0), "t2_floor", pq.Acquisition(te=TE), "floor")
    assert 0.3 < at < 0.7  # every other estimate would be below zero
    assert beyond < 0.05


def test_a_small_floor_is_too():
    at, beyond = shares(decays(0.02), "t2_floor", pq.Acquisition(te=TE), "floor")
    assert at > 0.15
    assert beyond < 0.03


def test_a_negative_floor_is_asked_for_by_the_data():
    at, beyond = shares(decays(-0.2), "t2_floor", pq.Acquisition(te=TE), "floor")
    assert at > 0.95
    assert beyond > 0.9


def test_a_decay_faster_than_any_bound_allows_is_asked_for_by_the_data():
    b = np.repeat([0.0, 0.5, 1.0], [10, 10, 10])
    rng = np.random.default_rng(0)
    y = 1000 * np.exp(-b * 9.0) + 25 * rng.standard_normal((N, len(b)))
    at, beyond = shares(y, "msdki", pq.Acquisition(bval=b), "D")
    assert at > 0.9
    assert beyond > 0.9


def test_a_direction_is_free_beside_the_bound():
    rng = np.random.default_rng(0)
    bvec = rng.standard_normal((60, 3))
    bvec /= np.linalg.norm(bvec, axis=1, keepdims=True)
    b = np.repeat([1.0, 2.0], 30)
    bval, bvec = np.r_[np.zeros(5), b], np.r_[np.zeros((5, 3)), bvec]
    clean = np.exp(-bval * 0.8)  # no stick at all
    y = 1000 * np.tile(clean, (N, 1)) + 25 * rng.standard_normal((N, len(bval)))
    at, beyond = shares(y, "ball_stick", pq.Acquisition(bval=bval, bvec=bvec), "f")
    assert beyond < 0.05
    assert at < 1


def test_populations_are_asked_the_same():
    at, beyond = shares(
        decays(-0.2), "t2_floor", pq.Acquisition(te=TE), "floor", "hierarchical", settings={"training.steps": 30}
    )
    assert beyond <= at


@pytest.mark.parametrize(
    ("at", "beyond", "level"), [(0.4, 0.01, "fine"), (0.4, 0.3, "alarm"), (0.4, None, "alarm"), (0.01, 0.01, "fine")]
)
def test_only_what_the_data_ask_for_is_an_alarm(at, beyond, level):
    numbers = FitNumbers(
        "msdki", None, None, {"K": at}, {}, "p", 0.0, None, 0.0, beyond_bound=None if beyond is None else {"K": beyond}
    )
    found = judge(numbers)
    assert found.level == level
    row = next(check for check in found.checks if "K" in check.title)
    assert row.found.startswith(words.percent(at))
    assert ("beyond" in row.found) == (beyond is not None)


def test_an_estimate_without_a_likelihood_counts_as_asked_for():
    y = decays(-0.2)
    fit = pq.fit(
        y, pq.Acquisition(te=TE), signal="t2_floor", recipe="self_supervised", sigma=25.0,
        settings={"training.epochs": 2},
    )  # fmt: skip
    post = fit.posterior(y)
    assert set(post.beyond_bounds()) == {p.name for p in fit.signal.tissue}
    assert all(value.dtype == torch.bool for value in post.beyond_bounds().values())
