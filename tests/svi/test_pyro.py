"""The same pair under our loop and under Pyro's own."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.nn.module import PyroModule, to_pyro_module_

from pyroqmri.decoders import DECODERS, NetworkDecoder
from pyroqmri.guides import GUIDES, Encoder, MapStarted
from pyroqmri.likelihoods import LIKELIHOODS, GaussianLikelihood
from pyroqmri.priors import PRIORS, Hierarchical, StandardNormal
from pyroqmri.svi import Training, fit_svi
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import quadratic_data, quadratic_model, quadratic_signal


def hierarchical():
    model = quadratic_model(Hierarchical(3))
    return model, MapStarted(model, 8)


def vae():
    likelihood = GaussianLikelihood(learn=True)
    model = VoxelModel(quadratic_signal(), StandardNormal(3), NetworkDecoder(3, width=16), likelihood, sigma=0.25)
    return model, Encoder(model, 8, width=16)


PAIRS = pytest.mark.parametrize("pair", [hierarchical, vae])
Y = quadratic_data(300)


def started(pair):
    torch.manual_seed(0)
    model, guide = pair()
    voxels = guide.prepare(Y)
    model.start(voxels)
    guide.start(voxels)
    return model, guide, voxels


def elbo(model, guide, voxels) -> float:
    """ELBO a voxel in nats, from 50 draws a voxel."""
    torch.manual_seed(1)
    with torch.no_grad():
        return -Trace_ELBO(num_particles=50).loss(model, guide, voxels) / len(voxels)


@PAIRS
def test_vanilla_svi_reaches_what_our_loop_reaches(pair):
    ours, rates = started(pair), {"lr": 5e-3, "lr_population": 5e-3, "lr_decoder": 5e-3}
    before = elbo(*ours)
    fit_svi(*ours, Training(steps=200, batch_size=300, lr_decay=0.1, held_out=0, **rates))
    model, guide, voxels = started(pair)
    to_pyro_module_(model)
    to_pyro_module_(guide)
    optimizer = pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.1 ** (1 / 200), "clip_norm": 1e6})
    svi = SVI(model, guide, optimizer, Trace_ELBO())
    for _ in range(200):
        svi.step(voxels)
    after, theirs = elbo(*ours), elbo(model, guide, voxels)
    # both are noisy optimisers of one objective: at the same place to a tenth of what they gained, or .02 nats
    assert after > before
    assert theirs == pytest.approx(after, abs=max(0.02, 0.1 * (after - before)))


@pytest.mark.parametrize(
    "kind", [*PRIORS.values(), *DECODERS.values(), *LIKELIHOODS.values(), *GUIDES.values(), VoxelModel]
)
def test_every_part_can_become_a_pyro_module(kind):
    assert issubclass(PyroModule[kind], kind)


@PAIRS
def test_the_loss_is_pyros(pair):
    model, guide, voxels = started(pair)
    losses = []
    for size in (None, 300, 3000):
        torch.manual_seed(2)
        total = Trace_ELBO().loss(model, guide, voxels, size)
        losses.append(total / (300 if size is None else size))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    # a hyperprior counts once, however many voxels the batch stands for
    assert losses[0] == pytest.approx(losses[2], abs=0.1 if pair is hierarchical else 1e-4)


@PAIRS
def test_predictive_answers(pair):
    model, guide, voxels = started(pair)
    draws = Predictive(model, guide=guide, num_samples=7)(voxels)
    assert draws["z"].shape == (7, 300, 3)
    fresh = Predictive(model, num_samples=5, return_sites=("z",))(voxels)
    assert fresh["z"].shape == (5, 300, 3)
    replicated = Predictive(pyro.poutine.uncondition(model), guide=guide, num_samples=4)(voxels)
    assert replicated["y"].shape == (4, 300, 8)
    # a replicate is as far from the data as twice the noise, and a posterior's width more
    assert float((replicated["y"] - Y).std()) < 3


@PAIRS
def test_poutine_sees_the_sites(pair):
    model, guide, voxels = started(pair)
    guide_trace = pyro.poutine.trace(guide).get_trace(voxels)
    model_trace = pyro.poutine.trace(pyro.poutine.replay(model, guide_trace)).get_trace(voxels)
    assert {"voxels", "z"} <= set(guide_trace.nodes)
    assert model_trace.nodes["z"]["value"] is guide_trace.nodes["z"]["value"]
    model_trace.compute_log_prob()
    assert model_trace.nodes["z"]["log_prob"].shape == (300,)
    assert model_trace.nodes["y"]["log_prob"].shape == (300,)
    assert model_trace.nodes["y"]["is_observed"]
    assert torch.isfinite(model_trace.log_prob_sum())


@PAIRS
def test_measurements_alone_are_enough(pair):
    model, guide, voxels = started(pair)
    torch.manual_seed(3)
    whole = Trace_ELBO().loss(model, guide, voxels)
    torch.manual_seed(3)
    assert Trace_ELBO().loss(model, guide, Y) == pytest.approx(whole, rel=1e-5)


def test_the_parameter_store_stays_empty_and_two_pairs_share_nothing():
    first, second = started(vae), started(vae)
    untouched = {k: v.clone() for k, v in second[0].state_dict().items()}
    fit_svi(*first, Training(steps=20, batch_size=100))
    assert len(pyro.get_param_store()) == 0
    assert all(torch.equal(v, untouched[k]) for k, v in second[0].state_dict().items())
    assert not torch.equal(first[0].likelihood.factor, second[0].likelihood.factor)


@PAIRS
def test_model_and_guide_own_their_parameters_apart(pair):
    model, guide, _ = started(pair)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in guide.parameters()}
    assert not set(model.state_dict()) & set(guide.state_dict())
