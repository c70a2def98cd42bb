"""The in-vivo part of Epstein et al. 2022 (figures 5-7) in kind: maps of a scan, and its truth measured again.

Run ``python inference/training_labels_in_vivo.py IMAGE --bval FILE --mask FILE --out out/labels``. The paper's pelvis
was scanned 16 times over, which gave it a reference; a scan without repeats has none. Its own maximum-likelihood
estimates stand in for the truth, are measured again by simulation at the scan's noise, and score the estimators.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.io import read_scan
from pyroqmri.simulate import simulate

RANGES = {"f": [0.02, 0.6], "D_fast": [5.0, 150.0], "D_slow": [0.1, 3.0]}  # wider than the paper's: CSF is in the mask
RECIPES = {
    "maximum_likelihood": ("maximum_likelihood", {}), "supervised_gt": ("supervised_gt", {}),
    "supervised_mle, rician": ("supervised_mle", {}),
    "supervised_mle, gaussian": ("supervised_mle", {"labels.likelihood": "gaussian"}),
    "self_supervised": ("self_supervised", {}), "hierarchical": ("hierarchical", {}),
}  # fmt: skip
NAMES = ("f", "D_fast", "D_slow")


def fits_of(args: argparse.Namespace, y: np.ndarray, acq: pq.Acquisition) -> dict[str, pq.Fit]:
    """Every estimator at the scan's protocol and noise."""
    network = {"truth.voxels": args.voxels, "training.starts": args.starts, "training.epochs": args.epochs}
    network |= {f"range.{k}": pair for k, pair in RANGES.items()}
    found = {}
    for name, (recipe, changes) in RECIPES.items():
        settings = (network if recipe.startswith("su") or recipe.startswith("se") else {}) | changes
        found[name] = pq.fit(
            y, acq, signal="ivim", recipe=recipe, s0="inferred", seed=args.seed, settings=settings, progress=True
        )
        print(name, found[name].seconds, found[name].warnings, flush=True)
    return found


def scores(fits: dict[str, pq.Fit], truth: dict[str, torch.Tensor], draws: int) -> dict[str, dict[str, np.ndarray]]:
    """Estimates ``(draws, N)`` of each parameter on the truth measured again."""
    any_fit = next(iter(fits.values()))
    again = []
    for i in range(draws):
        y = simulate(any_fit.signal.signal, any_fit.acquisition, truth, sigma=any_fit.sigma, seed=i).float()
        again.append({name: fit.posterior(y).mean for name, fit in fits.items()})
    return {name: {k: np.stack([a[name][k].numpy() for a in again]) for k in NAMES} for name in fits}


def draw_scores(found: dict[str, dict[str, np.ndarray]], truth: dict[str, torch.Tensor], path: Path) -> None:
    """Figure 6 in kind: bias, sd and RMSE by the value of the reference, with how many voxels have it."""
    figure, axes = plt.subplots(4, 3, figsize=(11, 10), layout="constrained", sharex="col")
    for column, k in zip(axes.T, NAMES, strict=True):
        reference = truth[k].numpy()
        edges = np.linspace(*np.quantile(reference, (0.01, 0.99)), 11)
        bins, middle = np.digitize(reference, edges) - 1, (edges[1:] + edges[:-1]) / 2
        for name, estimates in found.items():
            error, spread = estimates[k] - reference, estimates[k].std(0, ddof=1)
            rows = [
                [np.nanmean(values[..., bins == i]) if (bins == i).any() else np.nan for i in range(10)]
                for values in (error, spread**2, error**2)
            ]
            for panel, values in zip(column, (rows[0], np.sqrt(rows[1]), np.sqrt(rows[2])), strict=False):
                panel.plot(middle, values, color="k" if name == "maximum_likelihood" else None, label=name)
        column[3].hist(reference, edges, color="0.6")
        column[3].set_xlabel(k)
    for panel, label in zip(axes[:, 0], ("bias", "sd", "rmse", "voxels"), strict=True):
        panel.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_maps(maps: dict[str, dict[str, torch.Tensor]], mask: np.ndarray, path: Path) -> None:
    """Figure 7 in kind: the maps of the slice with the most mask."""
    z = int(mask.sum((0, 1)).argmax())
    rows, columns = (np.flatnonzero(mask[..., z].any(axis)) for axis in (1, 0))
    crop = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), z)
    figure, axes = plt.subplots(3, len(maps), figsize=(2.4 * len(maps), 7), layout="constrained")
    for row, k in zip(axes, NAMES, strict=True):
        low, high = np.nanquantile(maps["maximum_likelihood"][k].numpy(), (0.05, 0.95))
        for panel, (name, found) in zip(row, maps.items(), strict=True):
            volume = np.full(mask.shape, np.nan)
            volume[mask] = found[k].numpy()
            image = panel.imshow(np.rot90(volume[crop]), vmin=low, vmax=high, cmap="viridis")
            panel.set(xticks=[], yticks=[])
            if k == NAMES[0]:
                panel.set_title(name.replace(", ", "\n"), fontsize=8)
        row[0].set_ylabel(k)
        figure.colorbar(image, ax=row, shrink=0.7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Fit, map, measure again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--bval", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/training_labels"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voxels", type=int, default=30_000)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--draws", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    scan = read_scan(args.image, bval=args.bval, mask=args.mask, need=("bval",))
    fits = fits_of(args, scan.y, scan.acquisition)
    maps = {name: fit.posterior(scan.y).mean for name, fit in fits.items()}
    draw_maps(maps, scan.mask, args.out / "figure_7.png")
    good = torch.isfinite(maps["maximum_likelihood"]["f"])
    truth = {k: maps["maximum_likelihood"][k][good] for k in ("S0", *NAMES)}
    found = scores(fits, truth, args.draws)
    draw_scores(found, truth, args.out / "figure_6.png")
    told = {"voxels": int(good.sum()), "sigma": fits["supervised_gt"].sigma, "S0": float(truth["S0"].median())}
    for name in fits:
        row = {}
        for k in NAMES:
            error = found[name][k] - truth[k].numpy()
            spread = float(np.sqrt(np.nanmean(found[name][k].var(0, ddof=1))))
            row[k] = {
                "bias": float(np.nanmean(error)), "sd": spread, "rmse": float(np.sqrt(np.nanmean(error**2))),
                "sd over voxels": float(np.nanstd(maps[name][k].numpy())),
                "median": float(np.nanmedian(maps[name][k].numpy())),
            }  # fmt: skip
        told[name] = row
        print(name, {k: {s: round(v, 3) for s, v in row[k].items()} for k in NAMES})
    (args.out / "in_vivo.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
