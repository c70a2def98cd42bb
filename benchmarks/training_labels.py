"""Training labels on IVIM, after Epstein et al. 2022: bias, sd and RMSE of every estimator over a grid of truths.

Run ``python -m benchmarks.training_labels --snr 15 30 --seeds 0 1 2``; rows are added to
``benchmarks/results/training_labels.json`` (a row of the same SNR, seed and estimator is replaced).
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyroqmri as pq
from benchmarks.protocols import EPSTEIN, protocol
from pyroqmri.diagnostics.bias_variance import STATISTICS, BiasVariance, bias_variance, grid_of
from pyroqmri.diagnostics.prior_mean import prior_mean
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate

RESULTS = Path(__file__).parent / "results" / "training_labels.json"
PAGE = Path(__file__).parents[1] / "docs" / "training_labels.md"
FIRST_SNR = 30  # whose 16 networks on the truth give all others their first weights, as in the paper
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised_gt": ("supervised_gt", {}),
    "supervised_mle, rician": ("supervised_mle", {}),
    "supervised_mle, gaussian": ("supervised_mle", {"labels.likelihood": "gaussian"}),
    "supervised_hybrid": ("supervised_hybrid", {}),
    "self_supervised": ("self_supervised", {}),
}
# not in the table of all seeds: a longer training, and one parameter's weight a million times the others'
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised_mle, rician, 200 epochs": ("supervised_mle", {"training.epochs": 200}),
    **{
        f"supervised_mle, rician, {k} weighted": ("supervised_mle", {f"weights.{k}": 1e6}) for k in EPSTEIN if k != "S0"
    },
}
TRAINED = NETWORKS | VARIANTS
OTHERS = ("maximum_likelihood", "least_squares", "hierarchical", "uniform", "exact posterior mean")


def truth(seed: int, n: int) -> dict[str, Tensor]:
    """Uniform truths; the same at every SNR."""
    generator = torch.Generator().manual_seed(seed)
    return {k: lo + (hi - lo) * torch.rand(n, generator=generator) for k, (lo, hi) in EPSTEIN.items()}


def settings_of(args: argparse.Namespace, first: bool) -> dict[str, Any]:
    """Entries of every network's recipe; the sixteen starts see larger batches and fewer epochs."""
    loop = {"training.starts": 16, "training.batch_size": 1024, "training.epochs": args.start_epochs}
    chosen = loop if first else {"training.batch_size": args.batch, "training.epochs": args.epochs}
    return {f"range.{k}": list(v) for k, v in EPSTEIN.items()} | chosen


def train(args: argparse.Namespace, name: str, snr: float, seed: int, first: pq.Fit | None) -> pq.Fit:
    """One network at one SNR; from the fits folder where it lies there."""
    folder = args.fits / f"{'first' if first is None else name.replace(', ', '_')}_snr{snr:g}_seed{seed}"
    if (folder / "fit.json").is_file():
        return pq.load_fit(folder)
    acq, theta = protocol("epstein"), truth(seed, args.train)
    y = simulate(SIGNALS["ivim"], acq, theta, snr=snr, seed=seed + 1).float()
    recipe, changes = TRAINED[name]
    found = pq.fit(
        y, acq, signal="ivim", recipe=recipe, sigma=1 / snr, s0="inferred", seed=seed, truth=theta,
        settings=settings_of(args, first is None) | changes, first=first, progress=True, device="cpu",
    )  # fmt: skip
    found.save(folder)
    return found


def estimator(args: argparse.Namespace, name: str, snr: float, seed: int) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What answers each parameter of measurements, and how it was made."""
    if name in TRAINED:
        first = train(args, "supervised_gt", FIRST_SNR, seed, None)
        fit = train(args, name, snr, seed, first)
        made = {"seconds_by_stage": fit.seconds, "epochs": len(fit.trace.step), "notes": fit.warnings}
        return (lambda y: fit.posterior(y).mean), made
    if name == "exact posterior mean":
        return prior_mean(SIGNALS["ivim"], protocol("epstein"), EPSTEIN, snr=snr, n_points=2**16, seed=seed), {}
    n = 10_000
    y = simulate(SIGNALS["ivim"], protocol("epstein"), truth(seed, n), snr=snr, seed=seed + 1).float()
    ranges = {f"range.{k}": list(v) for k, v in EPSTEIN.items()} if name == "uniform" else {}
    fit = pq.fit(
        y, protocol("epstein"), signal="ivim", recipe=name, sigma=1 / snr, s0="inferred", seed=seed, settings=ranges
    )
    return (lambda y: fit.posterior(y, n_draws=64).mean), {"seconds_by_stage": fit.seconds, "trained on": n}


def row_of(name: str, snr: float, seed: int, found: BiasVariance, extra: Mapping[str, Any]) -> dict[str, Any]:
    """One estimator as plain values: overall figures and marginal curves of each parameter."""
    row: dict[str, Any] = {"snr": snr, "seed": seed, "estimator": name, "draws": found.n_draws, **extra}
    row["missing"] = found.n_missing
    for k in found.axes:
        row[k] = found.overall(k) | {f"curve_{s}": found.marginal(s, k).tolist() for s in STATISTICS}
    return row


def keep(row: dict[str, Any]) -> None:
    """Add a row to the results."""
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {(r["snr"], r["seed"], r["estimator"]): r for r in [*kept, row]}
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    grid = {k: v.tolist() for k, v in grid_of(EPSTEIN).items()}
    RESULTS.parent.mkdir(exist_ok=True)
    partial = RESULTS.with_name(f".{RESULTS.name}.{os.getpid()}")  # another process may read it now
    partial.write_text(json.dumps({"made": made, "grid": grid, "rows": list(rows.values())}, indent=0) + "\n")
    os.replace(partial, RESULTS)


def table(snr: float, parameter: str, names: Sequence[str]) -> str:
    """The kept rows of one SNR and parameter as Markdown: middle of the seeds, and their range."""
    rows = [r for r in json.loads(RESULTS.read_text())["rows"] if r["snr"] == snr and r["estimator"] in names]
    columns = ("size_of_bias", "slope", "sd", "rmse")
    lines = [["estimator", "seeds", "bias", "slope", "sd", "RMSE"], ["---"] * 6]
    for name in names:
        mine = [r[parameter] for r in rows if r["estimator"] == name]
        if mine:
            lines.append([f"`{name}`", str(len(mine)), *(_span([r[c] for r in mine]) for c in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> str:
    """Every table of the page, with a line above each."""
    units = {"f": "", "D_fast": ", um2/ms", "D_slow": ", um2/ms", "S0": ", of the scale 0.8 to 1.2"}
    names, text = (*OTHERS[:2], *NETWORKS, *OTHERS[2:]), []
    for snr in (15.0, 30.0):
        text += [f"SNR {snr:g}, {k}{unit}:\n\n{table(snr, k, names)}" for k, unit in units.items()]
    names = ("supervised_mle, rician", *VARIANTS)
    return "\n\n".join(text + [f"Variants at SNR 15, {k}{units[k]}:\n\n{table(15.0, k, names)}" for k in EPSTEIN])


def _span(values: list[float]) -> str:
    ordered = sorted(values)
    middle, low, high = (f"{v:.3g}" for v in (ordered[len(ordered) // 2], ordered[0], ordered[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, nargs="+", default=[15.0, 30.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--estimators", nargs="+", default=[*NETWORKS, *OTHERS])
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=500, help="noise draws a truth, of networks")
    parser.add_argument("--slow-draws", type=int, default=2, help="noise draws a truth, of everything else")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--start-epochs", type=int, default=60)
    parser.add_argument("--fits", type=Path, default=Path("out/training_labels"))
    parser.add_argument("--table", action="store_true", help="only print the kept results")
    parser.add_argument("--write", action="store_true", help="and put them into docs/training_labels.md")
    args = parser.parse_args()
    if args.table or args.write:
        print(tables())
        if args.write:
            before, rest = PAGE.read_text().split("<!-- tables -->")
            after = rest.split("<!-- end of tables -->")[1]
            PAGE.write_text(f"{before}<!-- tables -->\n\n{tables()}\n\n<!-- end of tables -->{after}")
        return
    torch.set_num_threads(1)
    for seed in args.seeds:
        for snr in args.snr:
            for name in args.estimators:
                begin = time.perf_counter()
                estimate, made = estimator(args, name, snr, seed)
                trained = time.perf_counter()
                found = bias_variance(
                    estimate, SIGNALS["ivim"], protocol("epstein"), grid_of(EPSTEIN), snr=snr, seed=seed,
                    n_draws=args.draws if name in TRAINED else args.slow_draws,
                )  # fmt: skip
                seconds = {"train": trained - begin, "evaluate": time.perf_counter() - trained}
                row = row_of(name, snr, seed, found, made | {"seconds": seconds})
                keep(row)
                told = (f"{k} {row[k]['bias']:+.3g} {row[k]['slope']:+.2f} {row[k]['sd']:.3g} {row[k]['rmse']:.3g}"
                        for k in EPSTEIN)  # fmt: skip
                print(f"SNR {snr:g} {seed} {name:26s} {' | '.join(told)}  {seconds}", flush=True)


if __name__ == "__main__":
    main()
