"""What `inference/reproduce_gmm_vae.py` draws; matplotlib only."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from pyroqmri.simulate import CLASSES

mpl.use("Agg")

NAMES = {
    "least_squares": "least squares",
    "self_supervised": "self-supervised",
    "vae_unig": "VAE-UniG",
    "vae_gmm": "VAE-GMM",
}
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c")  # white matter, grey matter, csf: as in the paper
LABELS = {
    "D": "D (µm²/ms)",
    "K": "K",
    "f": "f",
    "D_par": "D$_\\parallel$ (µm²/ms)",
    "D_iso": "D$_\\mathrm{iso}$ (µm²/ms)",
}
RANGES = {"D": (0.0, 3.6), "K": (-0.6, 2.6)}
SHOWN = {"D": (0.3, 3.0), "K": (0.0, 1.5), "f": (0.0, 0.8), "D_par": (0.0, 3.0), "D_iso": (0.3, 3.0)}
Arrays = dict[str, np.ndarray]


def save(figure: Any, path: Path) -> None:
    """Write a PNG in a palette of colours: the same to the eye in a third of the bytes."""
    import matplotlib.pyplot as plt
    from PIL import Image

    content = io.BytesIO()
    figure.savefig(content, dpi=110)
    plt.close(figure)
    picture = Image.open(content).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def truth_against_estimate(
    out: Path, runs: Mapping[Any, Arrays], recipes: Sequence[str], snrs: Sequence[float], seed: int
) -> None:
    """Figures 1 and 7 of the paper: one panel a noise level and estimator, tissues by colour."""
    import matplotlib.pyplot as plt

    for p, (low, high) in RANGES.items():
        size = (2.1 * len(recipes) + 0.6, 2.1 * len(snrs) + 0.7)
        figure, axes = plt.subplots(len(snrs), len(recipes), figsize=size, sharex=True, sharey=True, squeeze=False,
                                    layout="constrained")  # fmt: skip
        for row, snr in zip(axes, snrs, strict=True):
            for ax, recipe in zip(row, recipes, strict=True):
                _scatter(ax, runs[recipe, snr, seed], p)
                ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            row[0].set_ylabel(f"SNR {snr:g}\nestimate of {LABELS[p]}", fontsize=8)
        for ax, recipe in zip(axes[0], recipes, strict=True):
            ax.set_title(NAMES[recipe], fontsize=10)
        for ax in axes[-1]:
            ax.set_xlabel(f"true {LABELS[p]}", fontsize=8)
        points = [plt.Line2D([], [], marker="o", ls="", ms=4, color=c) for c in COLOURS]
        figure.legend(points, CLASSES, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
        save(figure, out / f"gmm_vae_truth_{p}.png")


def _scatter(ax: Any, found: Arrays, p: str) -> None:
    shown = np.arange(len(found[p]))[:1500]
    for k, colour in enumerate(COLOURS):
        here = shown[found["tissue"][shown] == k]
        ax.plot(found[p][here], found[f"mean {p}"][here], "o", ms=1.3, alpha=0.4, color=colour, mew=0)
        error = np.sqrt(np.mean((found[f"mean {p}"] - found[p])[found["tissue"] == k] ** 2))
        ax.text(0.04, 0.95 - 0.1 * k, f"{error:.2f}", transform=ax.transAxes, fontsize=7, va="top", color=colour)
    ax.plot(RANGES[p], RANGES[p], color="0.3", lw=0.6)
    ax.tick_params(labelsize=7)


def sensitivity(out: Path, sizes: Mapping[Any, dict[str, float]], weights: Mapping[Any, dict[str, float]]) -> None:
    """Figure 6 of the paper, with a dot for each seed: error and coverage by latent size and by KL weight."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.4), sharex="row", layout="constrained")
    rows = ((sizes, "size of the latent", False), (weights, "weight of the KL term", True))
    for row, (found, said, log) in zip(axes, rows, strict=True):
        values = sorted({k[0] for k in found})
        for ax, what in zip(row, ("rmse D", "rmse K", "cover D"), strict=True):
            for tissue, colour in zip(CLASSES, COLOURS, strict=True):
                key = f"{what} {tissue}"
                for value, seed in found:
                    ax.plot(value, found[value, seed][key], "o", ms=3.5, alpha=0.6, color=colour, mew=0)
                middle = [np.median([v[key] for (value, _), v in found.items() if value == at]) for at in values]
                ax.plot(values, middle, color=colour, lw=1, label=tissue)
            ax.set_xlabel(said, fontsize=9)
            ax.set_xticks(values, [f"{v:g}" for v in values])
            ax.tick_params(labelsize=8)
            if log:
                ax.set_xscale("log")
                ax.set_xticks(values, [f"{v:g}" for v in values])
                ax.minorticks_off()
            unit = " (µm²/ms)" if what == "rmse D" else ""
            ax.set_ylabel(
                "90 % intervals of D that hold" if "cover" in what else f"RMSE of {what[-1]}{unit}", fontsize=9
            )
            if "cover" in what:
                ax.axhline(0.9, color="0.5", lw=0.8, ls=":")
                ax.set_ylim(0, 1)
            else:
                ax.set_ylim(bottom=0)
    axes[0, 0].legend(fontsize=8, frameon=False)
    save(figure, out / "gmm_vae_sensitivity.png")


def latents(out: Path, toy: Mapping[str, Arrays], real: Mapping[str, Arrays]) -> None:
    """Figure 3 of the paper: posterior means of the first two latents, and the prior's components as ellipses."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(7.6, 6.6), layout="constrained")
    for row, (source, data) in zip(axes, (("simulated", toy), ("real brain", real)), strict=True):
        for ax, (recipe, found) in zip(row, data.items(), strict=True):
            z = found["z"]
            colour = np.array(COLOURS)[found["tissue"]] if "tissue" in found else found["mean D"]
            pick = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(z).all(-1)))[:2000]
            by_value = {} if "tissue" in found else {"cmap": "viridis", "vmin": 0.3, "vmax": 3.0}
            points = ax.scatter(z[pick, 0], z[pick, 1], c=colour[pick], s=2, alpha=0.5, lw=0, **by_value)
            for w, m, s in zip(found["weights"], found["loc"], found["scale"], strict=True):
                ax.add_patch(mpl.patches.Ellipse(m[:2], *(2 * 2.146 * s[:2]), fill=False, lw=0.5 + 3 * w, ec="k"))
            ax.set(xlabel="$z_1$ (no unit)", ylabel="$z_2$ (no unit)", title=f"{NAMES[recipe]}, {source}")
            if "tissue" not in found:
                figure.colorbar(points, ax=ax, label=LABELS["D"])
            ax.autoscale_view()
    handles = [plt.Line2D([], [], marker="o", ls="", ms=4, color=c) for c in COLOURS]
    axes[0, 0].legend(handles, CLASSES, fontsize=8)
    save(figure, out / "gmm_vae_latents.png")


def maps(out: Path, signal: str, found: Mapping[str, Arrays], scan: Any) -> None:
    """Figures 2 and 5 of the paper: one row a parameter, one column an estimator, then the sd of the last."""
    import matplotlib.pyplot as plt

    names = [k.removeprefix("mean ") for k in next(iter(found.values())) if k.startswith("mean ")]
    figure, axes = plt.subplots(len(names), len(found) + 1, figsize=(2.2 * (len(found) + 1), 2.4 * len(names)),
                                layout="constrained")  # fmt: skip
    last = list(found)[-1]
    for i, (row, p) in enumerate(zip(axes, names, strict=True)):
        low, high = SHOWN[p]
        for ax, (recipe, arrays) in zip(row, found.items(), strict=False):
            shown = _slice(ax, arrays[f"mean {p}"], scan, low, high, "viridis")
            ax.set_title(NAMES[recipe] if i == 0 else "", fontsize=9)
        figure.colorbar(shown, ax=list(row[:-1]), fraction=0.02, pad=0.01).set_label(LABELS[p], fontsize=8)
        shown = _slice(row[-1], found[last][f"sd {p}"], scan, 0, (high - low) / 10, "magma")
        row[-1].set_title(f"sd, {NAMES[last]}" if i == 0 else "", fontsize=9)
        figure.colorbar(shown, ax=row[-1], fraction=0.06, pad=0.02).set_label(f"sd of {LABELS[p]}", fontsize=8)
    save(figure, out / f"gmm_vae_maps_{signal}.png")


def _slice(ax: Any, values: np.ndarray, scan: Any, low: float, high: float, cmap: str) -> Any:
    volume = np.full(scan.mask.shape, np.nan)
    volume[scan.mask] = values
    k = int(scan.mask.sum((0, 1)).argmax())
    x, y = (np.flatnonzero(scan.mask[..., k].any(i)) for i in (1, 0))
    part = volume[x[0] : x[-1] + 1, y[0] : y[-1] + 1, k]
    ax.set_axis_off()
    return ax.imshow(part.T, origin="lower", vmin=low, vmax=high, cmap=cmap, interpolation="nearest")
