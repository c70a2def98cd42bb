"""The in-vivo part of Epstein et al. 2022 (figures 5-7) in kind: maps of a scan, and its truth measured again.

Run ``python inference/training_labels_in_vivo.py IMAGE --bval FILE --mask FILE --out out/labels``. The paper's pelvis
was scanned 16 times over, which gave it a reference; a scan without repeats has none. Its own maximum-likelihood
estimates stand in for the truth, are measured again by simulation at the scan's noise, and score the estimators.
Networks, `uniform` and the exact posterior mean share one range of truths.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.diagnostics.prior_mean import prior_mean
from pyroqmri.io import read_scan
from pyroqmri.signals import IVIM
from pyroqmri.simulate import simulate

RANGES = {"f": [0.02, 0.6], "D_fast": [5.0, 150.0], "D_slow": [0.1, 3.0]}  # wider than the paper's: CSF is in the mask
RECIPES = {
    "maximum_likelihood": ("maximum_likelihood", {}), "supervised_gt": ("supervised_gt", {}),
    "supervised_mle, rician": ("supervised_mle", {}),
    "supervised_mle, gaussian": ("supervised_mle", {"labels.likelihood": "gaussian"}),
    "self_supervised": ("self_supervised", {"training.epochs": 600}),  # as many steps, of the few voxels of a scan
    "uniform": ("uniform", {}), "hierarchical": ("hierarchical", {}),
}  # fmt: skip
EXACT = "exact posterior mean"
COLOURS = {
    "maximum_likelihood": "k", "supervised_gt": "tab:blue", "supervised_mle, rician": "tab:red",
    "supervised_mle, gaussian": "tab:orange", "self_supervised": "tab:purple", "uniform": "tab:green",
    "hierarchical": "tab:olive", EXACT: "0.5",
}  # fmt: skip
NAMES = ("f", "D_fast", "D_slow")
LABELS = {"f": "$f$", "D_fast": "$D_{fast}$ (\u00b5m\u00b2/ms)", "D_slow": "$D_{slow}$ (\u00b5m\u00b2/ms)"}
Estimators = dict[str, Callable[[torch.Tensor], Mapping[str, torch.Tensor]]]


def ranges_of(y: np.ndarray) -> dict[str, list[float]]:
    """Where truths are drawn from; S0 is in the scan's units."""
    low, high = np.quantile(y.max(-1), (0.01, 0.99))
    return RANGES | {"S0": [0.8 * float(low), 1.2 * float(high)]}


def fits_of(args: argparse.Namespace, y: np.ndarray, acq: pq.Acquisition) -> dict[str, pq.Fit]:
    """Every estimator at the scan's protocol and noise."""
    ranges = {f"range.{k}": pair for k, pair in ranges_of(y).items()}
    network = {"truth.voxels": args.voxels, "training.starts": args.starts, "training.epochs": args.epochs}
    found = {}
    for name, (recipe, changes) in RECIPES.items():
        is_network = recipe.startswith("s")  # the one on true labels comes first, and starts the others
        settings = network | ranges if is_network else ranges if recipe == "uniform" else {}
        found[name] = pq.fit(
            y, acq, signal="ivim", recipe=recipe, s0="inferred", seed=args.seed, settings=settings | changes,
            progress=True, first=found.get("supervised_gt") if is_network else None,
        )  # fmt: skip
        print(name, found[name].seconds, found[name].warnings, flush=True)
    return found


def estimators_of(fits: dict[str, pq.Fit], y: np.ndarray) -> Estimators:
    """What answers parameters of measurements: every fit, and the exact posterior mean under the range of truths."""
    found: Estimators = {name: partial(_mean, fit) for name, fit in fits.items()}
    acq, sigma = fits["uniform"].acquisition, fits["uniform"].sigma
    ranges = {k: (low, high) for k, (low, high) in ranges_of(y).items()}
    exact = prior_mean(IVIM, acq, ranges, snr=1 / sigma, n_points=2**16)
    return found | {EXACT: lambda values: exact(torch.as_tensor(values).clamp_min(0))}


def _mean(fit: pq.Fit, y: torch.Tensor) -> Mapping[str, torch.Tensor]:
    return fit.posterior(y, n_draws=128).mean


def scores(
    estimators: Estimators, acq: pq.Acquisition, sigma: float, truth: dict[str, torch.Tensor], draws: int
) -> dict[str, dict[str, np.ndarray]]:
    """Estimates ``(draws, N)`` of each parameter on the truth measured again."""
    again = []
    for i in range(draws):
        y = simulate(IVIM, acq, truth, sigma=sigma, seed=i).float()
        again.append({name: estimate(y) for name, estimate in estimators.items()})
    return {name: {k: np.stack([a[name][k].numpy() for a in again]) for k in NAMES} for name in estimators}


def reference_of(estimates: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The truth that is measured again: estimates that do not lie at a bound, where they tell of no tissue."""
    good = torch.isfinite(estimates["f"])
    for p in IVIM.parameters:
        margin = 0.01 * (p.upper - p.lower)
        good &= (estimates[p.name] - p.lower > margin) & (p.upper - estimates[p.name] > margin)
    return {k: estimates[k][good] for k in ("S0", *NAMES)}


def told_of(
    found: dict[str, dict[str, np.ndarray]], maps: dict[str, Mapping[str, torch.Tensor]], truth: dict[str, torch.Tensor]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores on the reference, and how the scan's own maps spread."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    for name, estimates in found.items():
        told[name] = {}
        for k in NAMES:
            error = estimates[k] - truth[k].numpy()
            told[name][k] = {
                "bias": float(np.nanmean(error)), "sd": float(np.sqrt(np.nanmean(estimates[k].var(0, ddof=1)))),
                "rmse": float(np.sqrt(np.nanmean(error**2))), "sd over voxels": float(np.nanstd(maps[name][k].numpy())),
                "median": float(np.nanmedian(maps[name][k].numpy())),
            }  # fmt: skip
        print(name, {k: {s: round(v, 3) for s, v in told[name][k].items()} for k in NAMES})
    return told


def draw_scores(found: dict[str, dict[str, np.ndarray]], truth: dict[str, torch.Tensor], path: Path) -> None:
    """Figure 6 in kind: bias, sd and RMSE by the value of the reference, with how many voxels have it."""
    figure, axes = plt.subplots(4, 3, figsize=(11, 10), layout="constrained", sharex="col")
    for column, k in zip(axes.T, NAMES, strict=True):
        reference = truth[k].numpy()
        low, high = np.quantile(reference, (0.01, 0.99))
        edges = np.linspace(low, high, 11)
        bins, middle = np.digitize(reference, edges) - 1, (edges[1:] + edges[:-1]) / 2
        for name, estimates in found.items():
            error, spread = estimates[k] - reference, estimates[k].std(0, ddof=1)
            rows = [
                np.array([np.nanmean(values[..., bins == i]) if (bins == i).any() else np.nan for i in range(10)])
                for values in (error, spread**2, error**2)
            ]
            for panel, values in zip(column, (rows[0], np.sqrt(rows[1]), np.sqrt(rows[2])), strict=False):
                panel.plot(middle, values, color=COLOURS[name], ls="--" if name == EXACT else "-", label=name)
        column[3].hist(reference, edges, color="0.6")
        column[0].axhline(0, color="0.8", zorder=0)
        column[3].set_xlabel("reference " + LABELS[k])
    for panel, label in zip(axes[:, 0], ("bias", "sd", "rmse", "voxels"), strict=True):
        panel.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_maps(maps: dict[str, Mapping[str, torch.Tensor]], mask: np.ndarray, path: Path) -> None:
    """Figure 7 in kind: the maps of the slice with the most mask."""
    z = int(mask.sum((0, 1)).argmax())
    rows, columns = (np.flatnonzero(mask[..., z].any(axis)) for axis in (1, 0))
    crop = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), z)
    figure, axes = plt.subplots(3, len(maps), figsize=(1.9 * len(maps), 5), layout="constrained")
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
        figure.colorbar(image, ax=row, shrink=0.8).set_label(LABELS[k])
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
    estimators = estimators_of(fits, scan.y)
    maps = {name: estimate(torch.as_tensor(scan.y)) for name, estimate in estimators.items()}
    draw_maps(maps, scan.mask, args.out / "figure_7.png")
    truth = reference_of(maps["maximum_likelihood"])
    noise = fits["uniform"].sigma
    found = scores(estimators, scan.acquisition, noise, truth, args.draws)
    draw_scores(found, truth, args.out / "figure_6.png")
    told = {"voxels of the mask": len(scan.y), "of the reference": len(truth["f"]), "sigma": noise}
    told |= {"S0": float(truth["S0"].median())} | told_of(found, maps, truth)
    (args.out / "in_vivo.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
