"""Recipes compared: the right one wins, and what cannot be compared is said."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.comparison import Candidate, Plan, Results, compare_recipes
from pyroqmri.comparison.cross_fit import stages_of
from pyroqmri.comparison.held_out import held_out_shell, predict, shells_of, volume_folds
from pyroqmri.comparison.run import cross_fitted, halves
from pyroqmri.errors import InputError
from pyroqmri.fitting.schema import load_recipe, with_settings
from pyroqmri.signals import MSDKI, BoundSignal
from tests.helpers import msdki_data, rician, shells

STEPS = {"training.steps": 40}


@pytest.fixture(scope="module")
def two_tissues() -> tuple[torch.Tensor, Acquisition]:
    """Two tight clusters far apart, few measurements: a prior that knows of clusters is worth a lot."""
    acq = Acquisition(bval=[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    which = torch.rand(400, generator=generator) < 0.5
    D = torch.where(which, 0.7, 1.6) + 0.02 * torch.randn(400, generator=generator)
    K = torch.where(which, 1.2, 0.5) + 0.02 * torch.randn(400, generator=generator)
    return rician(BoundSignal(MSDKI, acq)({"D": D, "K": K}), 0.06, 1), acq


@pytest.fixture(scope="module")
def fits(two_tissues):
    y, acq = two_tissues
    told = {"signal": "msdki", "sigma": 0.06, "s0": 1.0}
    return {
        "one": pq.fit(y, acq, recipe="hierarchical", settings=STEPS, **told),
        "two": pq.fit(y, acq, recipe="hierarchical_mixture", settings=STEPS | {"prior.classes": 2}, **told),
        "ml": pq.fit(y, acq, recipe="maximum_likelihood", **told),
    }


def test_signals_with_a_sign_are_compared_too():
    rng = np.random.default_rng(0)
    ti = np.array([50.0, 100, 200, 400, 800, 1600, 3200])
    clean = 1000 * (1 - 1.9 * np.exp(-ti / rng.normal(1000, 100, (150, 1))))
    y, acq = clean + 20 * rng.standard_normal(clean.shape), Acquisition(ti=ti, tr=[10_000.0] * 7)
    ones = {
        name: pq.fit(y, acq, signal="t1_inversion_signed", recipe=name, sigma=20.0, settings={"training.steps": 5})
        for name in ("hierarchical", "hierarchical_mixture")
    }
    assert pq.compare(ones, y).best in ones


def test_another_first_echo_is_other_data():
    acq = Acquisition(te=np.arange(10.0, 90, 10))
    recipe = load_recipe("hierarchical")
    later = with_settings(recipe, {"data.first_echo": 2})
    assert Candidate("t2_decay", recipe).data_seen(acq) != Candidate("t2_decay", later).data_seen(acq)
    assert Candidate("t2_decay", later).data_seen(acq) == Candidate("t2_decay", later, seed=1).data_seen(acq)


def test_the_right_prior_wins(fits, two_tissues):
    y, _ = two_tissues
    found = pq.compare(fits, y)
    assert found.best == "two"
    for criterion in ("loo", "waic", "evidence"):
        (rows,) = found.ranking(criterion)
        assert [r.name for r in rows] == ["two", "one"]
        # seen: 4 to 12 standard errors
        assert rows[1].behind > 2.5 * rows[1].behind_se
    assert found.winners.shape == (400, 2)
    assert any("ml" in note and "held-out" in note for note in found.notes)


@pytest.mark.slow
def test_volumes_left_out_rank_point_estimators_too(fits, two_tissues):
    y, _ = two_tissues
    found = pq.compare(fits, y[:120], folds=2, shell="highest", scored=100)
    rows = found.ranking_of_errors("folds_error")
    assert {r.name for r in rows} == {"one", "two", "ml"}
    assert rows[-1].name == "ml"
    # right model, right noise: a prediction errs by the noise and the parameters' uncertainty
    assert 0.8 < rows[0].rms < 1.6
    assert found.ranking("folds")[0][0].n == 100
    assert {r.name for r in found.ranking("shell")[0]} == {"one", "two"}


def test_posteriors_are_compared_without_their_fits(fits, two_tissues):
    y, _ = two_tissues
    found = pq.compare({name: fits[name].posterior(y[:50]) for name in ("one", "two")})
    assert found.ranking("loo")[0][0].n == 50


def test_other_likelihoods_are_comparable_and_other_data_are_not(fits, two_tissues):
    y, acq = two_tissues
    told = {"signal": "msdki", "recipe": "hierarchical", "sigma": 0.06, "settings": STEPS}
    gaussian = pq.fit(y, acq, likelihood="gaussian", s0=1.0, **told)
    measured = pq.fit(y, acq, s0="measured", **told)
    found = pq.compare({"one": fits["one"], "gaussian": gaussian, "measured": measured}, y[:60])
    assert found.groups == (("one", "gaussian"), ("measured",))
    assert any("see different data" in note for note in found.notes)


def test_a_known_s0_and_a_measured_one_are_scored_in_the_scans_units(fits, two_tissues):
    y, acq = two_tissues
    scaled = pq.fit(1000 * y, acq, signal="msdki", recipe="hierarchical", sigma=60.0, s0=1000.0, settings=STEPS)
    both = pq.compare({"a": scaled, "b": scaled}, 1000 * y[:40]).scores["evidence"]["a"]
    plain = pq.compare({"a": fits["one"], "b": fits["one"]}, y[:40]).scores["evidence"]["a"]
    # nine measurements, each density a thousand times thinner
    np.testing.assert_allclose(both, plain - 9 * np.log(1000), atol=0.3)


def test_held_out_measurements_are_scored_in_the_scans_units(two_tissues):
    y, acq = two_tissues
    held = torch.tensor([5, 8])
    keep = torch.tensor([i for i in range(9) if i not in (5, 8)])
    scores = []
    for unit in (1.0, 1000.0):
        fit = pq.fit(unit * y[:, keep], acq[keep], signal="msdki", recipe="hierarchical", sigma=0.06 * unit, s0=unit,
                     settings={"training.steps": 2})  # fmt: skip
        scores.append(predict(fit, unit * y[:40], acq, held, None).elpd)
    torch.testing.assert_close(scores[1], scores[0] - 2 * np.log(1000), atol=0.1, rtol=0)


def test_halves_score_every_voxel_by_what_the_others_taught(two_tissues):
    y, acq = two_tissues
    candidate = Candidate("msdki", load_recipe("hierarchical", STEPS), 1.0, device="cpu")
    plan, results = Plan(0, None, scored=100), Results()
    for stage, work in cross_fitted(candidate, y, acq, 0.06, plan):
        results.add("one", stage, work())
    assert results.has("one", "half 2")
    assert not results.has("one", "fold 1")
    assert torch.isfinite(results.joined("one", "evidence")).all()
    assert int(torch.isfinite(results.joined("one", "loo")).sum()) == 100


def test_no_voxel_is_scored_by_a_population_that_it_trained(two_tissues, monkeypatch):
    y, acq = two_tissues
    seen, honest = [], Candidate.train

    def train(self, y, acq, sigma, inputs):
        seen.append((y, sigma))
        return honest(self, y, acq, sigma, inputs)

    monkeypatch.setattr(Candidate, "train", train)
    noise = 0.04 + 0.1 * y[:, 0]  # a level per voxel, known by the voxel
    candidate = Candidate("msdki", load_recipe("hierarchical", {"training.steps": 2}), 1.0, device="cpu")
    for _, work in cross_fitted(candidate, y, acq, noise, Plan(0, None, scored=10)):
        scored = torch.isfinite(work()["evidence"])
        trained, sigma = seen[-1]
        assert len(trained) == int(scored.sum()) == 200
        assert not (trained[:, None] == y[scored]).all(-1).any()
        torch.testing.assert_close(sigma, 0.04 + 0.1 * trained[:, 0])


def test_halves_share_nothing():
    a, b = halves(101, 0)
    assert sorted([*a.tolist(), *b.tolist()]) == list(range(101))


def test_halves_and_folds_have_a_seed():
    acq = shells(3, 10, 1.0, 2.0)
    for draw in (lambda seed: halves(101, seed)[0].tolist(), lambda seed: volume_folds(acq, 5, seed)[0].tolist()):
        assert draw(1) == draw(1)
        assert draw(1) != draw(2)


def test_folds_hold_every_shell_alike():
    acq = shells(3, 10, 1.0, 2.0)
    folds = volume_folds(acq, 5)
    assert sorted(torch.cat(folds).tolist()) == list(range(3, 23))
    for fold in folds:
        assert [len(s) for s in shells_of(acq, fold)] == [2, 2]
    with pytest.raises(InputError, match="folds must lie between 2 and 20"):
        volume_folds(acq, 21)


def test_a_shell_is_named_by_its_b_value():
    acq = shells(3, 10, 1.0, 2.0)
    assert held_out_shell(acq, "highest").tolist() == list(range(13, 23))
    assert held_out_shell(acq, 1.0).tolist() == list(range(3, 13))
    with pytest.raises(InputError, match="there are 1, 2"):
        held_out_shell(acq, 3.0)
    with pytest.raises(InputError, match="two or more"):
        held_out_shell(shells(3, 10, 1.0), "highest")


def test_shell_means_are_predicted_by_signals_that_average():
    """Powder averages with directions: what is held out is averaged as well."""
    acq = shells(4, 12, 1.0, 2.0)
    y, _ = msdki_data(60)
    generator = torch.Generator().manual_seed(2)
    D = 1.0 + 0.1 * torch.randn(60, generator=generator)
    y = rician(BoundSignal(MSDKI, acq)({"D": D, "K": torch.full((60,), 0.9)}), 0.05, 4)
    held = volume_folds(acq, 3)[0]
    keep = torch.ones(28, dtype=torch.bool)
    keep[held] = False
    fit = pq.fit(y[:, keep], acq[keep], signal="msdki", recipe="hierarchical", sigma=0.05, settings=STEPS)
    assert fit.preparation.average
    found = predict(fit, y, acq, held, None)
    assert torch.isfinite(found.elpd).all()
    # chi-squared over two shells plus the parameters' share; 60 voxels
    assert 0.5 < float(found.square.mean()) < 2.5


def test_a_comparison_of_one_or_of_other_voxels_is_refused(fits, two_tissues):
    y, _ = two_tissues
    with pytest.raises(InputError, match="two recipes or more"):
        pq.compare({"one": fits["one"]}, y)
    with pytest.raises(InputError, match="give the measurements"):
        pq.compare({"one": fits["one"], "two": fits["two"]})
    with pytest.raises(InputError, match="different numbers of voxels"):
        pq.compare({"one": fits["one"].posterior(y[:5]), "two": fits["two"].posterior(y[:6])})


def test_a_field_needs_places_and_volumes_to_leave_out(two_tissues):
    y, acq = two_tissues
    recipes = {name: Candidate("msdki", load_recipe(name)) for name in ("hierarchical", "spatial")}
    place = torch.cartesian_prod(torch.arange(20), torch.arange(20), torch.arange(1))
    with pytest.raises(InputError, match="needs to know where the voxels lie"):
        compare_recipes(recipes, y, acq, 0.06, Plan(folds=2))
    with pytest.raises(InputError, match="only measurements that are left out can compare it"):
        compare_recipes(recipes, y, acq, 0.06, Plan(folds=0, shell=None), voxels=place)
    stages = stages_of(recipes, y, acq, 0.06, Plan(folds=2, shell=None), voxels=place)
    assert [(name, stage) for name, stage, _ in stages] == [
        (name, f"fold {k}") for name in recipes for k in (1, 2)
    ]  # no halves, whose voxels lack neighbours


def test_densities_of_volumes_left_out_are_enough_to_rank_by():
    found, rng = Results(), np.random.default_rng(0)
    base = torch.from_numpy(rng.standard_normal(50))
    for name, more in (("one", 0.0), ("field", 0.4)):
        square = torch.ones(50, dtype=torch.float64)
        found.add(name, "fold 1", {"elpd": base + more, "square": square})
    found.add("points", "fold 1", {"elpd": torch.full((50,), torch.nan), "square": torch.ones(50)})
    ranked = found.comparison(("one", "field", "points"), {"one": "a", "field": "a", "points": "a"})
    assert ranked.groups == (("one", "field"),)
    assert ranked.best == "field"
    assert ranked.evidence == {}
    (rows,) = ranked.ranking("folds")
    assert rows[1].behind == pytest.approx(20.0)


@pytest.mark.slow
def test_neighbours_predict_volumes_that_were_left_out():
    # two flat regions: by the mean of many voxels a volume is predicted better than by one
    acq = Acquisition(bval=np.repeat([0.0, 1.0, 2.0], [2, 4, 4]))
    place = np.argwhere(np.ones((14, 14, 1)))
    d = np.where(place[:, :1] < 7, 0.8, 1.2)
    clean = np.exp(-acq.bval.numpy() * d + acq.bval.numpy() ** 2 * d**2 / 6)
    noise = np.random.default_rng(0).standard_normal((2, *clean.shape)) / 10
    y = torch.from_numpy(np.hypot(clean + noise[0], noise[1]))
    few = {"training.steps": 10}
    recipes = {
        "hierarchical": with_settings(load_recipe("hierarchical"), few),
        "spatial": with_settings(load_recipe("spatial"), few | {"prior.rounds": 4}),
    }
    told = {name: Candidate("msdki", recipe) for name, recipe in recipes.items()}
    found = compare_recipes(told, y, acq, 0.1, Plan(folds=2, shell=None), voxels=torch.from_numpy(place))
    assert found.best == "spatial"
    assert "maps whole images" in found.notes[0]
