"""What ArviZ is given is what the posterior says."""

import math
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.calibration.simulated_voxels import own_voxels
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.diagnostics import posterior_to_arviz, read_netcdf, write_netcdf
from pyroqmri.diagnostics.arviz_adapter import attributes, group_names, import_arviz, stacking_weights
from pyroqmri.errors import InputError
from pyroqmri.guides import MapStarted
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.recalibration import Recalibration
from pyroqmri.priors import Mixture
from pyroqmri.signals import MSDKI, BallStick, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import rician, shells, tissue
from tests.posterior.test_loose_axes import fitted as ball_stick_fit

GROUPS = {
    "posterior", "prior", "posterior_predictive", "prior_predictive", "log_likelihood", "observed_data",
    "sample_stats", "constant_data",
}  # fmt: skip
N = 30


def mixture_posterior(n_b0: int = 0) -> Posterior:
    acq = shells(n_b0, 6, 1.0, 2.0)
    signal = BoundSignal(MSDKI, acq)
    model = VoxelModel(signal, Mixture(2, classes=2), IdentityDecoder(2), RicianLikelihood(), 0.05)
    y = rician(signal(tissue(N)), 0.05, 1)
    voxels = model.prepare(y, mode=True)
    index = torch.arange(3, N + 3)
    status = torch.ones(N + 3, dtype=torch.uint8)
    from pyroqmri.guides import Structured

    posterior = Posterior(model, Structured(model, len(acq)), Batch(voxels, index, status, torch.full((N,), 500.0)), 64)
    posterior.elbo, posterior.elbo_steps, posterior.class_names = [1.0, 2.0], [50, 100], ("tissue", "water")
    return posterior


def test_every_group_has_named_axes_and_units():
    ijk = np.arange(3 * (N + 3)).reshape(-1, 3)
    data = posterior_to_arviz(mixture_posterior(), slice(2, 7), n_draws=40, ijk=ijk)
    assert set(group_names(data)) == GROUPS
    D = data["posterior"]["D"]
    assert D.dims == ("chain", "draw", "voxel")
    assert D.attrs["units"] == "um2/ms"
    assert D["voxel"].to_numpy().tolist() == [5, 6, 7, 8, 9]
    assert D["k"].to_numpy().tolist() == [17, 20, 23, 26, 29]
    y = data["log_likelihood"]["y"]
    assert y.dims == ("chain", "draw", "voxel", "measurement")
    np.testing.assert_allclose(y["b"], [1.0] * 6 + [2.0] * 6)
    np.testing.assert_allclose(sum(y[f"direction_{a}"] ** 2 for a in "xyz"), 1, rtol=1e-5)
    p = data["posterior"]["class_probability"]
    assert p["class"].to_numpy().tolist() == ["tissue", "water"]
    np.testing.assert_allclose(p.sum("class"), 1, rtol=1e-5)
    assert data["sample_stats"]["elbo"]["step"].to_numpy().tolist() == [50, 100]
    assert data["sample_stats"]["khat"].dims == ("voxel",)
    np.testing.assert_allclose(data["constant_data"]["reference"], 500)


def test_arrays_are_what_the_model_says():
    posterior = mixture_posterior()
    data = posterior_to_arviz(posterior, slice(0, 4), n_draws=30)
    theta = {k: torch.as_tensor(data["posterior"][k].to_numpy()[0]) for k in ("D", "K")}
    voxels = posterior.batch.voxels[:4]
    expected = posterior.model.likelihood(posterior.signal(theta), voxels.noise).base_dist.log_prob(voxels.y)
    np.testing.assert_allclose(data["log_likelihood"]["y"].to_numpy()[0], expected, atol=2e-3)
    # the joint is the likelihood times the prior of the latents
    z = posterior.signal.unconstrain(theta)
    prior = torch.distributions.MultivariateNormal(
        posterior.model.prior.classes().loc, scale_tril=posterior.model.prior.classes().scale_tril
    ).log_prob(z.unsqueeze(-2))
    log_p = expected.sum(-1) + torch.logsumexp(prior + posterior.model.prior.classes().log_weights, -1)
    np.testing.assert_allclose(data["sample_stats"]["log_p"].to_numpy()[0], log_p.detach(), atol=5e-2)
    np.testing.assert_allclose(data["observed_data"]["y"], voxels.y)


def test_draws_have_a_seed():
    posterior = mixture_posterior()
    D = [posterior_to_arviz(posterior, slice(0, 4), 10, seed)["posterior"]["D"].to_numpy() for seed in (1, 1, 2)]
    assert np.array_equal(D[0], D[1])
    assert not np.array_equal(D[0], D[2])


def test_the_noise_level_is_the_one_that_was_learned():
    posterior = mixture_posterior()
    posterior.model.likelihood.log_factor.fill_(math.log(2))
    found = posterior_to_arviz(posterior, slice(0, 4), n_draws=10)["constant_data"]["sigma"]
    np.testing.assert_allclose(found, 0.1, rtol=1e-5)


def test_a_measurement_that_no_parameter_touches_is_left_out():
    data = posterior_to_arviz(mixture_posterior(n_b0=3), slice(0, 4), n_draws=30)
    assert data["log_likelihood"]["y"].shape == (4, 8, 4, 12)  # 30 rounded up
    assert data["constant_data"]["bval"].shape == (12,)


def test_wide_groups_give_way_to_memory():
    data = posterior_to_arviz(mixture_posterior(), slice(None), n_draws=50, max_bytes=2 * 3 * 4 * N * 12 * 11)
    assert data["posterior"]["D"].shape == (4, 13, N)
    assert data["log_likelihood"]["y"].shape == (4, 2, N, 12)
    assert attributes(data)["n_draws"] == 52
    assert attributes(data)["wide_draws"] == 8
    least = posterior_to_arviz(mixture_posterior(), slice(None), n_draws=50, max_bytes=2 * 3 * 4 * N * 12 * 2)
    assert least["log_likelihood"]["y"].shape == (2, 1, N, 12)


def test_a_direction_keeps_its_axes():
    acq = shells(0, 15, 1.0, 2.0)
    signal = BoundSignal(BallStick, acq)
    n = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    full = torch.ones(5)
    y = rician(signal({"f": 0.6 * full, "D_par": 1.9 * full, "D_iso": 0.8 * full, "n": n}), 0.03)
    from pyroqmri.priors import StandardNormal

    model = VoxelModel(signal, StandardNormal(3, 2), IdentityDecoder(3, 2), RicianLikelihood(), 0.03)
    batch = Batch(model.prepare(y, mode=True), torch.arange(5), torch.ones(5, dtype=torch.uint8), torch.ones(5))
    data = posterior_to_arviz(Posterior(model, MapStarted(model, 30), batch), n_draws=20)
    assert data["posterior"]["n"].dims == ("chain", "draw", "voxel", "axis")
    np.testing.assert_allclose((data["posterior"]["n"] ** 2).sum("axis"), 1, rtol=1e-4)


def test_netcdf_comes_back(tmp_path):
    data = posterior_to_arviz(mixture_posterior(), slice(0, 4), n_draws=30)
    path = tmp_path / "posterior.nc"
    write_netcdf(data, path)
    again = read_netcdf(path)
    assert set(group_names(again)) == GROUPS
    np.testing.assert_array_equal(again["posterior"]["D"], data["posterior"]["D"])
    assert again["posterior"]["D"].attrs["units"] == "um2/ms"
    assert list(tmp_path.iterdir()) == [path]


def test_arviz_can_use_it():
    az = import_arviz()
    data = posterior_to_arviz(mixture_posterior(), slice(0, 5), n_draws=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isfinite(float(np.ravel(az.loo(data).iloc[0] if hasattr(az.loo(data), "iloc") else 0.0)[0]))
        assert "D" in str(az.summary(data, var_names=["D"]))


def test_stacking_weights_prefer_the_model_that_predicts():
    rng = np.random.default_rng(0)
    good = rng.normal(size=200)
    weights = stacking_weights({"good": good, "bad": good - 1 - 0.1 * rng.normal(size=200)})
    assert weights["good"] > 0.9
    assert sum(weights.values()) == pytest.approx(1)


def test_acquisition_without_directions():
    acq = Acquisition(bval=[1.0, 2.0, 3.0])
    signal = BoundSignal(MSDKI, acq)
    model = VoxelModel(signal, Mixture(2, classes=2), IdentityDecoder(2), RicianLikelihood(), 0.05)
    y = rician(signal(tissue(4)), 0.05, 1)
    batch = Batch(model.prepare(y, mode=True), torch.arange(4), torch.ones(4, dtype=torch.uint8), torch.ones(4))
    data = posterior_to_arviz(Posterior(model, MapStarted(model, 3), batch), n_draws=20)
    assert "direction_x" not in data["log_likelihood"].coords


N_MAPS, N_DRAWS = 150, 1000
SCAN = shells(0, 8, 0.7, 1.4, 2.4)


@cache
def fitted(recipe: str) -> pq.Fit:
    y = rician(BoundSignal(MSDKI, SCAN)(tissue(800)), 0.06, 2)
    short = {"training.steps": 120} | ({"guide.simulations": 6000} if recipe == "uniform" else {})
    return pq.fit(y, SCAN, signal="msdki", recipe=recipe, sigma=0.06, s0=1.0, settings=short)


def plain() -> Posterior:
    return fitted("hierarchical").posterior(rician(BoundSignal(MSDKI, SCAN)(tissue(N_MAPS, 5)), 0.06, 3), n_draws=1024)


def recalibrated() -> Posterior:
    """Intervals of D wider by half, of K narrower and shifted: no draw may escape it."""
    levels = tuple(float(x) for x in torch.linspace(-2, 2, 9))
    maps = {
        "D": (levels, tuple(1.5 * x for x in levels)),
        "K": (levels, tuple(0.7 * x + 0.5 for x in levels)),
    }
    found = replace(fitted("hierarchical"), recalibration=Recalibration(maps))
    return found.posterior(rician(BoundSignal(MSDKI, SCAN)(tissue(N_MAPS, 5)), 0.06, 3), n_draws=1024)


def reweighted() -> Posterior:
    return fitted("uniform").posterior(rician(BoundSignal(MSDKI, SCAN)(tissue(N_MAPS, 5)), 0.06, 3))


def loose() -> Posterior:
    simulated = own_voxels(ball_stick_fit(), N_MAPS, seed=3)
    return ball_stick_fit().posterior(simulated.y, sigma=simulated.sigma, n_draws=1024)


POSTERIORS = {"plain": plain, "recalibrated": recalibrated, "reweighted": reweighted, "loose": loose}


@pytest.mark.parametrize("name", [*list(POSTERIORS)[:-1], pytest.param("loose", marks=pytest.mark.slow)])
def test_draws_are_those_of_the_maps(name):
    posterior = POSTERIORS[name]()
    data = posterior_to_arviz(posterior, slice(None), n_draws=N_DRAWS)
    assert data["posterior"]["chain"].size == 4
    # standard errors of 1,000 draws here and, at most, of 1,024 points there
    error = math.sqrt(1 / N_DRAWS + 1 / 1024)
    # an angle's mean is that of the mean axis in maps: the cone below is for them
    for quantity in (k for k, p in posterior.parameters.items() if p.unit != "rad"):
        draws = data["posterior"][quantity].to_numpy().reshape(N_DRAWS, N_MAPS)
        mean, sd = (getattr(posterior, what)[quantity].numpy() for what in ("mean", "sd"))
        # five standard errors in each of a few hundred numbers
        assert (np.abs(draws.mean(0) - mean) < 5 * error * sd).all()
        # the sd of a flat or two-humped posterior has less error than a normal's, of a long-tailed one more
        ratio = draws.std(0, ddof=1) / sd
        assert (np.abs(ratio - 1) < 10 * error / math.sqrt(2)).all()
        assert abs(ratio.mean() - 1) < 5 * error / math.sqrt(2 * N_MAPS) + 0.005
    if posterior.signal.axis is not None:
        n = data["posterior"]["n"].to_numpy().reshape(N_DRAWS, N_MAPS, 3)
        axis = posterior.direction.numpy()
        inside = np.degrees(np.arccos(np.abs((n * axis).sum(-1)).clip(0, 1))) < posterior.cone(0.5).numpy()
        assert (np.abs(inside.mean(0) - 0.5) < 5 * 0.5 * error + 0.01).all()


@pytest.mark.parametrize("make", [plain, reweighted])
def test_the_likelihood_is_that_of_the_same_draws(make):
    posterior = make()
    voxels = posterior.batch.voxels[:20]
    data = posterior_to_arviz(posterior, slice(0, 20), n_draws=40)
    theta = {k: torch.as_tensor(data["posterior"][k].to_numpy()).flatten(0, 1) for k in ("D", "K")}
    noise = voxels.noise if voxels.sigma is not None else posterior.model.sigma.expand(20, 1)
    exact = posterior.model.likelihood.information(posterior.signal(theta), voxels.y, noise).log_prob
    found = data["log_likelihood"]["y"].to_numpy().reshape(exact.shape)
    np.testing.assert_allclose(found, exact.detach(), atol=5e-3)
    stats = data["sample_stats"]
    same = np.isclose(stats["log_p"], stats["log_q"])
    assert same[..., stats["importance_weighted"].to_numpy()].all()
    assert not same[..., ~stats["importance_weighted"].to_numpy()].any()


def test_recalibration_moves_the_parameters_alone():
    before, after = (posterior_to_arviz(make(), slice(0, 20), n_draws=40) for make in (plain, recalibrated))
    for group in ("log_likelihood", "posterior_predictive", "sample_stats"):
        for name, values in before[group].items():
            np.testing.assert_array_equal(values, after[group][name])
    assert (
        after["posterior"]["D"].std(("chain", "draw")) > 1.2 * before["posterior"]["D"].std(("chain", "draw"))
    ).all()


@pytest.mark.slow
def test_the_attributes_say_what_the_draws_are():
    found = {
        name: attributes(posterior_to_arviz(make(), slice(0, 20), n_draws=40)) for name, make in POSTERIORS.items()
    }
    for name, attrs in found.items():
        assert (attrs["n_draws"], attrs["n_chains"]) == (40, 4)
        assert attrs["recipe"] == ("uniform" if name == "reweighted" else "hierarchical")
        assert attrs["signal"] == ("BallStick" if name == "loose" else "MSDKI")
        assert attrs["recalibrated"].startswith("yes" if name == "recalibrated" else "no")
        assert (attrs["importance_weighted"] == "no") == (name in ("plain", "recalibrated"))
        assert ("resampled with replacement" in attrs["draws"]) == (name in ("reweighted", "loose"))
    assert found["plain"]["draws"] == "independent draws of the Structured guide"
    assert found["reweighted"]["khat_draws"] == 1024
    assert found["loose"]["khat_draws"] == 1000
    weighted, of = found["loose"]["importance_weighted"].replace(" voxels", "").split(" of ")
    assert 0 < int(weighted) < int(of) == 20


def test_khat_is_that_of_the_maps():
    posterior = reweighted()
    data = posterior_to_arviz(posterior, slice(0, 20), n_draws=40)
    np.testing.assert_allclose(data["sample_stats"]["khat"], posterior.khat[:20], rtol=1e-2, atol=1e-2)
    assert attributes(data)["khat_bad_voxels"] == int((posterior.khat[:20] > 0.7).sum())


@pytest.mark.parametrize("make", [plain, reweighted])
def test_chains_are_independent(make):
    az = import_arviz()
    data = posterior_to_arviz(make(), slice(0, 50), n_draws=800)
    for name in ("D", "K"):
        # R-hat of 4 independent chains of 200 draws stays below 1.03, and their 800 draws count as at least 500
        assert float(az.rhat(data, var_names=[name])[name].max()) < 1.03
        assert float(az.ess(data, var_names=[name])[name].min()) > 500
    again = posterior_to_arviz(make(), slice(0, 50), n_draws=800, n_chains=1)
    assert again["posterior"]["D"].shape == (1, 800, 50)


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="takes none of the 30 fitted voxels"):
        posterior_to_arviz(mixture_posterior(), slice(40, 50))
    with pytest.raises(InputError, match="n_draws 0 and n_chains 4"):
        posterior_to_arviz(mixture_posterior(), n_draws=0)
