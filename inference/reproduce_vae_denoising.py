"""Table 2 and figures 3 to 9 of Glaser's report on denoising with a variational autoencoder, in kind.

Run ``python inference/reproduce_vae_denoising.py --image dwi.nii.gz --mask mask.nii.gz --out out/denoising``; without
an image the figures of simulated data are drawn alone. Table 2 with ranges over seeds: ``python -m
benchmarks.denoising``.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.denoising import TENSOR_ELEMENTS, DenoiserFit, tensor_quantities
from pyroqmri.io import read_scan
from pyroqmri.signals import DTI
from pyroqmri.signals.shells import half_sphere
from pyroqmri.simulate import simulate

HIGH = 0.91  # the report's highest noise level over S0
BUDGET = {"schedule.batch_size": 512, "schedule.lr": 2e-3}  # the report's batch size is not stated
RANGE = {"added_noise.kind": "gaussian", "added_noise.levels": "range"}
NAMES = {
    "VAE": ("denoise_vae", {}),
    "DAE": ("denoise_dae", {}),
    "VAE without KL": ("denoise_vae", {"schedule.kl_max": 0.0}),
}


def protocol() -> pq.Acquisition:
    """32 volumes: b = 50 s/mm2 first and last, 30 directions at 1000."""
    g = np.r_[np.zeros((1, 3)), half_sphere(30), np.zeros((1, 3))]
    return pq.Acquisition(bval=np.r_[0.05, np.ones(30), 0.05], bvec=g)


def tensors(acq: pq.Acquisition, n: int, seed: int) -> dict[str, torch.Tensor]:
    """Diagonal elements 0 to 3 um2/ms, the others -1 to 1 and none above a diagonal one, no signal above S0."""
    rng = np.random.default_rng(seed)
    d = np.concatenate([rng.uniform(0, 3, (6 * n, 3)), rng.uniform(-1, 1, (6 * n, 3))], 1)
    d = torch.from_numpy(d[d[:, :3].min(1) >= d[:, 3:].max(1)]).float()
    signal = simulate(DTI, acq, dict(zip(TENSOR_ELEMENTS, d.T, strict=True)), noise="none")
    return dict(zip(TENSOR_ELEMENTS, d[(signal <= 1).all(-1)][:n].T, strict=True))


def make(acq: pq.Acquisition, theta: Any, name: str, epochs: int, latent: int = 7) -> DenoiserFit:
    """A denoiser with Table 1's settings."""
    recipe, changes = NAMES[name]
    settings = BUDGET | RANGE | changes | {"autoencoder.latent": latent, "schedule.epochs": epochs}
    y = simulate(DTI, acq, theta, snr=10)[:100]
    return pq.fit_denoiser(y, acq, recipe=recipe, sigma=0.1, s0=1.0, truth=theta, settings=settings)


def table2(fits: dict[str, DenoiserFit], acq: pq.Acquisition, held: Any) -> None:
    """Loss of D, in mm2/s, on equal noisy data; the mean tensor stands beside."""
    clean = simulate(DTI, acq, held, noise="none")
    y = simulate(DTI, acq, held, sigma=HIGH * torch.rand(len(clean)).double(), noise="gaussian").clamp_min(0).float()
    truth = torch.stack([held[e] for e in TENSOR_ELEMENTS], -1)
    rows = {"noisy": tensor_quantities(acq, y)} | {
        name: tensor_quantities(acq, fit.denoise(y).signal) for name, fit in fits.items()
    }
    found = {name: torch.stack([v[e] for e in TENSOR_ELEMENTS], -1) for name, v in rows.items()}
    for name, d in (found | {"mean tensor": truth.mean(0).expand_as(truth)}).items():
        error = 1e-3 * (d - truth)
        print(f"{name:16} MSE {error.square().mean():.2e}  MAE {error.abs().mean():.6f}")


def figure3(fit: DenoiserFit, path: Path) -> None:
    """Loss curves."""
    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    ax.semilogy(fit.trace.epoch, fit.trace.reconstruction, label="reconstruction, training")
    ax.semilogy(fit.trace.epoch, fit.trace.held_out, label="reconstruction, held out")
    ax.semilogy(fit.trace.epoch, fit.trace.objective, label="with the weighted KL")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.legend()
    figure.savefig(path, dpi=130)


def figure4(fits: dict[str, DenoiserFit], acq: pq.Acquisition, held: Any, path: Path) -> None:
    """One signal of each noise level: clean, noisy, reconstructed."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), sharey=True, layout="constrained")
    clean = simulate(DTI, acq, held, noise="none")
    for ax, sigma in zip(axes, (0.1, 0.3, HIGH), strict=True):
        y = simulate(DTI, acq, held, sigma=sigma, noise="gaussian").clamp_min(0).float()
        ax.plot(y[3], color="0.75", label="noisy")
        ax.plot(clean[3], color="k", label="clean")
        for name, fit in fits.items():
            ax.plot(fit.denoise(y[:4]).signal[3], label=name, lw=1)
        ax.set(title=f"noise {sigma:g} of S0", xlabel="measurement")
    axes[0].set_ylabel("signal over S0")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=130)


def figure7(fits: dict[str, DenoiserFit], y: torch.Tensor, path: Path) -> None:
    """The latents' posteriors in one voxel, and the share that is explained by the voxel."""
    figure, axes = plt.subplots(1, len(fits), figsize=(4 * len(fits), 3), layout="constrained", squeeze=False)
    x = np.linspace(-4, 4, 400)
    for ax, (name, fit) in zip(axes[0], fits.items(), strict=True):
        found, told = fit.denoise(y[:1]), fit.latents(y)
        assert found.z_scale is not None
        dead = told.record()["dead"]
        for i, (m, s) in enumerate(zip(found.z_loc[0], found.z_scale[0], strict=True)):
            density = np.exp(-0.5 * ((x - float(m)) / float(s)) ** 2) / float(s)
            ax.plot(
                x, density / density.max(), color="0.6" if i + 1 in dead else None, ls=":" if i + 1 in dead else "-"
            )
        ax.set(title=f"{name}; dead: {dead if dead else 'none'}", xlabel="latent", yticks=[])
    figure.savefig(path, dpi=130)


def figure8(fits: dict[str, DenoiserFit], y: torch.Tensor, path: Path) -> None:
    """Contribution of each latent to the reconstruction."""
    figure, axes = plt.subplots(1, len(fits), figsize=(4 * len(fits), 2.6), layout="constrained", squeeze=False)
    for ax, (name, fit) in zip(axes[0], fits.items(), strict=True):
        told = fit.latents(y)
        ax.bar(range(1, len(told.contribution) + 1), told.contribution)
        ax.set(title=name, xlabel="latent", ylabel="rms change when held")
    figure.savefig(path, dpi=130)


def figures5and6(image: str, mask: str | None, out: Path, epochs: int) -> None:
    """A real scan's volume through both denoisers, and histograms of what they took away."""
    scan = read_scan(image, mask=mask, need=("bval", "bvec"))
    keep = scan.acquisition.bval <= 1.5
    acq, y = scan.acquisition[keep], torch.from_numpy(scan.y[:, keep.numpy()])
    settings = BUDGET | {"schedule.epochs": epochs, "targets.source": "fitted"}
    found = {n: pq.fit_denoiser(y, acq, recipe=NAMES[n][0], settings=settings).denoise(y) for n in ("VAE", "DAE")}
    level = found["VAE"].sigma[:, None]
    m = int(acq.bval.argmax())
    z = int(scan.mask.sum((0, 1)).argmax())
    panels = {"noisy": y[:, m], **{n: d.signal[:, m] for n, d in found.items()}}
    panels["VAE - DAE"] = found["VAE"].signal[:, m] - found["DAE"].signal[:, m]
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        volume = np.full(scan.mask.shape, np.nan)
        volume[scan.mask] = values
        ax.imshow(np.rot90(volume[:, :, z]), cmap="gray" if name != "VAE - DAE" else "RdBu_r")
        ax.set_title(name)
        ax.set_axis_off()
    figure.savefig(out / "figure5.png", dpi=130)
    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    edges = np.linspace(-5, 5, 101)
    for name, d in found.items():
        ax.hist((d.residual / level).flatten().numpy(), edges, density=True, histtype="step", label=name)
    ax.plot(edges, np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi), "k:", label="normal")
    ax.set(xlabel="removed, over sigma")
    ax.legend()
    figure.savefig(out / "figure6.png", dpi=130)


def main() -> None:
    """Train, print Table 2 and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image")
    parser.add_argument("--mask")
    parser.add_argument("--out", type=Path, default=Path("out/denoising"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--voxels", type=int, default=50_000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    acq = protocol()
    theta, held = tensors(acq, args.voxels, 0), tensors(acq, 2000, 1)
    fits = {name: make(acq, theta, name, args.epochs) for name in NAMES}
    fits["VAE, 10 latents"] = make(acq, theta, "VAE", args.epochs, 10)
    table2(fits, acq, held)
    y = simulate(DTI, acq, held, snr=10)
    figure3(fits["VAE"], args.out / "figure3.png")
    figure4({n: fits[n] for n in ("VAE", "DAE")}, acq, held, args.out / "figure4.png")
    latents = {n: f for n, f in fits.items() if n != "DAE"}
    figure7(latents, y, args.out / "figure7.png")
    figure8(latents, y, args.out / "figure8.png")
    figure3(fits["VAE without KL"], args.out / "figure9a.png")
    figure4({"VAE without KL": fits["VAE without KL"]}, acq, held, args.out / "figure9d.png")
    if args.image:
        figures5and6(args.image, args.mask, args.out, args.epochs)
    print(f"figures in {args.out}")


if __name__ == "__main__":
    main()
