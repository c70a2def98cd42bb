"""Whether a training had converged: of losses that are known, and of trainings."""

import pytest
import torch

import pyroqmri as pq
from pyroqmri.guides import MapStarted
from pyroqmri.priors import FullHierarchical
from pyroqmri.svi import SVILoop, Trace, Training, fit_svi
from pyroqmri.svi.trace import FALLING
from tests.helpers import msdki_data, quadratic_data, quadratic_model
from tests.svi.test_loop import a_pair


def looked_at(*losses: float, spread: float = 0.0) -> Trace:
    """Looks every 50 steps, the second half of them at 8 voxels; ``spread`` is the sd of what each voxel gains."""
    own = torch.linspace(-1, 1, 8) / torch.linspace(-1, 1, 8).std()
    watched = [(loss - spread * own * i).tolist() for i, loss in enumerate(losses)]
    steps = [50 * (i + 1) for i in range(len(losses))]
    late = [w if 2 * s >= steps[-1] else [] for w, s in zip(watched, steps, strict=True)]
    return Trace(steps, list(losses), list(losses), watched=late)


def judged(trace: Trace) -> str:
    trace.judge()
    return trace.not_converged


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_few_looks_cannot_tell(looks):
    sentence = judged(looked_at(*[1.0] * looks))
    assert f"{50 * looks} steps" in sentence
    assert "too few" in sentence
    assert "training.steps" in sentence


def test_a_loss_that_still_falls_is_not_converged():
    sentence = judged(looked_at(9, 5, 3, 2, 1.5, 1.2))
    # from the third look of six, at half of the steps, to the last
    assert "fell by 1.8 nats per voxel" in sentence
    assert "training.steps" in sentence


@pytest.mark.parametrize(("fall", "warns"), [(0.8 * FALLING, False), (1.2 * FALLING, True), (-1.0, False)])
def test_the_threshold_is_what_it_says(fall, warns):
    assert bool(judged(looked_at(5, 3, fall, fall, 0, 0))) == warns


def test_a_fall_within_its_standard_error_is_chance():
    assert judged(looked_at(5, 3, 0.1, 0.1, 0, 0))
    # voxels gain 0.1 with an sd of 3 x 0.1 between these looks: a standard error of 0.106
    trace = looked_at(5, 3, 0.1, 0.1, 0, 0, spread=0.1)
    assert trace.late_fall() == pytest.approx((0.1, 0.3 / 8**0.5), rel=1e-4)
    assert not judged(trace)


def test_what_stopped_early_has_converged():
    trace = looked_at(9, 5)
    trace.stopped_early = True
    assert not judged(trace)


def test_a_trace_without_looks_has_nothing_to_say():
    assert not judged(Trace())


def test_training_is_judged():
    short = fit_svi(*a_pair(), Training(steps=60, batch_size=128, check_every=10))
    assert "had not converged" in short.not_converged
    # a guide that starts at the exact posterior
    model = quadratic_model()
    guide = MapStarted(model, 8)
    voxels = guide.prepare(quadratic_data(400))
    guide.start(voxels)
    near = fit_svi(model, guide, voxels, Training(steps=60, batch_size=128, check_every=10))
    assert near.not_converged == ""
    assert [bool(w) for w in near.watched] == [s >= 30 for s in near.step]


def test_few_voxels_are_watched_with_several_draws_each():
    loop = SVILoop(*a_pair(60), Training(), seed=0)
    assert (len(loop.held), len(loop.voxels), len(loop.watched)) == (6, 54, 512)
    groups = loop.losses(loop.watched, 8)
    assert len(groups) == 8
    assert groups == loop.losses(loop.watched, 8)


def test_many_voxels_are_watched_where_they_were_kept_aside():
    loop = SVILoop(*a_pair(6000), Training(), seed=0)
    assert loop.watched is loop.held


def test_a_population_with_a_posterior_is_trained_on_every_voxel():
    model = quadratic_model(FullHierarchical(3))
    assert len(SVILoop(model, a_pair()[1], model.prepare(quadratic_data(200)), Training(), seed=0).held) == 0


def test_a_batch_with_room_for_all_voxels_is_all_of_them():
    loop = SVILoop(*a_pair(60), Training(batch_size=64), seed=0)
    assert loop.batch() is loop.voxels
    loop = SVILoop(*a_pair(600), Training(batch_size=64), seed=0)
    assert len(loop.batch()) == 64


@pytest.mark.parametrize("steps", [3, 20, 60])
def test_a_fit_of_few_steps_warns(steps):
    y, acq = msdki_data(300)
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=0.05, settings={"training.steps": steps})
    assert any("training.steps" in warning for warning in fit.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["hierarchical", "vae_unig"])
def test_a_recipe_as_it_is_shipped_does_not_warn(recipe):
    y, acq = msdki_data(1000)
    fit = pq.fit(y, acq, signal="msdki", recipe=recipe, sigma=0.05)
    assert fit.warnings == []
