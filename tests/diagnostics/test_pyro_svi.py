"""Any Pyro model and guide reach ArviZ: regressions whose posterior is known, none of this package."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyroqmri.diagnostics import from_pyro_svi
from pyroqmri.diagnostics.arviz_adapter import attributes, group_names
from pyroqmri.errors import InputError
from tests.arviz_calls import loo

GROUPS = {
    "posterior", "prior", "posterior_predictive", "prior_predictive", "log_likelihood", "observed_data",
    "sample_stats",
}  # fmt: skip
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
    assert set(group_names(data)) == GROUPS
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


A = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)) * 0.5 + torch.tensor([1.0, -1.0, 0.5])


def vectors(y=None):
    """Twelve points of three values around a common mean."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 3.0).to_event(1))
    with pyro.plate("points", len(A)):
        pyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)


def vectors_guide(y=None):
    precision = 12 / 0.25 + 1 / 9
    pyro.sample("mean", dist.Normal(A.sum(0) / 0.25 / precision, precision**-0.5).to_event(1))


def test_observations_with_an_event_axis_need_no_names():
    data = from_pyro_svi(vectors, vectors_guide, A, n_draws=200)
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "y_dim_0")
    assert data["posterior_predictive"]["y"].dims == ("chain", "draw", "y_dim_0", "y_dim_1")
    assert data["observed_data"]["y"].dims == ("y_dim_0", "y_dim_1")
    mean = torch.as_tensor(data["posterior"]["mean"].to_numpy()[0])
    exact = dist.Normal(mean.unsqueeze(1), 0.5).log_prob(A).sum(-1)
    np.testing.assert_allclose(data["log_likelihood"]["y"].to_numpy()[0], exact, rtol=1e-4)
    assert math.isfinite(loo(data))
    named = from_pyro_svi(vectors, vectors_guide, A, n_draws=30, dims={"y": ["point", "component"]})
    assert named["log_likelihood"]["y"].dims == ("chain", "draw", "point")
    assert named["prior_predictive"]["y"].dims == ("chain", "draw", "point", "component")
    with pytest.raises(InputError, match="dims of y must name its 2 axes, got 1: point"):
        from_pyro_svi(vectors, vectors_guide, A, n_draws=5, dims={"y": ["point"]})


SEEN = torch.arange(40) % 4 != 1


def masked_line(x, y=None, how="poutine", seen=SEEN):
    a = pyro.sample("a", dist.Normal(0.0, 3.0))
    b = pyro.sample("b", dist.Normal(0.0, 3.0))
    with pyro.plate("points", len(x)):
        d = dist.Normal(a + b * x, 0.3)
        if how == "poutine":
            with poutine.mask(mask=seen):
                pyro.sample("y", d, obs=y)
        elif how == "distribution":
            pyro.sample("y", d.mask(seen), obs=y)
        else:
            pyro.sample("y", d, obs=y, obs_mask=seen)


def masked_guide(x, y=None, how="poutine", seen=SEEN):
    a = pyro.sample("a", dist.Normal(1.0, 0.05))
    b = pyro.sample("b", dist.Normal(2.0, 0.08))
    if how == "observed":
        with pyro.plate("points", len(x)):
            pyro.sample("y_unobserved", dist.Normal(a + b * x, 0.3).mask(~seen))


@pytest.mark.parametrize("how", ["poutine", "distribution", "observed"])
def test_masked_points_are_not_scored(how):
    junk = torch.where(SEEN, Y, 1e3)  # what stands where nothing was measured
    name = "y_observed" if how == "observed" else "y"
    data = from_pyro_svi(masked_line, masked_guide, X, junk, how, n_draws=200)
    found = data["log_likelihood"][name]
    assert found.dims == ("chain", "draw", f"{name}_scored")
    np.testing.assert_array_equal(found[f"{name}_scored"], torch.nonzero(SEEN).squeeze(-1))
    a, b = (torch.as_tensor(data["posterior"][k].to_numpy()[0]).unsqueeze(-1) for k in "ab")
    exact = dist.Normal(a + b * X[SEEN], 0.3).log_prob(Y[SEEN])
    np.testing.assert_allclose(found.to_numpy()[0], exact, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.isnan(data["observed_data"][name]), ~SEEN)
    assert data["posterior_predictive"][name].shape == (1, 200, 40)
    # as a regression on those points alone
    alone = from_pyro_svi(masked_line, masked_guide, X[SEEN], Y[SEEN], "poutine", SEEN[SEEN], n_draws=200)
    # 30 points of 200 draws; the two differ by the draws alone, near .2 nats
    assert loo(data, name) == pytest.approx(loo(alone), abs=1.0)


def test_a_mask_over_two_axes_leaves_the_points_in_one():
    seen = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    y = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))

    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 5, dim=-1), poutine.mask(mask=seen):
            pyro.sample("y", dist.Normal(a, 1.0), obs=y)

    def guide():
        pyro.sample("a", dist.Normal(0.0, 0.3))

    data = from_pyro_svi(model, guide, n_draws=50, dims={"y": ["row", "column"]})
    found = data["log_likelihood"]["y"]
    rows, columns = found["y_scored_row"].to_numpy(), found["y_scored_column"].to_numpy()
    assert found.sizes["y_scored"] == int(seen.sum())
    assert seen[rows, columns].all()
    a = torch.as_tensor(data["posterior"]["a"].to_numpy()[0]).unsqueeze(-1)
    np.testing.assert_allclose(found.to_numpy()[0], dist.Normal(a, 1.0).log_prob(y[rows, columns]), rtol=1e-4)
    assert data["posterior_predictive"]["y"].dims == ("chain", "draw", "row", "column")
    assert math.isfinite(loo(data))


def test_an_event_counts_as_soon_as_one_of_its_elements_does():
    seen = torch.ones(12, 3, dtype=torch.bool)
    seen[0], seen[1, 2] = False, False

    def model():
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        with pyro.plate("points", 12):
            pyro.sample("y", dist.Normal(mean.expand(12, 3), 0.5).mask(seen).to_event(1), obs=A)

    data = from_pyro_svi(model, lambda: vectors_guide(), n_draws=20)
    found = data["log_likelihood"]["y"]
    assert found["y_scored"].to_numpy().tolist() == list(range(1, 12))
    mean = torch.as_tensor(data["posterior"]["mean"].to_numpy()[0])
    exact = dist.Normal(mean[:, :2], 0.5).log_prob(A[1, :2]).sum(-1)
    np.testing.assert_allclose(found.to_numpy()[0, :, 0], exact, rtol=1e-4)


def test_a_site_that_is_masked_as_a_whole_is_not_scored():
    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("points", 40):
            pyro.sample("y", dist.Normal(a, 1.0), obs=Y)
            with poutine.mask(mask=False):
                pyro.sample("w", dist.Normal(a, 1.0), obs=Y)

    data = from_pyro_svi(model, lambda: pyro.sample("a", dist.Normal(0.0, 0.3)), n_draws=20)
    assert set(data["log_likelihood"].data_vars) == {"y"}
    assert data["prior_predictive"]["w"].shape == (1, 20, 40)
    with pytest.raises(InputError, match="observes nothing"):
        from_pyro_svi(masked_line, masked_guide, X, Y, "poutine", torch.zeros(40, dtype=torch.bool), n_draws=5)


def test_a_mask_that_differs_between_draws_is_refused():
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("points", 40), poutine.mask(mask=torch.rand(40) < 0.5):
            pyro.sample("y", dist.Normal(a, 1.0), obs=y)

    with pytest.raises(InputError, match="mask of site y differs between draws"):
        from_pyro_svi(model, lambda y: pyro.sample("a", dist.Normal(0.0, 0.3)), Y, n_draws=5)


@pytest.mark.parametrize("sequential", [False, True])
def test_a_subsampled_plate_is_refused(sequential):
    def model(y, size=None):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        plate = pyro.plate("points", 40, subsample_size=size)
        if sequential:
            for i in plate:
                pyro.sample(f"y_{i}", dist.Normal(a, 1.0), obs=y[i])
        else:
            with plate as index:
                pyro.sample("y", dist.Normal(a, 1.0), obs=y[index])

    def guide(y, size=None):
        pyro.sample("a", dist.Normal(0.0, 0.3))

    with pytest.raises(InputError, match="plate points takes 10 of its 40 points"):
        from_pyro_svi(model, guide, Y, 10, n_draws=5)
    names = {f"y_{i}" for i in range(40)} if sequential else {"y"}
    assert set(from_pyro_svi(model, guide, Y, n_draws=5)["log_likelihood"].data_vars) == names


def test_arguments_by_name_reach_both():
    guide = AutoNormal(masked_line)
    everything = torch.ones(40, dtype=torch.bool)
    svi = SVI(masked_line, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(300):
        svi.step(X, y=Y, how="distribution", seen=everything)
    kwargs = {"y": Y, "how": "distribution", "seen": everything}
    data = from_pyro_svi(masked_line, guide, X, kwargs=kwargs, n_draws=100)
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "y_dim_0")
    loc, covariance = exact_line()
    for i, name in enumerate("ab"):
        assert abs(data["posterior"][name].to_numpy().mean() - float(loc[i])) < float(covariance[i, i].sqrt())
    with pytest.raises(InputError, match="observes nothing"):
        from_pyro_svi(masked_line, masked_guide, X, kwargs={"how": "distribution"}, n_draws=5)
