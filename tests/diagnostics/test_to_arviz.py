"""What ArviZ is given is what the posterior says, for ours and for any Pyro pair."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal

from pyroqmri.acquisition import Acquisition
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.diagnostics import from_pyro_svi, posterior_to_arviz, read_netcdf, write_netcdf
from pyroqmri.diagnostics.arviz_adapter import attributes, group_names, import_arviz, stacking_weights
from pyroqmri.errors import InputError
from pyroqmri.guides import MapStarted
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.posterior import Posterior
from pyroqmri.priors import Mixture
from pyroqmri.signals import MSDKI, BallStick, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import rician, shells, tissue

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
    assert data["log_likelihood"]["y"].shape == (1, 30, 4, 12)
    assert data["constant_data"]["bval"].shape == (12,)


def test_wide_groups_give_way_to_memory():
    data = posterior_to_arviz(mixture_posterior(), slice(None), n_draws=50, max_bytes=2 * 3 * 4 * N * 12 * 7)
    assert data["posterior"]["D"].sizes["draw"] == 50
    assert data["log_likelihood"]["y"].sizes["draw"] == attributes(data)["wide_draws"] == 7


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


X = torch.linspace(-1, 1, 40)
Y = 1.0 + 2.0 * X + 0.3 * torch.randn(40, generator=torch.Generator().manual_seed(3))


def line(x, y=None):
    a = pyro.sample("a", dist.Normal(0.0, 3.0))
    b = pyro.sample("b", dist.Normal(0.0, 3.0))
    with pyro.plate("points", len(x)):
        mean = pyro.deterministic("mean", a + b * x)
        pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


def exact_line() -> tuple[torch.Tensor, torch.Tensor]:
    design = torch.stack([torch.ones(40), X], -1)
    covariance = torch.linalg.inv(design.mT @ design / 0.09 + torch.eye(2) / 9)
    return covariance @ design.mT @ Y / 0.09, covariance


def exact_guide(x, y=None):
    loc, covariance = exact_line()
    z = pyro.sample("z", dist.MultivariateNormal(loc, covariance), infer={"is_auxiliary": True})
    pyro.sample("a", dist.Delta(z[0]))
    pyro.sample("b", dist.Delta(z[1]))


def test_any_pyro_pair_has_a_road_to_arviz():
    data = from_pyro_svi(
        line, exact_guide, X, Y, n_draws=300, losses=[3.0, 2.0], dims={"y": ["point"], "mean": ["point"]}
    )
    assert set(group_names(data)) == GROUPS - {"constant_data"}
    loc, covariance = exact_line()
    for i, name in enumerate("ab"):
        draws = data["posterior"][name].to_numpy()
        sd = float(covariance[i, i].sqrt())
        # 300 draws: the error of a mean is sd / 17, five of those fail once in two million
        assert abs(draws.mean() - float(loc[i])) < 5 * sd / math.sqrt(300)
    assert data["posterior"]["mean"].dims == ("chain", "draw", "point")
    assert data["prior"]["mean"].sizes == {"chain": 1, "draw": 300, "point": 40}
    assert data["log_likelihood"]["y"].sizes["point"] == 40
    # log p - log q of the exact posterior is the evidence, the same for every draw
    ratio = (data["sample_stats"]["log_p"] - data["sample_stats"]["log_q"]).to_numpy()
    assert ratio.std() < 1e-3
    np.testing.assert_allclose(data["sample_stats"]["elbo"], [-3.0, -2.0])
    assert 2 < data["prior"]["a"].to_numpy().std() < 4
    assert data["prior_predictive"]["y"].to_numpy().std() > 2 * data["posterior_predictive"]["y"].to_numpy().std()
    np.testing.assert_allclose(data["observed_data"]["y"], Y)


def test_an_autoguide_from_the_store():
    guide = AutoMultivariateNormal(line)
    svi = SVI(line, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(2))
    losses = [svi.step(X, Y) for _ in range(250)]
    data = from_pyro_svi(line, guide, X, Y, n_draws=200, losses=losses)
    loc, covariance = exact_line()
    assert abs(data["posterior"]["b"].to_numpy().mean() - float(loc[1])) < float(covariance[1, 1].sqrt())
    assert attributes(data)["khat"] < 0.7


def test_a_site_that_the_guide_leaves_out_is_refused():
    def half(x, y=None):
        pyro.sample("a", dist.Normal(0.0, 1.0))

    with pytest.raises(InputError, match="does not sample b"):
        from_pyro_svi(line, half, X, Y, n_draws=5)
    with pytest.raises(InputError, match="observes nothing"):
        from_pyro_svi(line, exact_guide, X, n_draws=5)


def test_acquisition_without_directions():
    acq = Acquisition(bval=[1.0, 2.0, 3.0])
    signal = BoundSignal(MSDKI, acq)
    model = VoxelModel(signal, Mixture(2, classes=2), IdentityDecoder(2), RicianLikelihood(), 0.05)
    y = rician(signal(tissue(4)), 0.05, 1)
    batch = Batch(model.prepare(y, mode=True), torch.arange(4), torch.ones(4, dtype=torch.uint8), torch.ones(4))
    data = posterior_to_arviz(Posterior(model, MapStarted(model, 3), batch), n_draws=20)
    assert "direction_x" not in data["log_likelihood"].coords
