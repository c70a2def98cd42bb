"""Flip angles where no map of B1 was measured: what is known of B1 beforehand, and what stays open."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.fitting.build import build_pair
from pyroqmri.fitting.expected import expected_latents
from pyroqmri.fitting.population import finish_population
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.guides.population_refinement import DRIFT, left_out
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.signals import MP2RAGE, SIGNALS, T1VFA, BoundSignal, MP2RAGEFreeB1, T1VFAFreeB1

FLIP, TR, SIGMA = np.radians([2.0, 4, 8, 12, 16, 20]), 15.0, 3.0


def spoiled(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """T1 ``(N,)`` of tissue, and magnitudes of spoiled gradient echoes whose B1 is off by a tenth (sd)."""
    rng = np.random.default_rng(seed)
    t1 = 1100 + 330 * rng.standard_normal(n).clip(-2.4, 2.4)
    a = FLIP * (1 + 0.1 * rng.standard_normal((n, 1)).clip(-2.5, 2.5))
    e = np.exp(-TR / t1[:, None])
    clean = 1000 * (1 + 0.1 * rng.standard_normal((n, 1))) * np.sin(a) * (1 - e) / (1 - e * np.cos(a))
    noise = SIGMA * rng.standard_normal((2, *clean.shape))
    return t1, np.hypot(clean + noise[0], noise[1])


def acquisition() -> pq.Acquisition:
    return pq.Acquisition(flip=torch.tensor(FLIP), tr=torch.full((6,), TR))


@pytest.mark.parametrize(("free", "given"), [(T1VFAFreeB1, T1VFA), (MP2RAGEFreeB1, MP2RAGE)])
def test_it_is_the_signal_with_a_map(free, given):
    t1, b1 = torch.tensor([600.0, 1200, 2500]), torch.tensor([0.8, 1.0, 1.2])
    found = BoundSignal(free, free.default_protocol)({"T1": t1, "B1": b1})
    torch.testing.assert_close(found, BoundSignal(given, given.default_protocol)({"T1": t1}, {"B1": b1}))


def test_the_population_of_b1_is_that_of_a_head_and_is_not_learned():
    recipe, signal = load_recipe("hierarchical"), BoundSignal(T1VFAFreeB1, acquisition(), infer_s0=True)
    mean, mean_sd, log_sd, log_sd_sd = expected_latents(recipe, signal)[:, 1]
    z = mean + log_sd.exp() * torch.tensor([-1.0, 0.0, 1.0])
    found = signal.constrain(torch.stack([torch.zeros(3), z, torch.zeros(3)], -1))["B1"]
    torch.testing.assert_close(found, torch.tensor([0.9, 1.0, 1.1]), atol=2e-3, rtol=0)
    assert mean_sd == log_sd_sd == 0
    model, _ = build_pair(recipe, signal, RicianLikelihood(), 0.03)
    assert model.prior.known.tolist() == [False, True, False]


def test_a_recipe_without_that_population_warns():
    _, y = spoiled(40)
    fit = pq.fit(y, acquisition(), signal="t1_vfa_free_b1", recipe="least_squares", sigma=SIGMA)
    assert any("is no part of this recipe" in text for text in fit.warnings)
    without = pq.fit(y, acquisition(), signal="t1_vfa", recipe="least_squares", sigma=SIGMA)
    assert any("signal t1_vfa_free_b1" in text for text in without.warnings)


def test_only_t1_is_judged_by_what_the_scan_determines():
    assert "B1" in SIGNALS["mp2rage_free_b1"].nuisance
    protocol = MP2RAGE.default_protocol
    pair = MP2RAGE.signal(protocol, torch.linspace(700, 1600, 40)[:, None]).numpy() * 1000
    fit = pq.fit(pair, protocol, signal="mp2rage_free_b1", recipe="least_squares", sigma=1.0)
    assert fit.uninformed == ()


def test_a_population_that_training_drew_in_goes_back_to_the_spread_of_the_voxels():
    t1, y = spoiled(300, seed=1)
    call = {"signal": "t1_vfa_free_b1", "recipe": "hierarchical", "settings": {"training.steps": 2}, "causes": False}
    fit = pq.fit(y, acquisition(), sigma=SIGMA, **call)
    t1_sd = torch.special.ndtri((torch.tensor(t1) - 10) / 5990).std()  # of latents between the bounds
    assert fit.model is not None
    log_sd = fit.model.prior.log_sd
    with torch.no_grad():
        log_sd[0] = t1_sd.log() - 0.25
    voxels = fit.prepare(y)
    assert left_out(fit.model, fit.guide, voxels) > DRIFT
    finish_population(fit, voxels, refined=False, progress=False)
    # of 300 the error is 5 %
    assert abs(float(log_sd[0].detach().exp() / t1_sd) - 1) < 0.1


@pytest.mark.slow
def test_intervals_without_a_map_hold_what_a_map_would_have_shown():
    # 500 voxels: standard error 0.013; 0.878 was seen
    t1, y = spoiled(500)
    covered = {}
    for name in ("t1_vfa", "t1_vfa_free_b1"):
        fit = pq.fit(y, acquisition(), signal=name, recipe="hierarchical", sigma=SIGMA)
        low, high = fit.posterior(y).interval(0.9)["T1"].numpy().T
        covered[name] = np.mean((low < t1) & (t1 < high))
    assert covered["t1_vfa"] < 0.6
    assert 0.84 < covered["t1_vfa_free_b1"] < 0.94
