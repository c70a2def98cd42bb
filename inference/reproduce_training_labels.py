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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import gaussian_filter

import pyroqmri as pq
from pyroqmri.diagnostics.bias_variance import STATISTICS, BiasVariance, bias_variance, grid_of
from pyroqmri.diagnostics.prior_mean import prior_mean
from pyroqmri.signals import IVIM
from pyroqmri.simulate import simulate

RANGES = {"S0": (0.8, 1.2), "f": (0.1, 0.5), "D_fast": (10.0, 150.0), "D_slow": (0.4, 3.0)}
UNIT = " (\u00b5m\u00b2/ms)"
LABELS = {"S0": "$S_0$", "f": "$f$", "D_fast": "$D_{fast}$" + UNIT, "D_slow": "$D_{slow}$" + UNIT}
ACQ = pq.Acquisition(bval=np.array([0, 10, 20, 30, 50, 80, 100, 200, 400, 800]) / 1000)
GT, ML, GAUSS, HYBRID, SELF = (
    "supervised_gt", "supervised_mle, rician", "supervised_mle, gaussian", "supervised_hybrid", "self_supervised"
)  # fmt: skip
NETWORKS = {
    GT: {}, ML: {}, GAUSS: {"labels.likelihood": "gaussian"}, HYBRID: {}, SELF: {},
    **{f"{ML}, {k} weighted": {f"weights.{k}": 1e6} for k in ("f", "D_fast", "D_slow")},
}  # fmt: skip
BESIDE = ("exact posterior mean", "uniform", "hierarchical")  # stand in every figure
STYLE = {
    "maximum_likelihood": ("k", "-"), "least_squares": ("k", ":"), GT: ("tab:blue", "-"), ML: ("tab:red", "-"),
    GAUSS: ("tab:red", ":"), SELF: ("tab:red", "--"), HYBRID: ("tab:purple", "-"),
    "uniform": ("tab:green", "-"), "hierarchical": ("tab:olive", "-"), "exact posterior mean": ("0.5", "--"),
    f"{ML}, f weighted": ("tab:orange", "-."), f"{ML}, D_fast weighted": ("tab:brown", "-."),
    f"{ML}, D_slow weighted": ("tab:pink", "-."),
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
            for name, result in found.items():
                colour, line = STYLE[name]
                panel.plot(result.axes[k], result.marginal(statistic, k), line, color=colour, label=name)
            if statistic == "bias":
                panel.axhline(0, color="0.8", zorder=0)
                panel.set_title(LABELS[k], fontsize=10)
        row[0].set_ylabel(f"{statistic}, in the parameter's unit")
    for panel, k in zip(axes[-1], RANGES, strict=True):
        panel.set_xlabel("true " + LABELS[k])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(found)), frameon=False)
    figure.suptitle(title)
    finish(figure, path)


def arrows(found: dict[str, BiasVariance], names: tuple[str, ...], title: str, path: Path) -> None:
    """Figures 4 and 9: where each true value goes on average; arrows that crowd have lost information."""
    width = 0.75 * len(found) + 0.6
    figure, axes = plt.subplots(1, len(names), figsize=(width * len(names), 4.2), layout="constrained", squeeze=False)
    for panel, k in zip(axes[0], names, strict=True):
        for i, (name, result) in enumerate(found.items()):
            colour = STYLE[name][0]
            for start, end in zip(result.axes[k].tolist(), result.mapping(k).tolist(), strict=True):
                arrow = {"arrowstyle": "->", "color": colour, "linestyle": STYLE[name][1]}
                panel.annotate("", (i + 0.4, end), (i - 0.4, start), arrowprops=arrow)
        panel.set(xlim=(-0.5, len(found) - 0.5), title=LABELS[k])
        panel.set_xticks(range(len(found)), [n.replace(" ", "\n").replace("_", "\n") for n in found], fontsize=7)
        low, high = RANGES[k]
        panel.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes[0, 0].set_ylabel("from true value to mean estimate")
    figure.suptitle(title)
    finish(figure, path)


def points(ml: BiasVariance, others: dict[str, BiasVariance], title: str, path: Path) -> None:
    """Figure 11: every point of the grid, not averaged over; the labels' network against every other estimator."""
    figure, axes = plt.subplots(3, len(RANGES), figsize=(3.2 * len(RANGES), 9), layout="constrained")
    for row, statistic in zip(axes, STATISTICS, strict=True):
        for panel, k in zip(row, RANGES, strict=True):
            x = ml.point(statistic, k).flatten().numpy()
            for name, other in others.items():
                outline(panel, x, other.point(statistic, k).flatten().numpy(), STYLE[name][0])
            panel.axline((x.mean(), x.mean()), slope=1, color="0.8", lw=0.8, zorder=0)
            panel.set_title(f"{statistic} of {LABELS[k]}", fontsize=9)
        row[0].set_ylabel("of the other estimator")
    for panel in axes[-1]:
        panel.set_xlabel(f"of {ML}", fontsize=9)
    handles = [Line2D([], [], color=STYLE[name][0], label=name) for name in others]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    finish(figure, path)


def outline(panel: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """Lines around the densest 50 and 90 % of points."""
    density, *edges = np.histogram2d(x, y, bins=60)
    density = gaussian_filter(np.pad(density, 6), 2.5)
    middles = [e[0] + (e[1] - e[0]) * (np.arange(72) - 5.5) for e in edges]
    order = np.sort(density.flatten())[::-1]
    mass = np.cumsum(order) / order.sum()
    levels = [order[np.searchsorted(mass, share)] for share in (0.9, 0.5)]
    panel.contour(*middles, density.T, levels=levels, colors=colour, linewidths=(0.8, 1.6))


def differences(ml: BiasVariance, others: dict[str, BiasVariance], title: str, path: Path) -> None:
    """Figure 12: D_slow over f and D_fast, at a low and a high D_slow: every estimator less the labels' network."""
    values = ml.axes["D_slow"]
    picks = [1, len(values) - 2]
    columns = [(name, i) for name in others for i in picks]
    figure, axes = plt.subplots(3, len(columns), figsize=(2.1 * len(columns), 7.2), layout="constrained", sharey=True)
    (f_low, f_high), (d_low, d_high) = RANGES["f"], RANGES["D_fast"]
    for row, statistic in zip(axes, STATISTICS, strict=True):
        change = {name: _over_f_and_d_fast(other, ml, statistic) for name, other in others.items()}
        reach = max(float(c[picks].abs().max()) for c in change.values())
        for panel, (name, i) in zip(row, columns, strict=True):
            image = panel.imshow(
                change[name][i], origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto",
                extent=(d_low, d_high, f_low, f_high),
            )  # fmt: skip
            if statistic == STATISTICS[0]:
                panel.set_title(f"{name}\n$D_{{slow}}$ = {float(values[i]):.2f}", fontsize=8)
        size = "size of the bias" if statistic == "bias" else statistic
        row[0].set_ylabel(LABELS["f"])
        figure.colorbar(image, ax=row).set_label(f"change of the {size}{UNIT}", fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel(LABELS["D_fast"], fontsize=8)
    figure.suptitle(title)
    finish(figure, path)


def _over_f_and_d_fast(one: BiasVariance, other: BiasVariance, statistic: str) -> torch.Tensor:
    """Statistic of D_slow of one less the other's, S0 averaged over, by D_slow, f and D_fast ``(G, G, G)``."""
    order = [[*RANGES].index(k) for k in ("S0", "D_slow", "f", "D_fast")]
    a, b = (r.point(statistic, "D_slow").abs().permute(order).mean(0) for r in (one, other))
    return a - b


def finish(figure: Figure, path: Path) -> None:
    """Write a figure, and let go of it."""
    figure.savefig(path, dpi=100)
    plt.close(figure)


def low_snr(args: argparse.Namespace, found: dict[str, BiasVariance], snr: float) -> None:
    """Figures 4 and 8 to 12."""
    pick = {k: found[k] for k in (GT, "maximum_likelihood", *BESIDE)}
    arrows(pick, tuple(RANGES), f"Information compression, SNR {snr:g}", args.out / "figure_4.png")
    pick = {k: found[k] for k in (ML, GAUSS, *BESIDE)}
    arrows(pick, ("D_slow",), f"The noise model of the labels, SNR {snr:g}", args.out / "figure_9.png")
    beside = {k: found[k] for k in BESIDE}
    weighted = {k: evaluate(args, k, snr) for k in NETWORKS if k.endswith("weighted")}
    title = f"One parameter's weight a million times the others', SNR {snr:g}"
    curves({ML: found[ML]} | weighted | beside, title, args.out / "figure_8.png")
    pick = {ML: found[ML], HYBRID: evaluate(args, HYBRID, snr), GT: found[GT]} | beside
    curves(pick, f"Hybrid labels, alpha 0.5, SNR {snr:g}", args.out / "figure_10.png")
    others = {GT: found[GT]} | beside
    few = f"{args.slow_draws} noise draws a point widen the lines of {', '.join(BESIDE)}"
    title = f"Points of the grid, SNR {snr:g}: lines around 50 and 90 % of them\n({few})"
    points(found[ML], others, title, args.out / "figure_11.png")
    title = f"$D_{{slow}}$: every estimator less {ML}, SNR {snr:g}; red: it is worse"
    differences(found[ML], others, title, args.out / "figure_12.png")


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
    parser.add_argument("--points", type=int, default=2**15, help="of the prior, for the exact posterior mean")
    parser.add_argument("--snr", type=float, nargs="+", default=[15.0, 30.0], help="15 makes all figures but 3")
    args = parser.parse_args()
    args.fits = args.out / "fits" if args.fits is None else args.fits
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for snr in args.snr:
        found = {k: evaluate(args, k, snr) for k in ("maximum_likelihood", ML, GAUSS, SELF, GT, *BESIDE)}
        curves(found, f"SNR {snr:g}, seed {args.seed}", args.out / f"figure_{2 if snr < 20 else 3}.png")
        if snr < 20:
            low_snr(args, found, snr)


if __name__ == "__main__":
    main()
