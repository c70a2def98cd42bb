"""Scores of voxels against a linear signal's closed form, and rankings of them."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyroqmri.comparison.ranking import Comparison, is_clear, lead, rank, rank_errors
from pyroqmri.comparison.scores import voxel_scores
from pyroqmri.diagnostics.arviz_adapter import arviz_major, import_arviz
from pyroqmri.measurements.preparation import Batch
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_posterior
from tests.posterior.test_posterior import N, toy

MARGINAL = DESIGN @ DESIGN.mT + SIGMA**2 * torch.eye(8)


def test_evidence_is_the_exact_one():
    """Importance weights of the exact posterior vary only with the widening: sd .02 nats a voxel from 1,000 draws."""
    scores = voxel_scores(toy(64), n_draws=1000)
    exact = MultivariateNormal(torch.zeros(8), MARGINAL).log_prob(quadratic_data(N)).double()
    assert float((scores.evidence - exact).abs().max()) < 0.1
    assert (scores.khat < 0.5).all()


def test_leaving_one_out_is_the_exact_one():
    y = quadratic_data(N)
    precision = torch.linalg.inv(MARGINAL)
    mean = y - (y @ precision) / precision.diagonal()
    exact = Normal(mean, precision.diagonal().rsqrt()).log_prob(y).sum(-1).double()
    scores = voxel_scores(toy(64), n_draws=2000)
    # eight measurements of three parameters: an outlying one makes a voxel's error heavy-tailed, the sum is steady
    assert float((scores.loo - exact).sum().abs()) < 1.5
    # what the guide says must not matter: a prior on the wrong place would
    assert float((exact - scores.evidence).sum().abs()) > 20


def test_waic_is_the_exact_one():
    y = quadratic_data(N)
    loc, covariance = quadratic_posterior(y)
    mean, v = loc @ DESIGN.mT, (DESIGN @ covariance @ DESIGN.mT).diagonal()
    density = Normal(mean, (v + SIGMA**2).sqrt()).log_prob(y)
    # variance of a quadratic of a normal
    spread = (v.square() / 2 + (y - mean).square() * v) / SIGMA**4
    exact = (density - spread).sum(-1).double()
    scores = voxel_scores(toy(64), n_draws=2000)
    assert float((scores.waic - exact).abs().max()) < 0.5
    assert float((scores.waic - exact).sum().abs()) < 1.5


def test_scores_are_of_measurements_in_the_scans_own_units():
    posterior = toy(64)
    before = voxel_scores(posterior, n_draws=100)
    b = posterior.batch
    posterior.batch = Batch(b.voxels, b.index, b.status, torch.full((N,), 10.0))
    after = voxel_scores(posterior, n_draws=100)
    for name in ("loo", "waic", "evidence"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name) - 8 * math.log(10))


def test_some_voxels_only_and_none():
    posterior = toy(64)
    some = voxel_scores(posterior, torch.tensor([3, 5]), n_draws=100, loo=False)
    assert some.index.tolist() == posterior.batch.index[[3, 5]].tolist()
    assert torch.isnan(some.loo).all()
    assert torch.isfinite(some.evidence).all()
    assert len(voxel_scores(posterior, torch.zeros(0, dtype=torch.long)).evidence) == 0


def test_rankings_are_those_of_az_compare():
    from pyroqmri.diagnostics.arviz_adapter import _elpd_data

    rng = np.random.default_rng(0)
    good = rng.normal(size=300)
    scores = {"good": good, "near": good - 0.02 + 0.3 * rng.normal(size=300), "bad": good - 0.5 + rng.normal(size=300)}
    whole = {} if arviz_major() == 0 else {"round_to": "none"}
    table = import_arviz().compare({k: _elpd_data(v) for k, v in scores.items()}, **whole)
    rows = rank(scores, weights=True)
    assert [r.name for r in rows] == list(table.index)
    for row in rows:
        theirs = table.loc[row.name]
        assert row.total == pytest.approx(theirs["elpd_loo" if arviz_major() == 0 else "elpd"])
        assert row.behind == pytest.approx(abs(theirs["elpd_diff"]), abs=1e-9)
        # ArviZ divides a variance by n and not n - 1
        assert row.behind_se == pytest.approx(theirs["dse"], rel=2e-3)
        assert row.weight == pytest.approx(theirs["weight"], abs=1e-6)


def test_words_follow_the_standard_error():
    rng = np.random.default_rng(1)
    base = rng.normal(size=400)
    clear = rank({"a": base, "b": base - 0.2 + 0.1 * rng.normal(size=400)})
    assert is_clear(clear[1])
    assert lead(clear).startswith("a is best, ahead of b by 8")
    assert lead(clear, ["b"]).endswith("but b cannot be scored reliably")
    assert lead(clear, ["c"]).startswith("a is best")
    tied = rank({"a": base, "b": base - 0.02 + rng.normal(size=400) - 0.05})
    assert not is_clear(tied[1])
    assert "cannot be distinguished" in lead(tied)
    # a difference of less than four nats is nothing, however surely it is there
    assert not is_clear(rank({"a": base, "b": base - 0.005})[1])
    assert lead(rank({"a": base})) == "a is the only recipe"


def test_errors_are_ranked_with_a_standard_error():
    rng = np.random.default_rng(2)
    rows = rank_errors({"far": 4 * rng.chisquare(1, 4000), "near": rng.chisquare(1, 4000)})
    assert [r.name for r in rows] == ["near", "far"]
    assert rows[0].rms == pytest.approx(1, abs=5 * rows[0].se)
    # sd of chi-squared is sqrt 2: of the root, half of it
    assert rows[0].se == pytest.approx(math.sqrt(2) / 2 / math.sqrt(4000), rel=0.2)


def comparison() -> Comparison:
    evidence = {"a": np.array([0.0, 3.0, np.nan]), "b": np.array([0.0, 0.0, np.nan])}
    loo = {name: e[:2] for name, e in evidence.items()}
    bad = {"loo": {"a": 0.5, "b": 0.0}}
    return Comparison(("a", "b"), {"loo": loo, "evidence": loo}, {}, (("a", "b"),), bad, ("a note",), evidence)


def test_a_map_of_winners_holds_probabilities():
    winners = comparison().winners
    np.testing.assert_allclose(winners[0], 0.5)
    np.testing.assert_allclose(winners[1], [1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])
    assert np.isnan(winners[2]).all()


def test_what_cannot_be_relied_on_is_said():
    found = comparison()
    assert found.best == "a"
    assert len(found.unreliable) == 1
    assert "50 % of measurements" in found.unreliable[0]
    assert {"rankings", "verdict", "unreliable", "notes"} <= set(found.record())
    assert "a note" in str(found)


def test_a_recipe_that_nothing_is_ranked_against_is_judged_by_its_errors_alone():
    rng = np.random.default_rng(4)
    scores = {"loo": {"vae": rng.normal(size=50)}}
    errors = {"folds_error": {"vae": rng.chisquare(1, 50), "ls": 2 * rng.chisquare(1, 50)}}
    found = Comparison(("vae", "ls"), scores, errors, (("vae",),), {"loo": {"vae": 1.0}})
    (sentence,) = found.verdict()
    assert sentence.startswith("Error of held-out volumes")
    assert found.unreliable == []  # a score that ranks nothing misleads nobody
    assert Comparison(("vae",), scores, {}, (("vae",),), {}).verdict() == [
        "PSIS-LOO (a measurement left out): vae is the only recipe"
    ]
