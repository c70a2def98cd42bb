"""What a posterior says: against the exact one of a linear signal, and against its own draws."""

import pytest
import torch
from scipy import stats

import pyroqmri.posterior.posterior
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.errors import InputError
from pyroqmri.guides import MapStarted, Structured
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.importance import Reweighting
from pyroqmri.posterior.recalibration import Recalibration
from pyroqmri.posterior.summaries import quantiles
from pyroqmri.priors import Mixture, StandardNormal
from pyroqmri.signals import MSDKI, BallStick, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import (
    DESIGN,
    SIGMA,
    msdki_data,
    quadratic_data,
    quadratic_model,
    quadratic_posterior,
    rician,
    shells,
)

N = 30


def as_batch(y: torch.Tensor, sigma: float, n_all: int | None = None) -> Batch:
    """Fitted voxels ``y``; of ``n_all``, the first ones could not be."""
    n_all = len(y) if n_all is None else n_all
    status = torch.ones(n_all, dtype=torch.uint8)
    status[: n_all - len(y)] = 2
    index = torch.arange(n_all - len(y), n_all)
    return Batch(Voxels(y, torch.full((len(y), 1), sigma)), index, status, torch.ones(len(y)))


def exact_guide(model) -> Structured:
    guide = Structured(model, 8)
    torch.nn.init.zeros_(guide.network[-1].weight)
    return guide


def toy(n_draws: int = 1024, n_all: int | None = None, y: torch.Tensor | None = None) -> Posterior:
    model = quadratic_model()
    y = quadratic_data(N) if y is None else y
    return Posterior(model, exact_guide(model), as_batch(y, SIGMA, n_all), n_draws)


def test_moments_and_quantiles_are_the_exact_ones():
    posterior = toy()
    loc, covariance = quadratic_posterior(quadratic_data(N))
    for i, name in enumerate("abc"):
        sd = covariance[i, i].sqrt()
        torch.testing.assert_close(posterior.mean[name], loc[:, i], atol=0.02 * float(sd), rtol=0)
        torch.testing.assert_close(posterior.sd[name], sd.expand(N), rtol=0.02, atol=0)
        for q in (0.05, 0.3, 0.5, 0.95):
            exact = loc[:, i] + sd * stats.norm.ppf(q)
            torch.testing.assert_close(posterior.quantile(q)[name], exact, atol=1e-3 * float(sd), rtol=0)


def test_quantiles_rise_and_intervals_are_made_of_them():
    posterior = toy(256)
    levels = torch.stack([posterior.quantile(q)["b"] for q in (0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99)])
    assert (levels.diff(dim=0) > 0).all()
    interval = posterior.interval(0.9)["b"]
    assert interval.shape == (N, 2)
    torch.testing.assert_close(interval, torch.stack([levels[1], levels[5]], -1))
    for p in (0, 1, -0.5, 90):
        with pytest.raises(ValueError, match="between 0 and 1"):
            posterior.interval(p)


def test_quantiles_of_every_level_are_recalibrated():
    before, after = toy(256), toy(256)
    after.recalibration = Recalibration({"a": ((-2.0, 0.0, 2.0), (-4.0, 0.0, 4.0))})
    middle = before.quantile(0.5)["a"]
    for q in (0.05, 0.3, 0.8, 0.95):
        twice = middle + 2 * (before.quantile(q)["a"] - middle)
        # of 256 points: some hundredths of an sd
        torch.testing.assert_close(after.quantile(q)["a"], twice, rtol=0, atol=0.1 * float(before.sd["a"].min()))
        torch.testing.assert_close(after.quantile(q)["b"], before.quantile(q)["b"], rtol=0, atol=0.03)


def test_draws_are_of_the_posterior():
    # 4,000 draws: standard errors 1.6 % of the sd for means, 1.1 % for sds
    posterior = toy()
    draws = posterior.draws(4000)
    for name in "abc":
        assert draws[name].shape == (4000, N)
        assert ((draws[name].mean(0) - posterior.mean[name]).abs() < 0.09 * posterior.sd[name]).all()
        torch.testing.assert_close(draws[name].std(0), posterior.sd[name], rtol=0.06, atol=0)
    # jointly so: covariances are there
    covariance = torch.cov(torch.stack([draws[k][:, 0] for k in "abc"]))
    torch.testing.assert_close(covariance, quadratic_posterior(quadratic_data(N))[1], atol=0.004, rtol=0.1)


def test_draws_have_a_seed_and_leave_the_callers_random_state():
    posterior = toy(64)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same, other = posterior.draws(5, seed=3), posterior.draws(5, seed=3), posterior.draws(5, seed=4)
    posterior.log_likelihood(3)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one["a"], same["a"])
    assert not torch.equal(one["a"], other["a"])


def test_log_likelihood_is_that_of_the_draws():
    posterior = toy(64)
    draws = posterior.draws(6, seed=2)
    signal = posterior.model.signal({k: draws[k] for k in "abc"})
    reference = torch.distributions.Normal(signal, SIGMA).log_prob(quadratic_data(N))
    found = posterior.log_likelihood(6, seed=2)
    assert found.shape == (6, N, 8)
    torch.testing.assert_close(found, reference, atol=1e-3, rtol=1e-4)
    assert not torch.equal(found, posterior.log_likelihood(6, seed=3))


def test_voxels_without_a_fit_are_nan_everywhere():
    posterior, whole = toy(64, n_all=N + 4), toy(64)
    assert posterior.status[:4].tolist() == [2] * 4
    answers = [posterior.mean["a"], posterior.sd["a"], posterior.quantile(0.4)["a"], posterior.ppc]
    answers += [posterior.draws(3)["a"].mT, posterior.log_likelihood(3).movedim(0, 1), posterior.interval(0.5)["a"]]
    for answer in answers:
        assert len(answer) == N + 4
        assert torch.isnan(answer[:4]).all()
        assert torch.isfinite(answer[4:]).all()
    torch.testing.assert_close(posterior.mean["a"][4:], whole.mean["a"])


def test_nothing_fitted_is_all_nan():
    posterior = toy(64, n_all=3, y=quadratic_data(0))
    assert posterior.status.tolist() == [2, 2, 2]
    assert torch.isnan(posterior.mean["a"]).all()
    assert posterior.draws(5)["b"].shape == (5, 3)
    assert posterior.log_likelihood(2).shape == (2, 3, 8)
    for answer in (posterior.quantile(0.3)["c"], posterior.interval(0.5)["a"][:, 0], posterior.khat, posterior.ppc):
        assert answer.shape == (3,)
        assert torch.isnan(answer).all()


def test_chunks_change_nothing(monkeypatch):
    whole = toy(64)
    expected = whole.mean["a"], whole.sd["b"], whole.quantile(0.3)["c"], whole.ppc
    monkeypatch.setattr(pyroqmri.posterior.posterior, "CHUNK_VALUES", 64 * 8 * 4)
    monkeypatch.setattr(pyroqmri.posterior.posterior, "CHUNK", 7)
    parts = toy(64)
    found = parts.mean["a"], parts.sd["b"], parts.quantile(0.3)["c"], parts.ppc
    # modes are searched until all of a chunk have converged: a hundredth of the sd
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.02 * float(whole.sd["a"].min()))


def test_the_predictive_p_value_is_uniform_under_the_model_and_small_under_another():
    # 1,000 voxels: with the parameters averaged over, p-values bunch a little around one half
    ppc = toy(64, y=quadratic_data(1000)).ppc
    assert float(ppc.mean()) == pytest.approx(0.5, abs=0.12)
    assert float((ppc < 0.001).float().mean()) < 0.01
    bent = quadratic_data(20)
    bent[:, ::2] += 5 * SIGMA
    posterior = toy(64, y=bent)
    assert (posterior.ppc < 0.001).all()
    assert posterior.status.tolist() == [7] * 20


def test_a_parameter_at_its_bound_is_said():
    acq = shells(0, 6, 1.0, 2.0)
    model = VoxelModel(BoundSignal(MSDKI, acq), StandardNormal(2), IdentityDecoder(2), RicianLikelihood(), 0.01)
    y = rician(model.signal({"D": torch.tensor([0.0, 1.0]), "K": torch.tensor([0.0, 0.8])}), 0.01)
    posterior = Posterior(model, MapStarted(model, 12), as_batch(y, 0.01), 128)
    assert posterior.status.tolist() == [6, 1]


def test_classes_have_responsibilities_and_one_class_none():
    assert toy(64).responsibilities is None
    model = quadratic_model(Mixture(3, classes=2))
    posterior = Posterior(model, exact_guide(model), as_batch(quadratic_data(N), SIGMA, N + 2), 64)
    found = posterior.responsibilities
    assert found.shape == (N + 2, 2)
    assert torch.isnan(found[:2]).all()
    torch.testing.assert_close(found[2:].sum(-1), torch.ones(N))


def test_responsibilities_are_the_probabilities_of_the_classes_given_the_measurements():
    prior, weights, loc = Mixture(3, classes=2), torch.tensor([0.3, 0.7]), torch.tensor([[-0.4] * 3, [0.4] * 3])
    prior.update(weights, loc, 0.25 * torch.eye(3).expand(2, 3, 3))
    model, y = quadratic_model(prior), quadratic_data(N)
    found = Posterior(model, exact_guide(model), as_batch(y, SIGMA), 64).responsibilities
    covariance = 0.25 * DESIGN @ DESIGN.mT + SIGMA**2 * torch.eye(8)
    density = torch.distributions.MultivariateNormal(loc @ DESIGN.mT, covariance).log_prob(y.unsqueeze(1))
    torch.testing.assert_close(found, (density + weights.log()).softmax(-1), atol=0.01, rtol=0)


def narrow(log_sd: float) -> Posterior:
    """The exact posterior's mean, its sds times a number."""
    model = quadratic_model()
    guide = exact_guide(model)
    with torch.no_grad():  # log sds come after the three shifts
        guide.network[-1].bias[3:6] = log_sd
    return Posterior(model, guide, as_batch(quadratic_data(N), SIGMA), 64)


def test_khat_tells_a_narrow_posterior_from_a_good_one():
    assert narrow(0.1).khat.shape == (N,)
    assert (narrow(0.1).khat < 0.5).all()
    assert narrow(-1.0).khat.median() > 0.7


def test_khat_of_the_exact_posterior_is_good():
    assert (narrow(0.0).khat < 0.5).all()


def reweighted(log_sd: float, **settings) -> Posterior:
    plain = narrow(log_sd)
    again = Reweighting(draws=4096, reweight=True, **settings)
    return Posterior(plain.model, plain.guide, plain.batch, 4096, reweighting=again)


@pytest.mark.parametrize("log_sd", [-0.3, 0.25])
def test_weights_put_a_wrong_posterior_right(log_sd):
    posterior = reweighted(log_sd)
    loc, covariance = quadratic_posterior(quadratic_data(N))
    assert (posterior.khat < 0.7).all()
    draws = posterior.draws(4000)
    for i, name in enumerate("abc"):
        sd = covariance[i, i].sqrt()
        # 4,096 points of efficiency .6: means to .02 sd, sds to .014, the outer quantiles to .045, draws another .02
        for found in (posterior.mean[name], draws[name].mean(0)):
            assert ((found - loc[:, i]).abs() < 0.15 * sd).all()
        for found in (posterior.sd[name], draws[name].std(0)):
            torch.testing.assert_close(found, sd.expand(N), rtol=0.12, atol=0)
        for q in (0.05, 0.95):
            exact = loc[:, i] + sd * stats.norm.ppf(q)
            assert ((posterior.quantile(q)[name] - exact).abs() < 0.25 * sd).all()
            assert ((posterior.quantile(q)[name] - exact).abs().mean() < 0.07 * sd).all()
    assert (posterior.sd["a"] - narrow(log_sd).sd["a"]).abs().min() > 0.1 * posterior.sd["a"].min()


def test_weights_that_cannot_be_trusted_change_nothing():
    gated = reweighted(-0.3, max_khat=-torch.inf)
    plain = Posterior(gated.model, gated.guide, gated.batch, 4096)
    torch.testing.assert_close(gated.mean["a"], plain.mean["a"])
    torch.testing.assert_close(gated.sd["b"], plain.sd["b"])
    assert torch.equal(gated.draws(10)["c"], reweighted(-0.3, min_efficiency=1.0).draws(10)["c"])


def test_few_draws_are_not_reweighted():
    with pytest.raises(InputError, match="needs 1000"):
        Reweighting(draws=256, reweight=True)


def test_no_direction_no_cone():
    posterior = toy(64)
    assert posterior.has_sd
    assert posterior.direction is None
    with pytest.raises(ValueError, match="no direction"):
        posterior.cone(0.9)


def sticks(n_draws: int = 512) -> Posterior:
    """Sixty axes all over the sphere, well measured."""
    acq = shells(0, 30, 1.0, 2.0)
    n = torch.nn.functional.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    full = torch.ones(60)
    signal = BoundSignal(BallStick, acq)
    y = rician(signal({"f": 0.6 * full, "D_par": 1.9 * full, "D_iso": 0.8 * full, "n": n}), 0.03)
    model = VoxelModel(signal, StandardNormal(3, 2), IdentityDecoder(3, 2), RicianLikelihood(), 0.03)
    posterior = Posterior(model, MapStarted(model, 60), as_batch(y, 0.03), n_draws)
    posterior.truth = n
    return posterior


def test_axes_and_their_cones_agree_with_draws():
    posterior = sticks()
    axis, draws = posterior.direction, posterior.draws(2000)["n"]
    assert draws.shape == (2000, 60, 3)
    torch.testing.assert_close(axis.norm(dim=-1), torch.ones(60), atol=1e-5, rtol=0)
    assert (axis[:, 2] >= 0).all()
    angle = torch.rad2deg(torch.acos((draws * axis).sum(-1).abs().clamp(max=1)))
    for p in (0.5, 0.9):
        torch.testing.assert_close(posterior.cone(p), torch.quantile(angle, p, dim=0), rtol=0.15, atol=0.1)
    assert (posterior.cone(0.9) > posterior.cone(0.5)).all()
    # binomial of 60 at .9: fewer than 46 has a chance of 1e-3
    to_truth = torch.rad2deg(torch.acos((posterior.truth * axis).sum(-1).abs().clamp(max=1)))
    assert int((to_truth < posterior.cone(0.9)).sum()) >= 46


def aligned_angles(posterior: Posterior) -> dict[str, torch.Tensor]:
    """Polar angle and azimuth of draws that are turned to the side of the mean axis, around those of the axis."""
    axis, draws = posterior.direction, posterior.draws(2000)["n"]
    draws = draws * (draws * axis).sum(-1, keepdim=True).sign()
    centre, found = BallStick.derived({"n": axis}), BallStick.derived({"n": draws})
    phi = torch.remainder(found["phi"] - centre["phi"] + torch.pi, 2 * torch.pi) - torch.pi
    return {"theta": found["theta"] - centre["theta"], "phi": phi}


def test_theta_and_phi_are_those_of_the_mean_axis():
    posterior = sticks()
    centre = BallStick.derived({"n": posterior.direction})
    assert {"theta", "phi"} <= set(posterior.names)
    for name in ("theta", "phi"):
        torch.testing.assert_close(posterior.mean[name], centre[name])


@pytest.mark.parametrize("name", ["theta", "phi"])
def test_the_sd_of_an_angle_is_that_of_axes_on_one_side(name):
    posterior = sticks()
    away_from_pole = posterior.mean["theta"] > 0.3
    expected = aligned_angles(posterior)[name].square().mean(0).sqrt()
    torch.testing.assert_close(posterior.sd[name][away_from_pole], expected[away_from_pole], rtol=0.15, atol=2e-3)


@pytest.mark.parametrize("name", ["theta", "phi"])
def test_quantiles_of_an_angle_rise_around_that_of_the_mean_axis(name):
    posterior = sticks()
    levels = torch.stack([posterior.quantile(q)[name] for q in (0.05, 0.2, 0.8, 0.95)])
    assert (levels.diff(dim=0) >= 0).all()
    inside = (levels[0] <= posterior.mean[name]) & (posterior.mean[name] <= levels[3])
    assert inside.float().mean() > 0.9


def test_arviz_gets_the_same_draws(monkeypatch):
    pytest.importorskip("arviz")
    y, acq = msdki_data(12)
    keep = torch.nonzero(acq.bval > 0).squeeze(-1)
    model = VoxelModel(BoundSignal(MSDKI, acq[keep]), StandardNormal(2), IdentityDecoder(2), RicianLikelihood(), 0.05)
    posterior = Posterior(model, MapStarted(model, 12), as_batch(y[:, keep], 0.05), 64)
    data = posterior.to_arviz(voxels=slice(2, 7), n_draws=48)
    D = data.posterior["D"].to_numpy()
    assert D.shape == (4, 12, 5)
    assert D.mean() == pytest.approx(float(posterior.mean["D"][2:7].mean()), rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 7, 256])
def test_quantiles_are_those_of_torch(n):
    draws, levels = torch.randn(n, 40, generator=torch.Generator().manual_seed(0)), [0.0, 0.05, 0.3, 0.95, 1.0]
    draws[-1, 3] = torch.nan
    torch.testing.assert_close(
        quantiles(draws, levels), torch.quantile(draws, torch.tensor(levels), dim=0), equal_nan=True
    )
