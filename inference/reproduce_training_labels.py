"""Figures 2-4 and 8-12 of Epstein et al. 2022, Choice of training label matters (arXiv:2205.05587), in kind.

Run ``python inference/reproduce_training_labels.py --out out/labels``. Networks are kept in OUT/fits and not trained
again. Exact posterior means and this package's posteriors under the same prior stand beside the paper's
estimators. ``--voxels 5000 --draws 5 --epochs 10`` is a quick look; benchmarks/training_labels.py makes the table.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.diagnostics.bias_variance import STATISTICS, BiasVariance, bias_variance, grid_of
from pyroqmri.diagnostics.exact import prior_mean
from pyroqmri.signals import IVIM
from pyroqmri.simulate import simulate

RANGES = {"S0": (0.8, 1.2), "f": (0.1, 0.5), "D_fast": (10.0, 150.0), "D_slow": (0.4, 3.0)}
LABELS = {"S0": "$S_0$", "f": "$f$", "D_fast": "$D_{fast}$ (um2/ms)", "D_slow": "$D_{slow}$ (um2/ms)"}
ACQ = pq.Acquisition(bval=np.array([0, 10, 20, 30, 50, 80, 100, 200, 400, 800]) / 1000)
GT, ML, GAUSS, HYBRID, SELF = (
    "supervised_gt", "supervised_mle, rician", "supervised_mle, gaussian", "supervised_hybrid", "self_supervised"
)  # fmt: skip
NETWORKS = {
    GT: {}, ML: {}, GAUSS: {"labels.likelihood": "gaussian"}, HYBRID: {}, SELF: {},
    **{f"{ML}, {k} weighted": {f"weights.{k}": 1e6} for k in ("f", "D_fast", "D_slow")},
}  # fmt: skip
STYLE = {
    "maximum_likelihood": ("k", "-"), "least_squares": ("k", ":"), GT: ("tab:blue", "-"), ML: ("tab:red", "-"),
    GAUSS: ("tab:red", ":"), SELF: ("tab:red", "--"), HYBRID: ("tab:purple", "-"),
    "uniform": ("tab:green", "-"), "hierarchical": ("tab:olive", "-"), "exact posterior mean": ("0.5", "--"),
}  # fmt: skip


def measured(args: argparse.Namespace, snr: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The training voxels and their truth, the same truth at every SNR."""
    generator = torch.Generator().manual_seed(args.seed)
    theta = {k: lo + (hi - lo) * torch.rand(args.voxels, generator=generator) for k, (lo, hi) in RANGES.items()}
    return simulate(IVIM, ACQ, theta, snr=snr, seed=args.seed + 1).float(), theta


def network(args: argparse.Namespace, name: str, snr: float) -> pq.Fit:
    """A trained network: the best of 16 on the truth at SNR 30, then the labels of ``name``."""
    folder = args.fits / f"{name.replace(', ', '_')}_snr{snr:g}_seed{args.seed}"
    if (folder / "fit.json").is_file():
        return pq.load_fit(folder)
    y, theta = measured(args, 30 if name == "first" else snr)
    changes = {"training.batch_size": 512, "training.epochs": args.epochs, **NETWORKS.get(name, {})}
    if name == "first":
        changes = {"training.starts": args.starts, "training.batch_size": 1024, "training.epochs": args.epochs}
    found = pq.fit(
        y, ACQ, signal="ivim", recipe=GT if name == "first" else name.split(",")[0], sigma=1 / snr, s0="inferred",
        truth=theta, seed=args.seed, settings=changes, progress=True,
        first=None if name == "first" else network(args, "first", 30),
    )  # fmt: skip
    found.save(folder)
    return found


def evaluate(args: argparse.Namespace, name: str, snr: float) -> BiasVariance:
    """Bias, sd and RMSE of one estimator over the grid."""
    draws = args.slow_draws
    if name == "exact posterior mean":
        estimate = prior_mean(IVIM, ACQ, RANGES, snr=snr, n_points=args.points)
    elif name in NETWORKS:
        fit, draws = network(args, name, snr), args.draws
        estimate = lambda y: fit.posterior(y).mean  # noqa: E731
    else:
        y = measured(args, snr)[0][:10_000]
        changes = {f"range.{k}": list(v) for k, v in RANGES.items()} if name == "uniform" else {}
        fit = pq.fit(y, ACQ, signal="ivim", recipe=name, sigma=1 / snr, s0="inferred", settings=changes, seed=args.seed)
        estimate = lambda y: fit.posterior(y, n_draws=64).mean  # noqa: E731
    print("evaluating", name, "at SNR", snr, flush=True)
    axes = grid_of(RANGES, args.grid)
    return bias_variance(estimate, IVIM, ACQ, axes, snr=snr, n_draws=draws, seed=args.seed)


def curves(found: dict[str, BiasVariance], title: str, path: Path) -> None:
    """Figures 2, 3, 8 and 10: bias, sd and RMSE along each parameter, the others averaged over."""
    figure, axes = plt.subplots(3, len(RANGES), figsize=(3.4 * len(RANGES), 8), layout="constrained", sharex="col")
    for row, statistic in zip(axes, STATISTICS, strict=True):
        for panel, k in zip(row, RANGES, strict=True):
            for i, (name, result) in enumerate(found.items()):
                colour, line = STYLE.get(name, (f"C{i}", "-."))
                panel.plot(result.axes[k], result.marginal(statistic, k), line, color=colour, label=name)
            if statistic == "bias":
                panel.axhline(0, color="0.8", zorder=0)
        row[0].set_ylabel(statistic)
    for panel, k in zip(axes[-1], RANGES, strict=True):
        panel.set_xlabel(LABELS[k])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def arrows(found: dict[str, BiasVariance], names: tuple[str, ...], title: str, path: Path) -> None:
    """Figures 4 and 9: where each true value goes on average; arrows that crowd have lost information."""
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 4.2), layout="constrained", squeeze=False)
    for panel, k in zip(axes[0], names, strict=True):
        for i, (name, result) in enumerate(found.items()):
            colour = STYLE[name][0]
            for start, end in zip(result.axes[k].tolist(), result.mapping(k).tolist(), strict=True):
                panel.annotate("", (i + 0.35, end), (i - 0.35, start), arrowprops={"arrowstyle": "->", "color": colour})
        panel.set(xlim=(-0.5, len(found) - 0.5), title=LABELS[k])
        panel.set_xticks(range(len(found)), [n.replace(" ", "\n").replace("_", "\n") for n in found], fontsize=8)
        low, high = RANGES[k]
        panel.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes[0, 0].set_ylabel("true value to mean estimate")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def densities(one: BiasVariance, other: BiasVariance, title: str, path: Path) -> None:
    """Figure 11: every point of the grid, one network against the other."""
    figure, axes = plt.subplots(3, len(RANGES), figsize=(3.2 * len(RANGES), 8.6), layout="constrained")
    for row, statistic in zip(axes, STATISTICS, strict=True):
        for panel, k in zip(row, RANGES, strict=True):
            x, y = (r.point(statistic, k).flatten().numpy() for r in (one, other))
            panel.hexbin(x, y, gridsize=40, cmap="magma_r", mincnt=1, bins="log")
            panel.axline((0, 0), slope=1, color="0.4", lw=0.8)
            panel.set_title(f"{statistic} of {LABELS[k]}", fontsize=9)
    figure.supxlabel(ML)
    figure.supylabel(GT)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def differences(ml: BiasVariance, gt: BiasVariance, title: str, path: Path) -> None:
    """Figure 12: what the choice of network changes in D_slow over f and D_fast, at a low and a high D_slow."""
    names = [*RANGES]
    order = [names.index(k) for k in ("D_slow", "S0", "f", "D_fast")]
    values = gt.axes["D_slow"]
    picks = [1, len(values) - 2]
    figure, axes = plt.subplots(3, 2, figsize=(8, 9), layout="constrained")
    for row, statistic in zip(axes, STATISTICS, strict=True):
        a, b = (abs(r.point(statistic, "D_slow")).permute(order) for r in (gt, ml))
        change = (a - b).mean(1)
        for panel, i in zip(row, picks, strict=True):
            reach = float(change[picks].abs().max())
            (f_low, f_high), (d_low, d_high) = RANGES["f"], RANGES["D_fast"]
            image = panel.imshow(
                change[i], origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto",
                extent=(d_low, d_high, f_low, f_high),
            )  # fmt: skip
            size = "size of the bias" if statistic == "bias" else statistic
            panel.set_title(f"{size}, $D_{{slow}}$ = {float(values[i]):.2f}", fontsize=9)
            panel.set(xlabel=LABELS["D_fast"], ylabel=LABELS["f"])
        figure.colorbar(image, ax=row)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train what is missing, evaluate, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/training_labels"))
    parser.add_argument("--fits", type=Path, help="folder of trained networks; OUT/fits by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--grid", type=int, default=10)
    parser.add_argument("--draws", type=int, default=100, help="noise draws a truth of networks; the paper has 500")
    parser.add_argument("--slow-draws", type=int, default=2, help="of everything else")
    parser.add_argument("--points", type=int, default=2**13, help="of the prior, for the exact posterior mean")
    parser.add_argument("--snr", type=float, nargs="+", default=[15.0, 30.0], help="15 makes all figures but 3")
    args = parser.parse_args()
    args.fits = args.out / "fits" if args.fits is None else args.fits
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    beside = ("exact posterior mean", "uniform", "hierarchical")
    for snr in args.snr:
        found = {k: evaluate(args, k, snr) for k in ("maximum_likelihood", ML, GAUSS, SELF, GT, *beside)}
        curves(found, f"SNR {snr:g}, seed {args.seed}", args.out / f"figure_{2 if snr < 20 else 3}.png")
        if snr >= 20:
            continue
        pick = {k: found[k] for k in (GT, "maximum_likelihood", "exact posterior mean", "uniform")}
        arrows(pick, tuple(RANGES), "Information compression, SNR 15", args.out / "figure_4.png")
        pick = {k: found[k] for k in (ML, GAUSS, "exact posterior mean", "uniform")}
        arrows(pick, ("D_slow",), "The noise model of the labels, SNR 15", args.out / "figure_9.png")
        weighted = {k: evaluate(args, k, snr) for k in NETWORKS if k.endswith("weighted")}
        pick = {k: found[k] for k in (ML, "exact posterior mean", "uniform")} | weighted
        curves(pick, "One parameter's weight a million times the others', SNR 15", args.out / "figure_8.png")
        pick = {k: found[k] for k in (ML, GT, "exact posterior mean", "uniform")} | {
            HYBRID: evaluate(args, HYBRID, snr)
        }
        curves(pick, "Hybrid labels, alpha 0.5, SNR 15", args.out / "figure_10.png")
        densities(found[ML], found[GT], "Every point of the grid, SNR 15", args.out / "figure_11.png")
        title = f"{GT} less {ML}, SNR 15; red: {GT} is worse"
        differences(found[ML], found[GT], title, args.out / "figure_12.png")


if __name__ == "__main__":
    main()
