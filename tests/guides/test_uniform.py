"""The recipe uniform from end to end: its ranges, its weights, on disk; and the guide free in a fit."""

import functools

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from benchmarks.protocols import EPSTEIN, protocol
from pyroqmri.commands import fit_image
from pyroqmri.errors import InputError
from pyroqmri.fitting.schema import load_recipe, reweighting
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate, uniform
from tests.small_scan import SIGMA, write_scan

IVIM, ACQ = SIGNALS["ivim"], protocol("epstein")
SCALE = 250.0
RANGES = {f"range.{k}": [v * (SCALE if k == "S0" else 1) for v in pair] for k, pair in EPSTEIN.items()}
QUICK = {"training.steps": 150, "guide.simulations": 4000, "guide.width": 32, "guide.components": 2}


def data(n: int, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    theta = uniform(IVIM, n, seed, EPSTEIN)
    return SCALE * simulate(IVIM, ACQ, theta, snr=30, seed=seed + 1), theta | {"S0": SCALE * theta["S0"]}


@functools.cache
def fitted() -> pq.Fit:
    return pq.fit(data(100)[0], ACQ, signal="ivim", recipe="uniform", sigma=SCALE / 30, s0="inferred",
                  settings=RANGES | QUICK)  # fmt: skip


def test_posteriors_stay_in_the_ranges_and_cover():
    y, theta = data(400, seed=7)
    posterior = fitted().posterior(y)
    draws = posterior.draws(50)
    for name, pair in EPSTEIN.items():
        low, high = (v * (SCALE if name == "S0" else 1) for v in pair)
        assert draws[name].min() > low * 0.999
        assert draws[name].max() < high * 1.001
        inside = posterior.interval(0.9)[name]
        # 400 voxels: .855 to .945 is three standard errors
        share = float(((inside[:, 0] < theta[name]) & (theta[name] < inside[:, 1])).float().mean())
        assert 0.855 < share < 0.945, (name, share)


def test_weights_are_used_because_the_recipe_says_so_and_can_be_left_out():
    y, _ = data(50, seed=7)
    told, plain = fitted().posterior(y), fitted().posterior(y, reweight=False)
    assert told.n_draws == plain.n_draws == 1024
    assert (told.khat < 0.7).float().mean() > 0.8
    gap = (told.mean["f"] - plain.mean["f"]).abs() / plain.sd["f"]
    assert 0.001 < gap.median() < 0.5
    few = fitted().posterior(y, n_draws=64)
    assert few.n_draws == 64
    assert few.reweighting is None


def test_any_voxel_model_can_be_reweighted(tmp_path):
    y, _ = data(40, seed=8)
    settings = {"guide.kind": "free", "training.steps": 30, "training.batch_size": 40}
    fit = pq.fit(y, ACQ, signal="ivim", recipe="hierarchical", sigma=SCALE / 30, s0="inferred", settings=settings)
    fit.save(tmp_path)
    posterior, again = (f.posterior(y[:20], reweight=True) for f in (fit, pq.load_fit(tmp_path)))
    assert posterior.khat.shape == (20,)
    torch.testing.assert_close(again.mean["D_slow"], posterior.mean["D_slow"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_relaxed_component_can_be_reweighted():
    y, _ = data(40, seed=8)
    settings = {"training.steps": 30, "training.batch_size": 40}
    fit = pq.fit(y, ACQ, signal="ivim", recipe="vae_gmm_relaxed", sigma=SCALE / 30, s0="inferred", settings=settings)
    assert not reweighting(load_recipe("vae_gmm_relaxed")).loose_axes  # where nobody asks, it takes too long
    weighted = fit.posterior(y[:10], reweight=True)
    assert weighted.khat.shape == (10,)
    assert torch.isfinite(weighted.mean["D_slow"]).all()


def test_ranges_and_weights_come_back_from_disk(tmp_path):
    fitted().save(tmp_path)
    again, y = pq.load_fit(tmp_path), data(20, seed=9)[0]
    assert again.signal.tissue == fitted().signal.tissue
    torch.testing.assert_close(again.posterior(y).mean["D_fast"], fitted().posterior(y).mean["D_fast"])


@pytest.mark.slow
def test_the_shape_of_the_weights_is_a_map(tmp_path):
    scan = write_scan(tmp_path / "in")
    out = fit_image(scan.files, signal="msdki", recipe="uniform", sigma=SIGMA, out=tmp_path / "out",
                    settings=QUICK)  # fmt: skip
    (path,) = out.glob("*_model-msdki_desc-khat_dwimap.nii.gz")
    inside = nib.load(path).get_fdata()[scan.inside]
    assert np.isfinite(inside).mean() > 0.9
    assert np.median(inside) < 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"range.T2": [0.1, 0.5]}, "range names 'T2'"),
        ({"range.f": [0.5, 0.1]}, r"range\.f must be \[lower, upper\] in 0\.\.1"),
        ({"range.f": [0.1, 1.1]}, r"range\.f must be"),
        ({"range.f": [0.1]}, r"range\.f must be"),
        ({"prior.kind": "hierarchical"}, "carry no information on a population"),
        ({"likelihood.learn": True}, "carry no information on a population"),
        ({"posterior.draws": 100}, "needs 1000"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        pq.fit(data(20)[0], ACQ, signal="ivim", recipe="uniform", sigma=SCALE / 30, s0="inferred",
               settings=QUICK | settings).posterior(data(5)[0])  # fmt: skip
