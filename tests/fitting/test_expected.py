"""What is expected of a population: stated by each signal in its units, replaced by one line."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import pyroqmri as pq
from pyroqmri.errors import InputError
from pyroqmri.fitting.expected import expected_latents
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.priors import FullHierarchical, Hierarchical
from pyroqmri.priors.hierarchical import hyperprior
from pyroqmri.signals import SIGNALS, BoundSignal

CALLED = sorted(SIGNALS)


@pytest.mark.parametrize("name", CALLED)
def test_every_signal_states_its_population_with_a_source(name):
    signal = SIGNALS[name]
    scalars = {p.name for p in signal.parameters if not p.is_direction and p.unit != "a.u."}
    assert set(signal.expected) == scalars
    assert "doi:" in signal.expected_source
    for p in signal.parameters:
        if p.name in signal.expected:
            mean, uncertainty, sd = signal.expected[p.name]
            assert p.lower < mean < p.upper
            assert 0 < sd < p.upper - p.lower
            assert 0 < uncertainty < p.upper - p.lower


def test_numbers_in_units_become_those_of_latents():
    bound = BoundSignal(SIGNALS["ivim"], SIGNALS["ivim"].default_protocol)
    found = expected_latents(load_recipe("hierarchical", {"expected.D_fast": [20.0, 5.0, 2.0]}), bound).numpy()
    share = lambda x: np.log(x / 4) / np.log(1000 / 4)  # noqa: E731  of the logarithmic range in the table
    ends = norm.ppf(share(np.array([19.9, 20.1])))
    slope = (ends[1] - ends[0]) / 0.2  # of the latent by D_fast, by differences
    expected = [norm.ppf(share(20.0)), 5 * slope, math.log(2 * slope), math.log(2)]
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-3)
    ends = norm.ppf(np.array([0.1199, 0.1201]))
    np.testing.assert_allclose(found[1, 0], 0.08 * (ends[1] - ends[0]) / 0.0002, rtol=1e-3)


def test_the_hyperprior_is_that_density_and_the_weak_one_where_nothing_is_expected():
    stated = torch.tensor([[0.3, math.nan], [0.2, math.nan], [-1.0, math.nan], [0.7, math.nan]])
    loc, sd, correlation = torch.tensor([0.5, 0.4]), torch.tensor([0.3, 0.6]), torch.eye(2)
    got = float(hyperprior(loc, sd, correlation, stated) - hyperprior(loc, sd, correlation))
    by_hand = norm.logpdf(0.5, 0.3, 0.2) + norm.logpdf(math.log(0.3), -1.0, 0.7)
    by_hand -= norm.logpdf(0.5) + math.log(2 / math.pi / (1 + 0.3**2))
    assert got == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("kind", ["hierarchical", "full_hierarchical"])
def test_one_line_replaces_it(kind):
    acq = pq.Acquisition(te=torch.arange(10.0, 110, 10))
    y = 100 * np.exp(-np.arange(10.0, 110, 10) / 80) + np.random.default_rng(0).normal(0, 2, (40, 10))
    settings = {"training.steps": 2, "training.check_every": 1, "prior.kind": kind, "expected.T2": [300.0, 30.0, 10.0]}
    fit = pq.fit(y, acq, signal="t2_decay", recipe="hierarchical", sigma=2.0, settings=settings)
    prior = fit.model.prior
    assert isinstance(prior, Hierarchical | FullHierarchical)
    share = math.log(300 / 0.05) / math.log(5000 / 0.05)
    assert float(prior.expected[0, 0]) == pytest.approx(norm.ppf(share), abs=1e-4)
    assert bool(prior.expected[:, 1].isnan().all())  # of S0 nothing is expected
    none = pq.fit(y, acq, signal="t2_decay", recipe="hierarchical", sigma=2.0, settings=settings | {"expected.T2": []})
    assert bool(none.model.prior.expected.isnan().all())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"expected.T3": [1.0, 1.0, 1.0]}, "names no free parameter"),
        ({"expected.T2": [80.0, 20.0]}, "mean, its uncertainty, sd between voxels"),
        ({"expected.T2": [9000.0, 20.0, 5.0]}, "mean inside"),
        ({"expected.T2": [80.0, 0.0, 5.0]}, "above zero"),
    ],
)
def test_what_cannot_be_expected_is_refused(settings, words):
    acq = pq.Acquisition(te=torch.arange(10.0, 110, 10))
    with pytest.raises(InputError, match=words):
        pq.fit(100 * np.ones((20, 10)), acq, signal="t2_decay", recipe="hierarchical", sigma=1.0, settings=settings)


def test_another_prior_has_no_such_table():
    acq = pq.Acquisition(te=torch.arange(10.0, 110, 10))
    y = 100 * np.exp(-np.arange(10.0, 110, 10) / 80) + np.random.default_rng(0).normal(0, 2, (40, 10))
    with pytest.raises(InputError, match="needs prior hierarchical"):
        pq.fit(
            y, acq, signal="t2_decay", recipe="hierarchical_mixture", sigma=2.0,
            settings={"expected.T2": [80.0, 20.0, 5.0]},
        )  # fmt: skip
