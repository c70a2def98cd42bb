"""What tables of averages hide: single points of the grid, and whether the posteriors' intervals hold.

Run ``python -m benchmarks.training_labels_points`` after the networks of ``benchmarks.training_labels`` are trained;
written to ``benchmarks/results/training_labels_points.json``. Figures 11 and 12 of Epstein et al. 2022 as numbers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyroqmri as pq
from benchmarks.protocols import EPSTEIN, protocol
from benchmarks.training_labels import truth
from pyroqmri.diagnostics.bias_variance import BiasVariance, bias_variance, grid_of
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate

RESULTS = Path(__file__).parent / "results" / "training_labels_points.json"
GT, ML = "supervised_gt", "supervised_mle_rician"


def measured(args: argparse.Namespace, name: str, seed: int) -> BiasVariance:
    """A trained network over the grid."""
    fit = pq.load_fit(args.fits / f"{name}_snr{args.snr:g}_seed{seed}")
    return bias_variance(
        lambda y: fit.posterior(y).mean, SIGNALS["ivim"], protocol("epstein"), grid_of(EPSTEIN), snr=args.snr,
        n_draws=args.draws, seed=seed,
    )  # fmt: skip


def shares(gt: BiasVariance, ml: BiasVariance) -> dict[str, Any]:
    """Of the grid: where the network on true labels has less bias, spread and error than the one on ML labels."""
    found: dict[str, Any] = {}
    for k in EPSTEIN:
        below = {s: gt.point(s, k).abs() < ml.point(s, k).abs() for s in ("bias", "sd", "rmse")}
        found[k] = {s: float(b.double().mean()) for s, b in below.items()}
    axis = gt.axes["D_slow"]
    place = [*EPSTEIN].index("D_slow")
    for i in (1, len(axis) - 2):
        # over f and D_fast, S0 averaged over, as the paper's figure 12 has it
        cells = {s: [r.point(s, "D_slow").abs().select(place, i).mean(0) for r in (gt, ml)] for s in ("bias", "rmse")}
        found[f"D_slow {float(axis[i]):.2f}"] = {s: float((a < b).double().mean()) for s, (a, b) in cells.items()}
    return found


def intervals(args: argparse.Namespace, recipe: str, seed: int) -> dict[str, float]:
    """Share of new truths of the training's range inside 90 % intervals."""
    y, theta = _drawn(args.snr, seed, 10_000)
    ranges = {f"range.{k}": list(v) for k, v in EPSTEIN.items()} if recipe == "uniform" else {}
    fit = pq.fit(
        y, protocol("epstein"), signal="ivim", recipe=recipe, sigma=1 / args.snr, s0="inferred", seed=seed,
        settings=ranges,
    )  # fmt: skip
    y, theta = _drawn(args.snr, seed + 100, 4_000)
    found = fit.posterior(y).interval(0.9)
    return {k: float(((found[k][:, 0] <= v) & (v <= found[k][:, 1])).double().mean()) for k, v in theta.items()}


def _drawn(snr: float, seed: int, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    theta = truth(seed, n)
    return simulate(SIGNALS["ivim"], protocol("epstein"), theta, snr=snr, seed=seed + 1).float(), theta


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--fits", type=Path, default=Path("out/training_labels"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in args.seeds:
        row: dict[str, Any] = {"snr": args.snr, "seed": seed, "draws": args.draws}
        row["less"] = shares(measured(args, GT, seed), measured(args, ML, seed))
        row["cover90"] = {r: intervals(args, r, seed) for r in ("uniform", "hierarchical", "maximum_likelihood")}
        rows.append(row)
        print(json.dumps(row), flush=True)
        RESULTS.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
