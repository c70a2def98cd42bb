"""Labels, the truths they are made for, and the cache that keeps them."""

import os
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pyroqmri as pq
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.errors import InputError
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.networks import labels
from pyroqmri.networks.cache import content_key, kept
from pyroqmri.networks.labels import LABELS, Examples, ml_labels, parameter_loss
from pyroqmri.networks.training import loss_weights
from pyroqmri.networks.training_truth import (
    Scanner,
    Simulation,
    complete,
    given_truth,
    population_truth,
    ranges_of,
    uniform_truth,
)
from pyroqmri.priors import Hierarchical
from pyroqmri.signals import DTI, IVIM, MSDKI, BallStick, BoundSignal
from pyroqmri.simulate import simulate
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import msdki_data, shells

Y, ACQ = msdki_data(60, s0=100.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def scanner(y=Y, acq=ACQ, signal=MSDKI, s0=100.0, sigma=5.0, noise="rician"):
    preparation = prepare_for(signal, acq, y, s0=s0, average="auto", magnitude=True)
    bound = BoundSignal(signal, preparation.seen(acq).acquisition, infer_s0=preparation.s0 == "inferred")
    return Scanner(bound, acq, preparation, preparation(y, torch.tensor(sigma), acq), noise)


def test_labels_are_the_estimates_of_the_maximum_likelihood_recipe():
    s = scanner()
    found, good = ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)
    fit = pq.fit(Y, ACQ, signal="msdki", recipe="maximum_likelihood", sigma=5.0, s0=100.0)
    mean = fit.posterior(Y).mean
    for i, name in enumerate(("D", "K")):
        torch.testing.assert_close(found[:, i], mean[name].float(), rtol=1e-3, atol=1e-3)
    assert good.any()


def test_gaussian_labels_are_others():
    s = scanner(sigma=20.0)
    both = [ml_labels(s.signal, s.batch.voxels, noise, 60, 0.01)[0] for noise in ("rician", "gaussian")]
    assert (both[0] - both[1]).abs().max() > 0.01


def test_labels_at_a_bound_are_held_out():
    y = Y.clone()
    y[:7] = 100.0  # no decay: D is at its lower bound
    s = scanner(y)
    truth = torch.ones(len(y), 2)
    examples, left_out = LABELS["maximum_likelihood"]().examples(s.signal, s.batch.voxels, truth)
    assert left_out >= 7
    assert len(examples) == len(y) - left_out
    for i, p in enumerate(s.signal.tissue):
        edge = 0.01 * (p.upper - p.lower)
        inside = (examples.labels[:, 0, i] > p.lower + edge) & (examples.labels[:, 0, i] < p.upper - edge)
        assert inside.all()


def test_labels_are_found_again_by_content(cache, monkeypatch):
    s = scanner()
    before = ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)

    def fail(*args, **kwargs):
        raise AssertionError("searched again")

    monkeypatch.setattr(labels, "search", fail)
    again = ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)
    torch.testing.assert_close(again[0], before[0], rtol=0, atol=0)
    other = scanner(Y + 0.01)
    with pytest.raises(AssertionError, match="searched again"):
        ml_labels(other.signal, other.batch.voxels, "rician", 60, 0.01)
    (path,) = (cache / "labels").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(AssertionError, match="searched again"):
        ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)


def changed(path, how):
    """Another content in a file of the cache, as well-formed as the first."""
    with safe_open(path, "pt") as file:
        meta, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(how(tensors), path, meta)


@pytest.mark.parametrize(
    "how",
    [
        lambda t: t | {"labels": t["labels"] * 2},
        lambda t: {"others": torch.zeros(3)},
        lambda t: t | {"more": torch.zeros(3)},
        lambda t: t | {"labels": t["labels"][:5].clone()},
        lambda t: t | {"converged": ~t["converged"]},
    ],
)
def test_labels_that_are_not_what_was_kept_are_found_anew(cache, how):
    s = scanner()
    before = ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)
    (path,) = (cache / "labels").glob("*.safetensors")
    changed(path, how)
    with pytest.warns(UserWarning, match="is not what was kept there .*it is made anew"):
        again = ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)
    assert torch.equal(again[0], before[0])
    assert torch.equal(again[1], before[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was put right
        ml_labels(s.signal, s.batch.voxels, "rician", 60, 0.01)


def test_what_was_kept_under_another_key_is_not_taken(cache):
    kept("labels", "one", lambda: {"x": torch.ones(2)})
    (cache / "labels" / "one.safetensors").rename(cache / "labels" / "two.safetensors")
    with pytest.warns(UserWarning, match="made anew"):
        assert kept("labels", "two", lambda: {"x": torch.zeros(2)})["x"].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_cache_that_is_no_file_does_not_wait(cache, kind):
    path = cache / "labels" / "key.safetensors"
    path.parent.mkdir(parents=True)
    {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.warns(UserWarning, match="no regular file"):
        assert kept("labels", "key", lambda: {"x": torch.ones(2)})["x"].tolist() == [1, 1]


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "file"))
    assert kept("labels", "key", lambda: {"x": torch.ones(2)})["x"].tolist() == [1, 1]


def test_keys_tell_contents_apart():
    one = {"y": torch.zeros(2, 3)}
    keys = {content_key({"a": 1}, one), content_key({"a": 2}, one), content_key({"a": 1}, {"y": torch.zeros(3, 2)}),
            content_key({"a": 1}, {"z": torch.zeros(2, 3)})}  # fmt: skip
    assert len(keys) == 4


def test_the_loss_is_the_papers():
    # equations 7 and 10 by hand: W = 1 / mean, alpha .25
    signal = BoundSignal(MSDKI, ACQ)
    truth, ml = torch.tensor([[1.0, 0.5]]), torch.tensor([[1.5, 1.0]])
    examples = Examples(scanner().batch.voxels[:1], torch.stack([ml, truth], 1), (0.25, 0.75))
    weights = loss_weights(("D", "K"), torch.tensor([[1.0, 0.5], [3.0, 0.5]]), {"K": 3.0})
    assert weights.tolist() == [0.5, 6.0]
    theta = {"D": torch.tensor([[2.0]]), "K": torch.tensor([[0.5]])}
    by_hand = 0.25 * ((0.5 * 0.5) ** 2 + (6 * 0.5) ** 2) + 0.75 * 0.5**2
    assert float(parameter_loss(signal, weights, theta, examples)) == pytest.approx(by_hand)


def test_a_direction_counts_by_the_sine_of_its_angle():
    acq = shells(1, 6, 1.0)
    signal = BoundSignal(BallStick, acq)
    label = torch.tensor([[[0.5, 1.0, 1.0, 0.0, 0.0, 1.0]]])
    theta = {k: torch.tensor([[v]]) for k, v in (("f", 0.5), ("D_par", 1.0), ("D_iso", 1.0))}
    theta["n"] = torch.tensor([[[0.0, 0.6, -0.8]]])
    examples = Examples(scanner().batch.voxels[:1], label, (1.0,))
    assert float(parameter_loss(signal, torch.ones(3), theta, examples)) == pytest.approx(0.36)


def test_simulated_voxels_have_the_datas_noise_and_treatment():
    # 20,000 voxels of one tissue: the standard error of a standard deviation is 0.5 %
    s = scanner(sigma=5.0)
    theta = {"D": torch.full((20_000,), 0.2), "K": torch.full((20_000,), 0.5)}
    voxels, index = s.measure(theta, seed=0)
    assert len(index) == 20_000
    assert float(voxels.y[:, 1].std()) == pytest.approx(0.05, rel=0.03)
    assert float(voxels.noise.median()) == pytest.approx(0.05)
    again, _ = s.measure(theta, seed=0)
    torch.testing.assert_close(again.y, voxels.y, rtol=0, atol=0)


def test_uniform_truths_fill_their_ranges_and_leave_out_what_no_tissue_has():
    s = scanner()
    settings = Simulation(voxels=2000)
    theta = uniform_truth(s.signal, ranges_of(s.signal, {"D": [0.5, 1.0]}, s.batch), settings, s.batch, 0)
    assert len(theta["D"]) == 2000
    assert 0.5 <= float(theta["D"].min()) < 0.51 < 0.99 < float(theta["D"].max()) <= 1.0
    assert float(s.signal(theta).max()) <= 1.0 + 1e-4
    everything = uniform_truth(s.signal, ranges_of(s.signal, {}, s.batch), settings, s.batch, 0)
    assert float(s.signal(everything).max()) <= 1.0 + 1e-4
    with pytest.raises(InputError, match="uniform truths lie in their ranges with a signal below"):
        uniform_truth(s.signal, {"D": (3.0, 4.0), "K": (2.5, 3.0)}, settings, s.batch, 0)


def test_uniform_tensors_are_positive_definite():
    acq = shells(1, 12, 1.0)
    y = simulate(DTI, acq, {p.name: torch.full((5,), 1.0 if p.lower > 0 else 0.0) for p in DTI.parameters}, sigma=0.01)
    s = scanner(y.float(), acq, DTI, 1.0, 0.01)
    theta = uniform_truth(s.signal, ranges_of(s.signal, {}, s.batch), Simulation(voxels=500), s.batch, 0)
    assert (DTI.derived(theta)["FA"] <= 1).all()
    assert float(s.signal(theta).max()) <= 1.0 + 1e-4


def test_the_range_of_s0_is_the_datas_or_given_in_the_scans_units():
    acq = shells(1, 3, 0.1, 0.5, bvec=False)
    generator = torch.Generator().manual_seed(0)
    theta = {"S0": 300 + 200 * torch.rand(500, generator=generator), "f": torch.full((500,), 0.2)}
    theta |= {"D_fast": torch.full((500,), 30.0), "D_slow": torch.full((500,), 1.0)}
    s = scanner(simulate(IVIM, acq, theta, sigma=5.0).float(), acq, IVIM, "inferred")
    scale = float(s.batch.reference[0])
    low, high = ranges_of(s.signal, {}, s.batch)["S0"]
    assert low * scale < 300 < 500 < high * scale < 700
    assert ranges_of(s.signal, {"S0": [300, 500]}, s.batch)["S0"] == pytest.approx((300 / scale, 500 / scale))


def test_given_truths_are_taken_as_they_are():
    signal = BoundSignal(MSDKI, ACQ)
    arrays = {"D": np.linspace(0.5, 1.5, 5), "K": [0.5] * 5}
    assert given_truth(signal, arrays, 1.0, 0)["D"].tolist() == pytest.approx(arrays["D"].tolist())
    with pytest.raises(InputError, match="truth lacks K; it needs D, K"):
        given_truth(signal, {"D": [1.0]}, 1.0, 0)
    with pytest.raises(InputError, match=r"truth of K must be 1 numbers inside -1\.\.3"):
        given_truth(signal, {"D": [1.0], "K": [7.0]}, 1.0, 0)


def test_a_given_s0_is_in_the_units_of_the_scan():
    signal = BoundSignal(MSDKI, ACQ, infer_s0=True)
    arrays = {"D": [0.5, 1.5], "K": [0.5, 0.5], "S0": [200.0, 300.0]}
    assert given_truth(signal, arrays, 250.0, 0)["S0"].tolist() == pytest.approx([0.8, 1.2])


def test_what_is_fixed_or_tied_is_filled_in_and_axes_are_uniform():
    signal = BoundSignal(BallStick, shells(1, 6, 1.0), fixed={"D_par": 1.7}, tied={"D_iso": "D_par"})
    theta = complete(signal, {"f": torch.full((3000,), 0.5)}, 0)
    torch.testing.assert_close(theta["D_iso"], torch.full((3000,), 1.7))
    # the mean of 3,000 components has a standard error of .0105: beyond .04 in 1 of 10,000 seeds
    assert theta["n"].mean(0).abs().max() < 0.04


def test_a_population_is_sampled_with_its_spread_and_its_correlation():
    signal = BoundSignal(MSDKI, shells(0, 6, 1.0, 2.0, bvec=False))
    model = VoxelModel(signal, Hierarchical(2), IdentityDecoder(2), RicianLikelihood(), 0.05)
    loc, covariance = torch.tensor([-0.5, 0.2]), torch.tensor([[0.04, -0.08], [-0.08, 0.25]])
    model.prior.update(torch.ones(1), loc[None], covariance[None])
    theta = population_truth(signal, model, 20_000, 1.0, 0)
    z = torch.stack([p.unconstrain(theta[p.name], signal.box(p, theta)) for p in signal.tissue], -1)
    # standard errors: .0035 of a mean, 1 % of a variance
    torch.testing.assert_close(z.mean(0), loc, atol=0.015, rtol=0)
    torch.testing.assert_close(z.T.cov(), covariance, atol=0, rtol=0.05)


def test_the_truth_may_be_a_population():
    loop = {"training.steps": 60, "training.batch_size": 64}
    y, acq = msdki_data(300, s0=100.0)
    population = pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=5.0, s0=100.0, settings=loop)
    theta = population_truth(population.signal, population.model, 4000, 1.0, 0)
    assert float(theta["D"].mean()) == pytest.approx(float(population.posterior(y).mean["D"].mean()), abs=0.1)
    with pytest.raises(InputError, match="the population is of MSDKI with D, K, and the network is of IVIM"):
        population_truth(BoundSignal(IVIM, shells(1, 3, 0.5, bvec=False)), population.model, 10, 1.0, 0)
    quick = {"truth.voxels": 400, "training.starts": 2, "training.epochs": 2}
    call = {"signal": "msdki", "recipe": "supervised_gt", "sigma": 5.0, "s0": 100.0, "settings": quick}
    assert pq.fit(y, acq, truth=population, **call).network is not None
    with pytest.raises(InputError, match="least_squares is no network: it takes neither a truth"):
        pq.fit(y, acq, signal="msdki", recipe="least_squares", sigma=5.0, s0=100.0, truth=population)
