"""The reproduction of a paper's figures: fits are kept, an interrupted run goes on, every figure is drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from inference import gmm_vae_figures as figures
from inference import reproduce_gmm_vae as reproduce

PLAN = reproduce.Plan(voxels=60, seeds=(0,), snrs=(20.0,), latents=(1, 2), kl_weights=(0.1, 1.0), steps=2)


def test_a_fit_is_made_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"seconds": np.array(1.0), "mean D": np.arange(3.0)}

    for _ in range(2):
        found = reproduce.kept(tmp_path / "fits" / "one.npz", make)
        np.testing.assert_array_equal(found["mean D"], [0, 1, 2])
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "fits").iterdir()] == ["one.npz"]


def test_an_interrupted_fit_leaves_nothing_under_its_name(tmp_path):
    def make():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce.kept(tmp_path / "one.npz", make)
    assert not (tmp_path / "one.npz").exists()


def test_scores_are_by_tissue():
    truth = np.array([1.0, 1.0, 2.0, 3.0])
    found = {"D": truth, "K": truth, "tissue": np.array([0, 0, 1, 2]), "seconds": np.array(1.0)}
    found |= {"mean D": truth + np.array([0.1, -0.1, 0.2, 0.0]), "mean K": truth}
    found |= {"interval D": np.stack([truth - np.array([0.2, -0.1, 1, 1]), truth + 0.5], -1)}
    got = reproduce.scores(found)
    assert got["rmse D white matter"] == pytest.approx(0.1)
    assert got["rmse D grey matter"] == pytest.approx(0.2)
    assert got["cover D white matter"] == 0.5
    assert "cover K csf" not in got


def test_real_maps_and_latents_are_drawn(tmp_path):
    mask = np.zeros((12, 10, 2), bool)
    mask[2:9, 3:8] = True
    n, rng = int(mask.sum()), np.random.default_rng(0)
    found = {r: {"mean D": rng.random(n), "mean K": rng.random(n)} for r in reproduce.ESTIMATORS}
    found["vae_gmm"] |= {"sd D": rng.random(n), "sd K": rng.random(n)}
    figures.maps(tmp_path, "msdki", found, SimpleNamespace(mask=mask))
    prior = {"weights": np.ones(2) / 2, "loc": np.zeros((2, 2)), "scale": np.ones((2, 2))}
    real = {r: {"z": rng.normal(size=(n, 2)), "mean D": rng.random(n)} | prior for r in ("vae_unig", "vae_gmm")}
    toy = {r: v | {"tissue": rng.integers(0, 3, n)} for r, v in real.items()}
    figures.latents(tmp_path, toy, real)
    for name in ("gmm_vae_maps_msdki.png", "gmm_vae_latents.png"):
        assert 1000 < (tmp_path / name).stat().st_size < 150_000


@pytest.mark.slow
def test_a_small_run_goes_through_and_a_second_one_fits_nothing(tmp_path, capsys):
    parts = ["truth", "sensitivity"]
    first = reproduce.reproduce(tmp_path, PLAN, parts)
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "gmm_vae_truth_D.png",
        "gmm_vae_truth_K.png",
        "gmm_vae_sensitivity.png",
    }
    assert len(first["truth"]) == len(reproduce.ESTIMATORS)
    assert "vae_gmm" in capsys.readouterr().out
    assert reproduce.reproduce(tmp_path, PLAN, parts) == first
    assert capsys.readouterr().out == ""
