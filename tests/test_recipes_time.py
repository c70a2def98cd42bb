"""The benchmark of fitting times, with few voxels; what it does on CUDA is run here on the CPU."""

import json

import pytest
import torch

import pyroqmri as pq
from benchmarks import recipes_time
from pyroqmri.errors import InputError

SMALL = ["--voxels", "200", "--settings", '{"training.steps": 3}']


@pytest.mark.slow
def test_rows_are_kept_with_where_they_come_from(tmp_path):
    path = tmp_path / "kept.json"
    for recipes in (["hierarchical", "vae_unig"], ["hierarchical"]):
        assert recipes_time.main([*SMALL, "--results", str(path), "--recipes", *recipes]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [r["recipe"] for r in rows] == ["hierarchical", "vae_unig"]
    for row in rows:
        assert row["voxels"] == 200
        assert row["finite"]
        assert min(row["fit_seconds"], row["fit_cpu_seconds"], row["apply_seconds"], row["peak_gb"]) > 0
        assert row["made"]["torch"] == torch.__version__
        assert row["made"]["threads"] == 1


def test_it_asks_for_all_generative_recipes():
    assert {"vae_unig", "vae_gmm", "vae_gmm_relaxed", "hierarchical", "hierarchical_mixture"} <= set(
        recipes_time.generative()
    )
    assert "least_squares" not in recipes_time.generative()


def test_a_million_voxels_are_simulated_in_pieces(monkeypatch):
    whole, _ = recipes_time.measurements(50, 0)
    monkeypatch.setattr(recipes_time, "PIECE", 20)
    y, acq = recipes_time.measurements(50, 0)
    assert y.shape == whole.shape == (50, len(acq.bval))
    assert torch.isfinite(y).all()
    assert (y != 0).all()
    assert not torch.equal(y[:20], y[20:40])  # each piece has a seed of its own


def test_a_fit_agrees_with_itself_and_sees_a_difference():
    y, acq = recipes_time.measurements(60, 0)
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=0.05, s0=1.0, settings={"training.steps": 2})
    posterior = fit.posterior(y)
    # other chunks of voxels are added in another order, and searches of modes end a step earlier or later
    assert max(recipes_time.agreement(fit, y[:20], posterior).values()) < 0.01

    class Shifted:
        mean = {k: v + posterior.sd[k] / 2 for k, v in posterior.mean.items()}
        sd = posterior.sd

    assert recipes_time.agreement(fit, y, Shifted())["mean_off_max"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_that_is_not_there_is_said_at_once():
    with pytest.raises(InputError, match="device cuda"):
        recipes_time.main(["--device", "cuda"])


@pytest.mark.gpu
def test_it_runs_on_cuda(tmp_path):
    path = tmp_path / "kept.json"
    assert recipes_time.main([*SMALL, "--device", "cuda", "--results", str(path), "--recipes", "hierarchical"]) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert row["mean_off_max"] < 0.05
