"""Denoisers on a synthetic brain, where those that look at neighbours apply: MP-PCA and Patch2Self of dipy.

Run ``python -m benchmarks.denoising_phantom --snr 20 10``; rows go to ``benchmarks/results/denoising_phantom.json``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pyroqmri as pq
from benchmarks.denoising import BUDGET, acquisition, keep, scores
from pyroqmri.denoising import tensor_quantities
from pyroqmri.signals import BallStick, BoundSignal
from pyroqmri.simulate import brain_phantom, simulate

RESULTS = Path(__file__).parent / "results" / "denoising_phantom.json"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "DAE, uniform truth": ("denoise_dae", {}),
    "VAE, uniform truth": ("denoise_vae", {}),
    "DAE, fitted truth": ("denoise_dae", {"targets.source": "fitted"}),
    "VAE, fitted truth": ("denoise_vae", {"targets.source": "fitted"}),
    "VAE, the scan itself": ("denoise_vae", {"targets.source": "scan", "schedule.epochs": 400}),
}


def spatial(volume: np.ndarray, acq: pq.Acquisition, mask: np.ndarray, method: str) -> np.ndarray:
    """MP-PCA with dipy's own patches, or Patch2Self with ordinary least squares."""
    from dipy.denoise.localpca import mppca
    from dipy.denoise.patch2self import patch2self

    if method == "MP-PCA":
        return np.asarray(mppca(volume, mask=mask, patch_radius=2))
    b = 1000 * acq.bval.numpy()
    return np.asarray(patch2self(volume, b, model="ols", shift_intensity=False, b0_threshold=50, verbose=False))


def generative(y: Tensor, acq: pq.Acquisition, sigma: float, seed: int) -> Tensor:
    """Posterior predictive mean of `hierarchical` on ball-stick, which here is the truth's own signal."""
    fit = pq.fit(y, acq, signal="ball_stick", recipe="hierarchical", sigma=sigma, s0=1.0, seed=seed)
    draws = fit.posterior(y).draws(50, seed=seed)
    bound, total = BoundSignal(BallStick, acq), torch.zeros_like(y)
    names = [p.name for p in BallStick.parameters]
    for i in range(50):
        total += bound({n: draws[n][i].float() for n in names}) / 50
    return total


def run(snr: float, seed: int, shape: tuple[int, int, int], methods: list[str]) -> list[dict[str, Any]]:
    """All methods on one phantom; tensors are compared with those of the noise-free measurements."""
    acq = acquisition("multi")
    phantom = brain_phantom(BallStick, shape, seed)
    theta, mask = phantom.voxels(), phantom.mask.numpy()
    clean = simulate(BallStick, acq, theta, noise="none").float()
    y = simulate(BallStick, acq, theta, snr=snr, seed=seed).float()
    air = np.random.default_rng(seed).normal(0, 1 / snr, (2, *mask.shape, len(acq)))
    volume = np.hypot(*air).astype(np.float32)
    volume[mask] = y.numpy()
    exact = tensor_quantities(acq, clean)
    answers: dict[str, Any] = {
        "noisy": lambda: y,
        "mean predictor": lambda: clean.mean(0).expand_as(clean),
        "MP-PCA": lambda: torch.from_numpy(spatial(volume, acq, mask, "MP-PCA")[mask]).float(),
        "Patch2Self": lambda: torch.from_numpy(spatial(volume, acq, mask, "Patch2Self")[mask]).float(),
        "hierarchical, predictive mean": lambda: generative(y, acq, 1 / snr, seed),
    }
    for name, (recipe, changes) in NETWORKS.items():
        answers[name] = lambda r=recipe, c=changes: (
            pq.fit_denoiser(
                y, acq, signal="ball_stick", recipe=r, sigma=1 / snr, s0=1.0, seed=seed, settings=BUDGET | c
            )
            .denoise(y)
            .signal
        )
    rows = []
    for name, answer in answers.items():
        if methods and name not in methods:
            continue
        begin = time.perf_counter()
        try:
            found = answer()
        except Exception as error:  # one method that fails must not take the others with it
            print(f"{name} failed: {error!r}", flush=True)
            continue
        took = round(time.perf_counter() - begin, 1)
        head = {"protocol": "multi, phantom", "noise": "rician", "seed": seed, "method": name, "level": 1 / snr}
        fit = {"signal_rmse": float((found - clean).square().mean().sqrt()), "n": len(y)}
        rows.append(head | scores(tensor_quantities(acq, found), exact) | fit | {"seconds": took})
        print(f"SNR {snr:g} {json.dumps(rows[-1])}", flush=True)
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, nargs="+", default=[20.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="*", default=[], help="all of them unless named")
    parser.add_argument("--shape", type=int, nargs=3, default=[28, 28, 10])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for snr in args.snr:
        for seed in args.seeds:
            keep(run(snr, seed, tuple(args.shape), args.methods), RESULTS)


if __name__ == "__main__":
    main()
