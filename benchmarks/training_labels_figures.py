"""Figures of the page on training labels, from the kept rows: middle of the seeds, and their range as a band.

Run ``python -m benchmarks.training_labels_figures``; written to ``docs/figures``.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.training_labels import RESULTS

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
UNIT = " (\u00b5m\u00b2/ms)"
LABELS = {"S0": "$S_0$", "f": "$f$", "D_fast": "$D_{fast}$" + UNIT, "D_slow": "$D_{slow}$" + UNIT}
STYLE = {
    "maximum_likelihood": ("k", "-"), "supervised_mle, rician": ("tab:red", "-"),
    "supervised_mle, gaussian": ("tab:red", ":"), "self_supervised": ("tab:orange", "--"),
    "supervised_hybrid": ("tab:purple", "-"), "supervised_gt": ("tab:blue", "-"),
    "exact posterior mean": ("0.5", "--"), "uniform": ("tab:green", "-"), "hierarchical": ("tab:olive", "-"),
}  # fmt: skip
ARROWS = ("maximum_likelihood", "supervised_mle, rician", "supervised_mle, gaussian", "supervised_gt",
          "exact posterior mean", "uniform", "hierarchical")  # fmt: skip


def of_seeds(rows: list[dict[str, Any]], snr: float, name: str, parameter: str, curve: str) -> np.ndarray:
    """Smallest, middle and largest of the seeds' curves ``(3, G)``."""
    curves = [r[parameter][f"curve_{curve}"] for r in rows if r["snr"] == snr and r["estimator"] == name]
    return np.quantile(curves, (0, 0.5, 1), axis=0)


def curves(kept: dict[str, Any], snr: float, path: Path) -> None:
    """Bias, sd and RMSE along each parameter, the others averaged over."""
    figure, axes = plt.subplots(3, len(LABELS), figsize=(13, 8), layout="constrained", sharex="col")
    for row, statistic in zip(axes, ("bias", "sd", "rmse"), strict=True):
        for panel, k in zip(row, LABELS, strict=True):
            for name, (colour, line) in STYLE.items():
                low, middle, high = of_seeds(kept["rows"], snr, name, k, statistic)
                panel.plot(kept["grid"][k], middle, line, color=colour, lw=1.3, label=name)
                panel.fill_between(kept["grid"][k], low, high, color=colour, alpha=0.15, lw=0)
            if statistic == "bias":
                panel.axhline(0, color="0.8", zorder=0)
                panel.set_title(LABELS[k], fontsize=10)
        row[0].set_ylabel("RMSE" if statistic == "rmse" else statistic)
    for panel, k in zip(axes[-1], LABELS, strict=True):
        panel.set_xlabel("true " + LABELS[k])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    finish(figure, path)


def arrows(kept: dict[str, Any], snr: float, path: Path) -> None:
    """Where each true value goes on average; arrows that crowd have lost information."""
    names = ("f", "D_fast", "D_slow")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    for panel, k in zip(axes, names, strict=True):
        grid = np.array(kept["grid"][k])
        for i, name in enumerate(ARROWS):
            colour, line = STYLE[name]
            for start, end in zip(grid, grid + of_seeds(kept["rows"], snr, name, k, "bias")[1], strict=True):
                arrow = {"arrowstyle": "->", "color": colour, "linestyle": line}
                panel.annotate("", (i + 0.4, end), (i - 0.4, start), arrowprops=arrow)
        margin = 0.08 * (grid[-1] - grid[0])
        panel.set(xlim=(-0.6, len(ARROWS) - 0.4), ylim=(grid[0] - margin, grid[-1] + margin), title=LABELS[k])
        panel.set_xticks(range(len(ARROWS)), [n.replace(" ", "\n").replace("_", "\n") for n in ARROWS], fontsize=7)
    axes[0].set_ylabel("from true value to mean estimate")
    finish(figure, path)


def finish(figure: Figure, path: Path) -> None:
    """Write a figure in few colours, which is half the bytes."""
    figure.savefig(path, dpi=80)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(255).save(path, optimize=True)


def main() -> None:
    """Draw."""
    kept = json.loads(RESULTS.read_text())
    for snr in (15, 30):
        curves(kept, snr, FIGURES / f"training_labels_snr{snr}.png")
    arrows(kept, 15, FIGURES / "training_labels_arrows.png")


if __name__ == "__main__":
    main()
