"""Denoising autoencoders: what they optimise, their schedule, their latents."""

import math

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pyroqmri.denoising.dae import DAE
from pyroqmri.denoising.latents import describe_latents
from pyroqmri.denoising.pairs import NoiseRange, Pairs, ScanPairs, SimulatedPairs, Targets, physical_signals
from pyroqmri.denoising.reconstruction import Reconstruction
from pyroqmri.denoising.training import Schedule, train
from pyroqmri.denoising.vae import VAE
from pyroqmri.errors import InputError, TrainingError
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.signals import DTI
from tests.helpers import shells

LOSSES = {
    "mse": lambda e: e.square(),
    "l1": lambda e: e.abs(),
    "huber": lambda e: torch.where(e.abs() < 0.5, e.square() / 2, 0.5 * (e.abs() - 0.25)),
}


def some_pairs(n=40, m=12):
    clean = torch.rand(n, m)
    return Pairs((clean + 0.1 * torch.randn(n, m)).clamp_min(0), clean)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_reconstruction_is_the_stated_loss(kind):
    loc, x = torch.randn(5, 7), torch.randn(5, 7)
    found = Reconstruction(loc, kind, 0.5).log_prob(x)
    assert torch.allclose(found, -LOSSES[kind](x - loc).mean(-1), atol=1e-6)


def test_the_reconstruction_counts_the_weighted_entries_only():
    loc, x, weight = torch.randn(5, 7), torch.randn(5, 7), torch.zeros(5, 7)
    weight[:, 2:4] = 1
    found = Reconstruction(loc, "mse", weight=weight).log_prob(x)
    assert torch.allclose(found, -(x - loc)[:, 2:4].square().mean(-1))


def test_the_objective_of_the_vae_is_loss_plus_weighted_kl():
    network, pairs = VAE(12, latent=3, loss="mse"), some_pairs()
    torch.manual_seed(3)
    found = network.objective(pairs, 0.2)
    torch.manual_seed(3)
    q = Normal(network.z_loc(pairs.noisy), network.z_scale(pairs.noisy))
    loss = (network.decoder(q.rsample()) - pairs.target).square().mean()
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(-1).mean()
    assert torch.allclose(found, loss + 0.2 * kl, rtol=1e-5)


def test_the_vae_is_a_pyro_pair():
    network, pairs = VAE(12, latent=3), some_pairs()
    guide = poutine.trace(network.guide).get_trace(pairs)
    model = poutine.trace(poutine.replay(network.model, guide)).get_trace(pairs)
    assert model.nodes["z"]["value"] is guide.nodes["z"]["value"]
    assert model.nodes["x"]["is_observed"]
    assert model.nodes["x"]["fn"].log_prob(pairs.target).shape == (40,)
    assert not pyro.get_param_store().keys()


def test_layers_narrow_evenly():
    network = DAE(32, latent=7, depth=3)
    assert network.sizes == [32, 25, 19, 13, 7]
    linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(m.out_features for m in linear) == [7, 13, 13, 19, 19, 25, 25, 32]


def test_the_kl_weight_follows_table_1():
    schedule = Schedule()
    assert [schedule.kl_weight(e) for e in (1, 2, 3)] == pytest.approx([0, 1e-4, 2e-4])
    assert schedule.kl_weight(16) == schedule.kl_weight(40) == 1.5e-3
    assert Schedule(kl_max=0.0).kl_weight(40) == 0


def test_simulated_noise_has_its_level_and_its_kind():
    # 40,000 squares: their mean is off by 5 sd in one seed of 10^6
    acq, clean = shells(2, 18, 1.0), torch.full((2000, 20), 0.5)
    for kind, mean in (("gaussian", 0.25 + 0.01), ("rician", 0.25 + 0.02)):
        noise = NoiseRange(kind, "range", 0.1, 0.1)
        source = SimulatedPairs(clean, None, noise, Preparation(1.0, 1.0, False, kind == "rician"), acq)
        pairs = source.epoch(torch.Generator().manual_seed(0))
        assert float(pairs.noisy.square().mean()) == pytest.approx(mean, abs=5 * 0.11 / math.sqrt(40_000))
        assert torch.equal(pairs.target, clean)


def test_where_s0_is_measured_input_and_target_are_divided_alike():
    acq = shells(2, 18, 1.0)
    clean = torch.cat([torch.ones(500, 2), torch.full((500, 18), 0.5)], 1)
    source = SimulatedPairs(
        clean, torch.tensor([0.1]), NoiseRange("rician"), Preparation("measured", 1.0, False, True), acq
    )
    pairs = source.epoch(torch.Generator().manual_seed(0))
    reference = 1 / pairs.target[:, :1]
    assert torch.allclose(pairs.target * reference, clean[: len(pairs)], atol=1e-6)
    assert reference.std() > 0.03
    assert float(pairs.noisy[:, :2].square().mean()) == pytest.approx(1, abs=0.1)


def test_hidden_measurements_are_hidden_and_asked_for():
    y, centre = torch.rand(200, 10) + 1, torch.zeros(10)
    pairs = ScanPairs(y, centre, 0.3).epoch(torch.Generator().manual_seed(0))
    assert torch.equal(pairs.noisy == 0, pairs.weight == 1)
    assert float(pairs.weight.mean()) == pytest.approx(0.3, abs=0.05)
    assert torch.equal(pairs.target, y)


def test_unphysical_signals_are_discarded():
    theta = {e: torch.tensor([1.0, -1.0]) for e in ("Dxx", "Dyy", "Dzz")}
    theta |= {e: torch.zeros(2) for e in ("Dxy", "Dxz", "Dyz")}
    assert len(physical_signals(DTI, shells(1, 6, 1.0), theta)) == 1


def test_training_lowers_the_loss_and_the_same_seed_gives_the_same_weights():
    acq = shells(2, 14, 1.0)
    clean = torch.exp(-torch.rand(2000, 1) * 2).expand(-1, 16).contiguous()
    source = SimulatedPairs(
        clean, None, NoiseRange("gaussian", "range", 0.1, 0.1), Preparation(1.0, 1.0, False, False), acq
    )
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        network = VAE(16, latent=2)
        trace = train(network, source, Schedule(epochs=8, lr=5e-3), seed=4)
        states.append(network.state_dict())
    assert trace.held_out[-1] < 0.3 * trace.held_out[0]
    assert trace.epoch == list(range(1, 9))
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_training_that_diverges_says_where():
    source = ScanPairs(torch.full((50, 8), float("inf")), torch.zeros(8), 0.5)
    with pytest.raises(TrainingError, match="in epoch 1; lower"):
        train(DAE(8, latent=2), source, Schedule(epochs=2, held_out=0.0))


def test_a_latent_that_nothing_uses_is_dead():
    network = VAE(10, latent=3, depth=1)
    with torch.no_grad():
        network.loc_head.weight[1], network.loc_head.bias[1] = 0, 0
        network.log_scale_head.weight[1], network.log_scale_head.bias[1] = 0, 0
        network.loc_head.weight[[0, 2]] *= 10
    found = describe_latents(network, torch.randn(300, 10))
    assert found.record()["dead"] == [2]
    assert float(found.kl[1]) == pytest.approx(0, abs=1e-6)
    assert float(found.contribution[1]) == 0
    assert found.traversal.shape == (3, 5, 10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DAE(12, loss="l2"), "mse, l1, huber"),
        (lambda: VAE(5, latent=7), "7 for 5 measurements"),
        (lambda: VAE(12, latent=0), "above zero"),
        (lambda: Schedule(epochs=0), "schedule.epochs"),
        (lambda: Schedule(held_out=1.0), "schedule.held_out"),
        (lambda: Schedule(kl_step=0.0), "kl_step"),
        (lambda: Targets(source="noise"), "targets.source"),
        (lambda: Targets(hidden=1.0), "targets.hidden"),
        (lambda: NoiseRange(kind="poisson"), "added_noise.kind"),
        (lambda: NoiseRange(levels="all"), "added_noise.levels"),
        (lambda: NoiseRange(low=0.5, high=0.1), "low <= high"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
