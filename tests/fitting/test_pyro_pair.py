"""A fit's pair under vanilla Pyro."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive

import pyroqmri as pq
from inference import pyro_algorithms
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import clusters, simulate

ACQ = pq.Acquisition(bval=[0.0] * 4 + [1.0] * 8 + [2.0] * 8 + [3.0] * 8)
DIRECTIONS = torch.nn.functional.normalize(torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def fitted(recipe: str = "hierarchical", **settings):
    truth, _ = clusters(120, seed=0, classes=("white matter", "grey matter"))
    y = simulate(MSDKI, ACQ, truth, snr=25, seed=1)
    return pq.fit(y, ACQ, signal="msdki", recipe=recipe, settings={"training.steps": 10} | settings), y


@pytest.mark.parametrize(("recipe", "lr"), [("hierarchical", 5e-3), ("hierarchical_mixture", 5e-3)])
def test_vanilla_svi_lowers_the_loss_and_leaves_the_fit_alone(recipe, lr):
    fit, y = fitted(recipe)
    before = {k: v.clone() for k, v in fit.model.state_dict().items()}
    mean = fit.posterior(y).mean["D"]
    pair, voxels = fit.pyro_pair(), fit.prepare(y)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": lr}), pair.elbo())
    losses = [svi.step(voxels) for _ in range(120)]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert all(torch.equal(fit.model.state_dict()[k], v) for k, v in before.items())
    torch.testing.assert_close(fit.posterior(y).mean["D"], mean)
    moved = dict(pair.model.module.prior.named_parameters())
    assert not all(torch.equal(p, before[f"prior.{k}"]) for k, p in moved.items()) or not moved


def test_two_pairs_share_nothing():
    fit, y = fitted()
    voxels, one, two = fit.prepare(y), fit.pyro_pair(), fit.pyro_pair()
    untouched = {k: v.clone() for k, v in two.model.state_dict().items()}
    SVI(one.model, one.guide, pyro.optim.Adam({"lr": 0.1}), one.elbo()).step(voxels)
    SVI(two.model, two.guide, pyro.optim.Adam({"lr": 0.0}), two.elbo()).step(voxels)
    assert all(torch.equal(two.model.state_dict()[k], v) for k, v in untouched.items())
    names = set(pyro.get_param_store().keys())
    assert len({name.split("$$$")[0] for name in names}) == 4  # two models, two guides
    named = fit.pyro_pair("mine")
    SVI(named.model, named.guide, pyro.optim.Adam({"lr": 0.0}), named.elbo()).step(voxels)
    assert any(name.startswith("mine.model") for name in pyro.get_param_store())


def test_a_population_with_a_posterior_is_trained_too():
    fit, y = fitted(**{"prior.kind": "full_hierarchical"})
    pair = fit.pyro_pair()
    before = pair.model.module.prior.centre.detach().clone()
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), pair.elbo())
    for _ in range(3):
        svi.step(fit.prepare(y))
    assert not torch.equal(pair.model.module.prior.centre, before)


def test_parameters_are_sites_and_measurements_can_be_predicted():
    fit, y = fitted()
    pair, voxels = fit.pyro_pair(), fit.prepare(y)
    found = Predictive(pair.model, guide=pair.guide, num_samples=200)(voxels, sites=True, predict=True)
    post = fit.posterior(y)
    # 200 draws: a standard error of 0.07 sd; the maps' sds come from the guide with more steps
    off = (found["D"].mean(0) - post.mean["D"]) / post.sd["D"]
    assert float(off.abs().median()) < 0.15
    replicated = found["y"] - voxels.y
    assert float(replicated.std()) > float(voxels.noise.min())
    observed = Predictive(pair.model, guide=pair.guide, num_samples=2)(voxels)
    torch.testing.assert_close(observed["y"][0], voxels.y)


def test_voxels_need_not_be_measured():
    fit, _ = fitted()
    found = Predictive(fit.pyro_pair().model, num_samples=4)(1000, sites=True)
    assert found["y"].shape == (4, 1000, 24)
    loc = fit.model.prior.loc.detach()
    median = fit.signal.constrain_tissue(loc)
    # medians of 4,000 draws of a population with sds near 0.3: a standard error near 0.01
    assert float(found["D"].median()) == pytest.approx(float(median["D"]), abs=0.05)


def test_voxels_of_a_direction_need_not_be_measured_either():
    torch.manual_seed(0)
    acq = pq.Acquisition(bval=[0.0] * 4 + [1.0] * 24, bvec=torch.cat([torch.zeros(4, 3), DIRECTIONS]))
    y = torch.rand(60, 28) * 0.3 + 0.4
    fit = pq.fit(y, acq, signal="ball_stick", recipe="hierarchical", sigma=0.05, settings={"training.steps": 3})
    found = Predictive(fit.pyro_pair().model, num_samples=3)(400, sites=True)
    assert found["n"].shape[-1] == 3
    axes = found["n"].reshape(-1, 3)
    torch.testing.assert_close(axes.norm(dim=-1), torch.ones(len(axes)))
    # uniform over axes: the mean of n n' is I / 3, to a standard error of 0.01
    torch.testing.assert_close(axes.mT @ axes / len(axes), torch.eye(3) / 3, atol=0.04, rtol=0)


def test_an_input_with_a_default_is_taken_at_it():
    acq = pq.Acquisition(flip=[0.05, 0.17, 0.35, 0.52], tr=[15.0] * 4)  # rad, ms
    y = torch.rand(30, 4) * 0.1 + 0.1
    fit = pq.fit(y, acq, signal="t1_vfa", recipe="hierarchical", sigma=0.01, settings={"training.steps": 2})
    assert fit.model(5).shape == (5, 4)  # B1 has a default


def test_estimators_without_a_pair_say_so():
    y = simulate(MSDKI, ACQ, {"D": torch.ones(20), "K": torch.ones(20)}, snr=25, seed=1)
    fit = pq.fit(y, ACQ, signal="msdki", recipe="least_squares")
    with pytest.raises(pq.InputError, match="no Pyro pair"):
        fit.pyro_pair()
    with pytest.raises(pq.InputError, match="no Pyro pair"):
        fit.prepare(y)


@pytest.mark.slow
def test_the_table_of_algorithms_is_as_the_docs_have_it():
    found = pyro_algorithms.table()
    page = (pyro_algorithms.REPOSITORY / "docs" / "pyro.md").read_text()
    for name, row in found.items():
        assert f"| {name} | {' | '.join(row[r] for r in pyro_algorithms.RECIPES)} |" in page
