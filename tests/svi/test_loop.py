"""How the training loop behaves: seeds, warm-up, plateaus, checkpoints, what it leaves alone."""

from dataclasses import asdict

import pyro
import pytest
import torch

from pyroqmri.errors import InputError, TrainingError
from pyroqmri.guides import Encoder
from pyroqmri.priors import Hierarchical
from pyroqmri.svi import SVILoop, Training, fit_svi
from tests.helpers import quadratic_data, quadratic_model

SHORT = Training(steps=30, batch_size=64, check_every=5, checkpoint_every=10, held_out=40)


def a_pair(n: int = 400):
    torch.manual_seed(0)
    model = quadratic_model(Hierarchical(3))
    guide = Encoder(model, 8, width=8, depth=1)
    voxels = guide.prepare(quadratic_data(n))
    guide.start(voxels)
    return model, guide, voxels


def weights(pair) -> dict[str, torch.Tensor]:
    return {**pair[0].state_dict(), **pair[1].state_dict()}


def equal(one, other) -> bool:
    return all(torch.equal(v, other[k]) for k, v in one.items())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    pairs = [a_pair() for _ in range(3)]
    traces = [fit_svi(*pair, SHORT, seed=seed) for pair, seed in zip(pairs, (4, 4, 5), strict=True)]
    assert equal(weights(pairs[0]), weights(pairs[1]))
    assert traces[0].held_out == traces[1].held_out
    assert not equal(weights(pairs[0]), weights(pairs[2]))


def first_steps(monkeypatch, seed: int) -> dict[str, torch.Tensor]:
    """What a training that starts from one pair draws from its seed."""
    seen = {}
    honest = SVILoop.loss

    def loss(loop, voxels, weight=1.0):
        if not seen:
            seen.update(held=loop.held.y, batch=voxels.y, state=torch.get_rng_state())
        return honest(loop, voxels, weight)

    with monkeypatch.context() as patch:
        patch.setattr(SVILoop, "loss", loss)
        fit_svi(*a_pair(), SHORT, seed=seed)
    return seen


def test_a_seed_is_that_of_the_held_out_voxels_the_batches_and_the_draws_of_the_guide(monkeypatch):
    one, same, other = (first_steps(monkeypatch, seed) for seed in (4, 4, 5))
    for what in ("held", "batch", "state"):
        assert torch.equal(one[what], same[what])
        assert not torch.equal(one[what], other[what]), what


def test_training_gains_and_is_written_down():
    trace = fit_svi(*a_pair(), Training(steps=60, batch_size=128, check_every=20, held_out=40), seed=0)
    assert trace.step == [20, 40, 60]
    assert trace.held_out[-1] < trace.held_out[0]
    assert trace.train[-1] < trace.train[0]
    assert trace.seconds > 0
    assert not trace.stopped_early


def test_the_callers_random_state_and_pyros_validation_stay():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    pair = a_pair()
    torch.manual_seed(11)
    seen = []
    pair[1].register_forward_pre_hook(lambda *_: seen.append(torch.distributions.Distribution._validate_args))
    with pyro.validation_enabled(True):
        fit_svi(*pair, SHORT)
        assert torch.distributions.Distribution._validate_args
    assert set(seen) == {False}
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_validation_comes_back_after_an_error_too(monkeypatch):
    monkeypatch.setattr(SVILoop, "one_step", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pyro.validation_enabled(True):
        with pytest.raises(KeyboardInterrupt):
            fit_svi(*a_pair(), SHORT)
        assert torch.distributions.Distribution._validate_args


def poison(monkeypatch, step: int, change) -> None:
    """Change the pair before one step."""
    honest = SVILoop.one_step

    def one_step(loop):
        if loop.step == step:
            with torch.no_grad():
                change(loop)
        honest(loop)

    monkeypatch.setattr(SVILoop, "one_step", one_step)


def test_a_value_that_is_not_finite_is_caught_with_site_and_step(monkeypatch):
    poison(monkeypatch, 7, lambda loop: loop.guide.network[-1].weight.fill_(torch.nan))
    with pytest.raises(TrainingError, match=r"value of site 'z' is not finite at step 7"):
        fit_svi(*a_pair(), SHORT)


def test_a_log_probability_that_is_not_finite_is_caught(monkeypatch):
    poison(monkeypatch, 3, lambda loop: loop.voxels.sigma.fill_(0))
    with pytest.raises(TrainingError, match=r"log-probability of site 'y' is not finite at step 3"):
        fit_svi(*a_pair(), SHORT)


def test_a_gradient_that_is_not_finite_is_caught(monkeypatch):
    def change(loop):
        parameter = loop.guide.network[-1].bias
        parameter.register_hook(lambda g: g * torch.nan)

    poison(monkeypatch, 5, change)
    with pytest.raises(TrainingError, match=r"gradient is not finite at step 5"):
        fit_svi(*a_pair(), SHORT)


def test_no_weight_has_moved_when_a_step_fails(monkeypatch):
    pair = a_pair()
    poison(monkeypatch, 0, lambda loop: loop.voxels.y.fill_(torch.inf))
    before = {k: v.clone() for k, v in weights(pair).items()}
    with pytest.raises(TrainingError):
        fit_svi(*pair, SHORT)
    assert equal(before, weights(pair))


def a_loop(**settings) -> SVILoop:
    return SVILoop(*a_pair(), Training(batch_size=64, held_out=40, **settings), seed=0)


def test_the_prior_is_annealed_by_the_share_of_the_steps_that_are_done(monkeypatch):
    pair, shares = a_pair(), []
    monkeypatch.setattr(pair[0].prior, "anneal", shares.append)
    fit_svi(*pair, SHORT)
    assert shares == pytest.approx([step / 30 for step in range(30)])


def test_voxels_kept_aside_are_not_trained_on():
    loop = a_loop()
    assert (len(loop.held), len(loop.voxels)) == (40, 360)
    assert not (loop.held.y[:, None] == loop.voxels.y).all(-1).any()


def test_the_kl_weight_rises_and_stays():
    loop = a_loop(kl_warmup=4, kl_weight=0.5)
    rise = []
    for loop.step in range(6):
        rise.append(loop.kl_weight())
    assert rise == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert a_loop().kl_weight() == 1.0


def test_the_kl_weight_scales_the_kl_alone():
    loop = a_loop()
    losses = []
    for weight in (1e-9, 0.5, 1.0):
        torch.manual_seed(0)
        losses.append(float(loop.loss(loop.voxels, weight).detach()))
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)
    # without the KL the loss is the likelihood's (and the hyperprior's) alone
    torch.manual_seed(0)
    trace = pyro.poutine.trace(loop.guide).get_trace(loop.voxels)
    replayed = pyro.poutine.trace(pyro.poutine.replay(loop.model, trace)).get_trace(loop.voxels)
    replayed.compute_log_prob()
    likelihood = sum(replayed.nodes[k]["log_prob_sum"] for k in ("y", "hyperprior")) / len(loop.voxels)
    assert losses[0] == pytest.approx(-float(likelihood.detach()), rel=1e-5)
    assert losses[2] > losses[0]


def test_no_kl_makes_the_posterior_collapse():
    pairs = [a_pair(), a_pair()]
    for pair, weight in zip(pairs, (1.0, 0.01), strict=True):
        fit_svi(*pair, Training(steps=150, batch_size=256, lr=2e-2, kl_weight=weight))
    sd = [pair[1].z_dist(pair[2]).variance.mean().sqrt() for pair in pairs]
    assert sd[1] < 0.7 * sd[0]


def test_the_learning_rates_fall_geometrically_and_each_part_has_its_own():
    loop = a_loop(steps=10, lr=1e-3, lr_population=1e-2, lr_decay=0.01)
    assert [g["first_lr"] for g in loop.optimizer.param_groups] == [1e-2, 1e-3]
    loop.step = 5
    loop.one_step()
    assert [g["lr"] for g in loop.optimizer.param_groups] == pytest.approx([1e-3, 1e-4])


def test_gradients_are_clipped():
    loop = a_loop(clip=1e-3)
    loop.one_step()
    assert float(torch.cat([p.grad.flatten() for p in loop.parameters]).norm()) <= 1.01e-3


def test_a_plateau_stops_the_training():
    settings = {"batch_size": 64, "check_every": 5, "held_out": 40, "lr": 1e-9, "lr_population": 1e-9}
    trace = fit_svi(*a_pair(), Training(steps=200, patience=3, **settings))
    assert trace.stopped_early
    assert trace.step[-1] == 20
    trace = fit_svi(*a_pair(), Training(steps=60, patience=0, **settings))
    assert not trace.stopped_early
    assert trace.step[-1] == 60


def test_a_plateau_does_not_count_while_the_kl_warms_up():
    settings = {"batch_size": 64, "check_every": 5, "held_out": 40, "lr": 1e-9, "lr_population": 1e-9}
    trace = fit_svi(*a_pair(), Training(steps=200, patience=2, kl_warmup=50, **settings))
    assert trace.step[-1] == 50


def test_training_goes_on_while_it_gains():
    trace = fit_svi(
        *a_pair(), Training(steps=60, batch_size=128, check_every=10, held_out=40, patience=1, min_gain=0.0)
    )
    assert trace.step[-1] > 20


@pytest.mark.parametrize("n", [5, 11])
def test_a_handful_of_voxels_leaves_few_or_none_aside(n):
    trace = fit_svi(*a_pair(n), Training(steps=10, check_every=10))
    assert (trace.held_out[0] != trace.held_out[0]) == (n < 10)
    assert trace.train[0] == trace.train[0]


@pytest.mark.parametrize("name", ["steps", "batch_size", "lr", "clip", "check_every", "n_particles", "lr_decay"])
def test_settings_that_cannot_be_are_said(name):
    with pytest.raises(InputError, match=rf"training\.{name} must be above zero, got 0"):
        Training(**{name: 0})


class Killed(BaseException):
    """The process ends here."""


def killed_at(monkeypatch, step: int):
    honest = SVILoop.one_step

    def one_step(loop):
        if loop.step == step:
            raise Killed
        honest(loop)

    monkeypatch.setattr(SVILoop, "one_step", one_step)


@pytest.mark.parametrize("step", [10, 17, 29])
def test_a_killed_training_resumes_to_the_same_weights(step, monkeypatch, tmp_path):
    whole = a_pair()
    expected = fit_svi(*whole, SHORT, seed=3)
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        killed_at(patch, step)
        with pytest.raises(Killed):
            fit_svi(*a_pair(), SHORT, seed=3, checkpoint=path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    torch.manual_seed(99)
    resumed = a_pair()
    trace = fit_svi(*resumed, SHORT, seed=3, checkpoint=path, resume=True)
    assert equal(weights(whole), weights(resumed))
    assert {**asdict(trace), "seconds": 0} == {**asdict(expected), "seconds": 0}


def test_a_resumed_training_goes_on_from_its_last_checkpoint(monkeypatch, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        killed_at(patch, 17)
        with pytest.raises(Killed):
            fit_svi(*a_pair(), SHORT, seed=3, checkpoint=path)
    # the end is the same where it begins anew, so the steps themselves are looked at
    steps, honest = [], SVILoop.one_step
    monkeypatch.setattr(SVILoop, "one_step", lambda loop: (steps.append(loop.step), honest(loop)))
    fit_svi(*a_pair(), SHORT, seed=3, checkpoint=path, resume=True)
    assert steps == list(range(10, 30))


def test_a_finished_training_resumes_to_itself(tmp_path):
    path = tmp_path / "checkpoint"
    pair = a_pair()
    fit_svi(*pair, SHORT, checkpoint=path)
    resumed = a_pair()
    assert fit_svi(*resumed, SHORT, checkpoint=path, resume=True).step[-1] == 30
    assert equal(weights(pair), weights(resumed))


def test_without_a_checkpoint_resume_starts_afresh(tmp_path):
    pairs = [a_pair(), a_pair()]
    fit_svi(*pairs[0], SHORT)
    fit_svi(*pairs[1], SHORT, checkpoint=tmp_path / "none", resume=True)
    assert equal(weights(pairs[0]), weights(pairs[1]))


@pytest.mark.parametrize("what", ["seed", "settings", "voxels"])
def test_the_checkpoint_of_another_training_is_refused(what, tmp_path):
    path = tmp_path / "checkpoint"
    fit_svi(*a_pair(), SHORT, checkpoint=path)
    pair = a_pair(300 if what == "voxels" else 400)
    training = Training(**asdict(SHORT) | {"lr": 0.1}) if what == "settings" else SHORT
    with pytest.raises(InputError, match="other settings or other data"):
        fit_svi(*pair, training, seed=1 if what == "seed" else 0, checkpoint=path, resume=True)


def test_the_checkpoint_of_as_many_other_voxels_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fit_svi(*a_pair(), SHORT, checkpoint=path)
    model, guide, _ = a_pair()
    with pytest.raises(InputError, match="other settings or other data"):
        fit_svi(model, guide, guide.prepare(quadratic_data(400, seed=8)), SHORT, checkpoint=path, resume=True)


def test_the_checkpoint_of_another_pair_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fit_svi(*a_pair(), SHORT, checkpoint=path)
    model, _, voxels = a_pair()
    with pytest.raises(InputError):
        fit_svi(model, Encoder(model, 8, width=9, depth=1), voxels, SHORT, checkpoint=path, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fit_svi(*a_pair(), SHORT, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError):
        fit_svi(*a_pair(), SHORT, checkpoint=path, resume=True)
