"""Least squares and maximum likelihood against scipy and against simulation."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

import pyroqmri as pq
from pyroqmri.errors import InputError
from pyroqmri.measurements.status import NOT_CONVERGED
from pyroqmri.signals import MSDKI, BallStick, BoundSignal
from pyroqmri.voxelwise.search import Search
from tests.helpers import msdki_data, rician, shells

SIGMA = 0.03
Y, ACQ = msdki_data(60, SIGMA, s0=200.0)
BVAL = ACQ.bval.double().numpy()


def point(recipe="least_squares", y=Y, acq=ACQ, signal="msdki", **changes):
    fit = pq.fit(y, acq, signal=signal, recipe=recipe, **({"sigma": 200.0 * SIGMA, "s0": 200.0} | changes))
    return fit.posterior(y)


def msdki(theta):
    return np.exp(-BVAL * theta[0] + (BVAL * theta[0]) ** 2 * theta[1] / 6)


LM = {"search.method": "levenberg_marquardt"}


def test_least_squares_is_scipys():
    found = point(settings=LM)
    for i, y in enumerate(Y.double().numpy() / 200):
        exact = optimize.least_squares(lambda t, y=y: msdki(t) - y, (1.0, 0.8), bounds=([0, -1], [4, 3]), xtol=1e-12)
        assert float(found.mean["D"][i]) == pytest.approx(exact.x[0], abs=2e-3)
        assert float(found.mean["K"][i]) == pytest.approx(exact.x[1], abs=5e-3)


def test_maximum_likelihood_is_scipys():
    found = point("maximum_likelihood")
    for i, y in enumerate(Y.double().numpy()[:20] / 200):

        def loss(t, y=y):
            return -max(stats.rice.logpdf(y, msdki(t) / SIGMA, scale=SIGMA).sum(), -1e9)

        exact = optimize.minimize(loss, (1.0, 0.8), bounds=[(0.01, 4), (-1, 3)], tol=1e-12)
        sd = float(found.sd["D"][i])
        assert float(found.mean["D"][i]) == pytest.approx(exact.x[0], abs=0.03 * sd + 2e-3)


def test_the_asymptotic_sd_is_gauss_newtons():
    found = point(settings=LM)
    theta = np.array([float(found.mean["D"][0]), float(found.mean["K"][0])])
    signal = msdki(theta)
    jacobian = np.stack([(-BVAL + BVAL**2 * theta[0] * theta[1] / 3) * signal, (BVAL * theta[0]) ** 2 / 6 * signal], -1)
    covariance = np.linalg.inv(jacobian.T @ jacobian) * SIGMA**2
    assert float(found.sd["D"][0]) == pytest.approx(covariance[0, 0] ** 0.5, rel=0.02)
    assert float(found.sd["K"][0]) == pytest.approx(covariance[1, 1] ** 0.5, rel=0.02)


def repeated(n: int, sigma: float):
    """The same voxel measured ``n`` times."""
    acq = shells(4, 20, 1.0, 2.0, bvec=False)
    signal = BoundSignal(MSDKI, acq)({"D": torch.full((n,), 1.0), "K": torch.full((n,), 0.9)})
    return rician(signal, sigma), acq


@pytest.mark.parametrize("recipe", ["least_squares", "maximum_likelihood"])
def test_the_sd_is_the_scatter_and_intervals_cover(recipe):
    # 1,000 voxels: standard errors 2.2 % of the sd, .0095 of the coverage
    y, acq = repeated(1000, 0.02)
    found = point(recipe, y, acq, sigma=0.02, s0=1.0)
    for name, truth in (("D", 1.0), ("K", 0.9)):
        assert float(found.sd[name].median()) == pytest.approx(float(found.mean[name].std()), rel=0.12)
        interval = found.interval(0.9)[name]
        inside = ((interval[:, 0] < truth) & (truth < interval[:, 1])).float().mean()
        assert 0.86 < float(inside) < 0.94, name


def test_the_rician_likelihood_takes_the_noise_floors_bias_away():
    # at SNR 5 the floor lifts the far shell: least squares takes that for kurtosis
    y, acq = repeated(1000, 0.2)
    ml, ls = (point(r, y, acq, sigma=0.2, s0=1.0).mean["K"] for r in ("maximum_likelihood", "least_squares"))
    assert abs(float(ml.median()) - 0.9) < 0.5 * abs(float(ls.median()) - 0.9)


def test_quantiles_are_of_a_normal():
    found = point()
    low, median, high = (found.quantile(q)["D"] for q in (0.05, 0.5, 0.95))
    torch.testing.assert_close(median, found.mean["D"])
    torch.testing.assert_close(high - median, 1.6449 * found.sd["D"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(high - median, median - low, rtol=1e-4, atol=1e-6)


def test_estimates_stay_in_their_bounds_and_say_when_they_reach_them():
    y = torch.ones(4, len(ACQ)) * 200
    y[2:] = Y[:2]
    found = point(y=y)
    assert found.mean["D"][:2].max() < 0.05
    assert found.status.tolist()[:2] == [6, 6]
    assert found.status.tolist()[2:] == [1, 1]


def test_what_did_not_converge_says_so():
    found = point(settings=LM | {"search.steps": 1, "search.starts": 1})
    assert (found.status == NOT_CONVERGED).any()
    assert (point().status != NOT_CONVERGED).all()


def test_what_did_not_converge_keeps_a_code_that_says_more():
    y = torch.ones(4, len(ACQ)) * 200
    y[2:] = Y[:2]
    found = point(y=y)
    found.converged = torch.zeros(4, dtype=torch.bool)
    assert found.status.tolist() == [6, 6, NOT_CONVERGED, NOT_CONVERGED]


def test_p_values_of_the_residuals_are_uniform_under_the_model():
    # 1,000 voxels: a KS test with a failure rate of 1e-4 under other seeds
    y, acq = repeated(1000, 0.02)
    p = point("maximum_likelihood", y, acq, sigma=0.02, s0=1.0).ppc
    assert stats.kstest(p.numpy(), "uniform").pvalue > 1e-4
    y[:5, ::2] += 0.2
    found = point("maximum_likelihood", y, acq, sigma=0.02, s0=1.0)
    assert found.status[:5].tolist() == [7] * 5


def test_bad_voxels_are_nan():
    y = Y.clone()
    y[0, 0], y[1] = torch.nan, 0
    found = point(y=y)
    assert found.status[:2].tolist() == [2, 3]
    for values in (found.mean["D"], found.sd["D"], found.ppc, found.quantile(0.2)["K"]):
        assert torch.isnan(values[:2]).all()
        assert torch.isfinite(values[2:]).all()


def test_nothing_fitted_is_all_nan():
    found = point(y=torch.full_like(Y, torch.nan))
    assert (found.status == 2).all()
    assert torch.isnan(found.mean["D"]).all()


def sticks(n: int = 100, sigma: float = 0.02):
    acq = shells(3, 32, 1.0, 2.5)
    generator = torch.Generator().manual_seed(0)
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    f = 0.4 + 0.4 * torch.rand(n, generator=generator)
    theta = {"f": f, "D_par": torch.full((n,), 2.0), "D_iso": torch.full((n,), 1.0), "n": axes}
    return rician(BoundSignal(BallStick, acq)(theta), sigma), acq, theta


@pytest.mark.parametrize("recipe", ["least_squares", "maximum_likelihood"])
def test_sticks_are_found_with_their_axes(recipe):
    y, acq, theta = sticks()
    found = point(recipe, y, acq, "ball_stick", sigma=0.02, s0=1.0)
    assert (found.mean["f"] - theta["f"]).abs().median() < 0.03
    axis = found.direction
    assert (axis[:, 2] >= 0).all()
    assert torch.rad2deg(torch.acos((axis * theta["n"]).sum(-1).abs().clamp(max=1))).median() < 2
    angles = BallStick.derived({"n": axis})
    for name in ("theta", "phi"):
        torch.testing.assert_close(found.mean[name], angles[name], atol=1e-4, rtol=0)
        assert torch.isfinite(found.sd[name]).all()
    # the model is right and the noise known: most voxels are fine
    assert (found.status == 1).float().mean() > 0.85


def test_the_sd_of_theta_is_the_scatter_of_theta():
    # one axis measured 400 times: standard error of the scatter 3.5 %
    acq = shells(3, 32, 1.0, 2.5)
    n, full = torch.nn.functional.normalize(torch.tensor([0.5, 0.6, 0.4]), dim=0), torch.ones(400)
    theta = {"f": 0.6 * full, "D_par": 2.0 * full, "D_iso": 1.0 * full, "n": n.expand(400, 3)}
    y = rician(BoundSignal(BallStick, acq)(theta), 0.02)
    found = point("maximum_likelihood", y, acq, "ball_stick", sigma=0.02, s0=1.0)
    for name in ("theta", "phi"):
        assert float(found.sd[name].median()) == pytest.approx(float(found.mean[name].std()), rel=0.15)


def test_there_are_no_classes_and_no_axis():
    found = point()
    assert found.responsibilities is None
    assert found.direction is None
    assert found.has_sd
    assert found.names == ("D", "K")
    for ask in (found.log_likelihood, found.to_arviz):
        with pytest.raises(InputError, match="fit a recipe with a posterior"):
            ask()


def test_steps_must_be():
    with pytest.raises(InputError, match=r"search\.steps must be above zero, got 0"):
        Search(steps=0)
