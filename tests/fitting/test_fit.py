"""From measurements to a fit and to posteriors, through the public calls."""

import pytest
import torch

import pyroqmri as pq
from pyroqmri.errors import InputError
from pyroqmri.fitting import train
from pyroqmri.signals import MSDKI, BallStick, BoundSignal
from pyroqmri.svi import SVILoop, Trace
from tests.helpers import msdki_data, rician, shells, tissue

QUICK = {"training.steps": 20, "training.batch_size": 128, "training.check_every": 10}
SIGMA, S0 = 0.04, 250.0
Y, ACQ = msdki_data(150, SIGMA, s0=S0)


def quick(y=Y, acq=ACQ, signal="msdki", recipe="hierarchical", **changes):
    settings = {} if recipe in ("least_squares", "maximum_likelihood") else QUICK
    call = {"sigma": S0 * SIGMA, "device": "cpu", "settings": settings | changes.pop("settings", {})}
    return pq.fit(y, acq, signal=signal, recipe=recipe, **(call | changes))


def sticks(n: int = 80) -> tuple[torch.Tensor, pq.Acquisition, dict[str, torch.Tensor]]:
    acq = shells(4, 20, 1.0, 2.0)
    generator = torch.Generator().manual_seed(0)
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    f = 0.4 + 0.3 * torch.rand(n, generator=generator)
    theta = {"f": f, "D_par": torch.full((n,), 1.7), "D_iso": torch.full((n,), 0.9), "n": axes}
    return S0 * rician(BoundSignal(BallStick, acq)(theta), SIGMA), acq, theta


@pytest.mark.parametrize("recipe", ["hierarchical", "vae_unig", "hierarchical_mixture"])
def test_a_fit_says_what_it_did(recipe):
    fit = quick(recipe=recipe)
    assert (fit.signal_name, fit.recipe.name, fit.seed, fit.n_voxels) == ("msdki", recipe, 0, 150)
    assert len(fit.elbo) == 2
    assert all(x == x for x in fit.elbo)
    assert fit.sigma == pytest.approx(S0 * SIGMA)
    assert fit.sigma_record == {"value": S0 * SIGMA, "method": "given", "note": fit.noise.note, "learned_factor": None}
    assert set(fit.seconds) >= {"prepare", "start", "train"}
    posterior = fit.posterior(Y)
    assert posterior.names == ("D", "K")
    assert posterior.mean["D"].shape == posterior.sd["K"].shape == posterior.status.shape == (150,)
    assert (posterior.sd["D"] > 0).all()
    assert posterior.draws(7, seed=0)["D"].shape == (7, 150)
    assert posterior.log_likelihood(3).shape == (3, 150, 12)
    assert fit.model is not None
    assert fit.guide.model is fit.model


@pytest.mark.slow
def test_estimates_are_near_the_truth():
    truth = tissue(150)
    posterior = quick(settings={"training.steps": 150}).posterior(Y)
    error = (posterior.mean["D"] - truth["D"]).square().mean().sqrt()
    assert error < 0.09
    inside = (posterior.interval(0.9)["D"] - truth["D"][:, None]).sign().sum(-1) == 0
    # binomial of 150 at .9: fewer than 115 has a chance below 1e-5
    assert int(inside.sum()) > 115


def test_numpy_arrays_and_any_scale_do():
    fit, again = quick(Y.double().numpy()), quick(1000 * Y, sigma=1000 * S0 * SIGMA)
    one, other = fit.posterior(Y.numpy()).mean["D"], again.posterior(1000 * Y).mean["D"]
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_seed_decides():
    few = {"training.steps": 4, "training.check_every": 2}
    mean = [quick(seed=seed, settings=few).posterior(Y).mean["D"] for seed in (1, 1, 2)]
    assert torch.equal(mean[0], mean[1])
    assert not torch.equal(mean[0], mean[2])


def test_the_seed_is_that_of_the_first_weights_and_of_the_training(monkeypatch):
    seen = []

    def fit_svi(model, guide, voxels, training, *, seed, **rest):
        seen.append(({k: v.clone() for k, v in guide.state_dict().items()}, seed))
        return Trace()

    monkeypatch.setattr(train, "fit_svi", fit_svi)
    for seed in (1, 1, 2):
        quick(recipe="vae_unig", seed=seed)
    weights = [first for first, _ in seen]
    assert [seed for _, seed in seen] == [1, 1, 2]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
    assert not all(torch.equal(v, weights[2][k]) for k, v in weights[0].items())


def test_the_callers_random_state_stays():
    torch.manual_seed(4)
    state = torch.get_rng_state()
    quick().posterior(Y).draws(3)
    assert torch.equal(state, torch.get_rng_state())


def test_one_posterior_of_the_same_voxels_is_another():
    fit = quick()
    assert torch.equal(fit.posterior(Y).mean["K"], fit.posterior(Y).mean["K"])
    some = fit.posterior(Y[20:40]).mean["K"]
    torch.testing.assert_close(some, fit.posterior(Y).mean["K"][20:40], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("recipe", ["hierarchical", "least_squares"])
def test_bad_voxels_are_coded_and_the_others_unchanged(recipe):
    spoilt = torch.cat([Y, Y[:3]])
    spoilt[150, 3], spoilt[151], spoilt[152, 5] = torch.nan, 0, -10
    fit, clean = quick(spoilt, recipe=recipe), quick(recipe=recipe)
    posterior = fit.posterior(spoilt)
    expected = [2, 3, 4] if recipe == "hierarchical" else [2, 3, posterior.status[152].item()]
    assert posterior.status[150:].tolist() == expected
    assert torch.isnan(posterior.mean["D"][150:152]).all()
    assert torch.isfinite(posterior.mean["D"][:150]).all()
    assert torch.isfinite(posterior.sd["D"][152])
    assert fit.n_voxels == 151
    if recipe == "least_squares":
        torch.testing.assert_close(posterior.mean["D"][:150], clean.posterior(Y).mean["D"])


def test_noise_a_voxel_is_used():
    level = torch.full((150,), S0 * SIGMA)
    level[:10] *= 10
    fit = quick(sigma=level)
    assert fit.sigma == pytest.approx(S0 * SIGMA)
    sd = fit.posterior(Y).sd["D"]
    assert sd[:10].median() > 1.5 * sd[10:].median()
    # other voxels bring their own
    assert fit.posterior(Y[:4], sigma=S0 * SIGMA).sd["D"].shape == (4,)
    with pytest.raises(InputError, match="sigma has 150 entries for 4 voxels"):
        fit.posterior(Y[:4])
    with pytest.raises(InputError, match="sigma has 3 entries for 4 voxels"):
        fit.posterior(Y[:4], sigma=torch.ones(3))


def test_learned_noise_is_said():
    fit = quick(sigma="learn", settings={"training.steps": 60})
    record = fit.sigma_record
    assert record["method"] in ("shells", "b0")
    assert record["learned_factor"] != 1
    assert record["value"] == pytest.approx(fit.noise.sigma * record["learned_factor"])
    assert fit.sigma == pytest.approx(S0 * SIGMA, rel=0.3)


def test_a_fixed_parameter():
    fit = quick(fixed={"K": 0.9})
    posterior = fit.posterior(Y)
    assert posterior.names == ("D",)
    assert (posterior.draws(3)["K"] == 0.9).all()
    assert fit.fixed == {"K": 0.9}


def test_tied_and_fixed_parameters_of_a_stick():
    y, acq, theta = sticks()
    fixed = quick(y, acq, "ball_stick", fixed={"D_par": 1.7}).posterior(y)
    assert fixed.names == ("f", "D_iso", "theta", "phi")
    assert (fixed.mean["f"] - theta["f"]).abs().median() < 0.05
    tied = quick(y, acq, "ball_stick", tied={"D_iso": "D_par"}).posterior(y)
    draws = tied.draws(3)
    assert tied.names == ("f", "D_par", "theta", "phi")
    assert torch.equal(draws["D_iso"][~torch.isnan(draws["D_iso"])], draws["D_par"][~torch.isnan(draws["D_par"])])
    angle = torch.rad2deg(torch.acos((fixed.direction * theta["n"]).sum(-1).abs().clamp(max=1)))
    assert angle.median() < 6


@pytest.mark.parametrize("recipe", ["hierarchical", "maximum_likelihood"])
def test_an_inferred_s0_is_in_the_scans_units(recipe):
    posterior = quick(recipe=recipe, s0="inferred", settings={}).posterior(Y)
    assert posterior.names == ("D", "K", "S0")
    assert float(posterior.mean["S0"].median()) == pytest.approx(S0, rel=0.05)
    assert 0 < float(posterior.sd["S0"].median()) < 0.1 * S0
    assert (posterior.status == 1).float().mean() > 0.8


def test_a_known_s0():
    fit = quick(s0=S0)
    assert fit.preparation.s0 == S0
    assert fit.posterior(Y).log_likelihood(1).shape == (1, 150, 16)


@pytest.mark.parametrize("changes", [{}, {"likelihood": "gaussian"}])
def test_shell_means_and_their_likelihood(changes):
    acq = shells(4, 12, 1.0, 2.0)
    y = S0 * rician(BoundSignal(MSDKI, acq)(tissue(60)), SIGMA)
    fit = quick(y, acq, **changes)
    assert fit.model.likelihood.n_average.tolist() == [12.0, 12.0]
    posterior = fit.posterior(y)
    assert posterior.log_likelihood(2).shape == (2, 60, 2)
    assert (posterior.mean["D"] - tissue(60)["D"]).abs().median() < 0.1


def test_given_settings_reach_the_training():
    assert quick(settings={"training.steps": 5, "training.check_every": 5}).trace.step == [5]
    assert quick(likelihood="gaussian").recipe.kind("likelihood") == "gaussian"


class Killed(BaseException):
    """The process ends here."""


def test_a_killed_fit_resumes_to_the_same_weights(tmp_path, monkeypatch):
    path, honest = tmp_path / "checkpoint", SVILoop.one_step

    def one_step(loop):
        if loop.step == 17:
            raise Killed
        honest(loop)

    often = {"training.checkpoint_every": 5}
    with monkeypatch.context() as patch:
        patch.setattr(SVILoop, "one_step", one_step)
        with pytest.raises(Killed):
            quick(checkpoint=path, settings=often)
    resumed, whole = quick(checkpoint=path, resume=True, settings=often), quick(settings=often)
    for one, other in ((resumed.model, whole.model), (resumed.guide, whole.guide)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    with pytest.raises(InputError, match="other settings or other data"):
        quick(checkpoint=path, resume=True, seed=9, settings=often)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"signal": "msdk"}, "there is no signal 'msdk'; there are msdki"),
        ({"recipe": "hierarchial"}, "there is no recipe 'hierarchial'"),
        ({"likelihood": "poisson"}, "unknown kind of likelihood 'poisson'; there are gaussian, rician"),
        ({"device": "tpu"}, "device must be auto, cpu or cuda, got 'tpu'"),
        ({"s0": "guess"}, "s0 must be"),
        ({"sigma": -1.0}, "sigma must be"),
        ({"sigma": "loud"}, "sigma must be"),
        ({"fixed": {"D_par": 1.0}}, "fixed or tied names 'D_par'"),
        ({"signal": "ball_stick"}, "needs bvec"),
        ({"y": Y[:, :5]}, r"y must be \(voxels, measurements\) = \(N, 16\), got \(150, 5\)"),
        ({"y": Y[0]}, r"y must be \(voxels, measurements\)"),
        ({"y": Y[:5]}, "only 5 voxels can be fitted, and a population needs at least 10"),
        ({"y": torch.full_like(Y, torch.nan)}, "only 0 voxels can be fitted"),
        ({"settings": {"training.steps": 0}}, "training.steps must be above zero, got 0"),
        ({"settings": {"training.stepz": 1}}, "did you mean 'steps'"),
    ],
)
def test_what_cannot_be_is_said(changes, said):
    with pytest.raises(InputError, match=said):
        quick(**changes)


def test_other_measurements_than_in_training_are_refused():
    with pytest.raises(InputError, match=r"\(N, 16\), got \(150, 15\)"):
        quick().posterior(Y[:, 1:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_where_there_is_none_is_said():
    with pytest.raises(InputError, match="torch finds none here"):
        quick(device="cuda")
