"""IVIM against the exact posterior: uniform truth under a uniform prior, clustered truth under a learned population.

The protocol and the uniform ranges are those of Epstein et al. 2022. Uniform truth has S0 among its parameters, which
is inferred; clustered truth has S0 = 1, known. Run ``python -m benchmarks.ivim --truth uniform --seeds 0 1``; rows
are added to ``benchmarks/results/ivim.json`` (a row of the same condition, recipe and seed is replaced).
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from benchmarks import oracle
from benchmarks.accuracy import calibration
from benchmarks.protocols import EPSTEIN, IVIM_CLASSES, protocol
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import signal_classes, simulate, uniform

RESULTS = Path(__file__).parent / "results" / "ivim.json"
KEY = ("truth", "recipe", "snr", "seed", "parameter")
RECIPES = {"uniform": "uniform", "clusters": "hierarchical"}


def data(truth: str, n: int, seed: int) -> tuple[dict[str, torch.Tensor], Any]:
    """Parameters of ``n`` voxels, and the population they were drawn from."""
    signal = SIGNALS["ivim"]
    if truth == "uniform":
        return uniform(signal, n, seed, EPSTEIN), EPSTEIN
    classes = signal_classes(signal, *IVIM_CLASSES)
    return classes.sample(n, seed)[0], classes


def ratios(truth: np.ndarray, mean: np.ndarray, exact: np.ndarray | None) -> dict[str, Any]:
    """Error of an estimate; over the exact posterior mean's, on the voxels that have one."""
    error = mean - truth
    found: dict[str, Any] = {"rmse": float(np.sqrt(np.mean(error**2))), "bias": float(error.mean())}
    if exact is None or len(exact) == 0:
        return found | {"oracle": None, "ratio": None, "n_oracle": 0}
    n = len(exact)
    best = float(np.sqrt(np.mean((exact - truth[:n]) ** 2)))
    return found | {"oracle": best, "ratio": float(np.sqrt(np.mean(error[:n] ** 2))) / best, "n_oracle": n}


def run(args: argparse.Namespace, snr: float, seed: int, exact: Any, theta: Any, y: torch.Tensor) -> list[dict]:
    """Fit the recipe on the training voxels and score it on the held-out ones, by parameter."""
    recipe = RECIPES[args.truth] if args.recipe is None else args.recipe
    settings = json.loads(args.settings) if args.settings else {}
    if args.truth == "uniform":
        settings |= {f"range.{name}": list(pair) for name, pair in EPSTEIN.items()}
    s0 = "inferred" if args.truth == "uniform" else 1.0
    n, begin = args.train, time.perf_counter()
    acq = protocol("epstein")
    fit = pq.fit(y[:n], acq, signal="ivim", recipe=recipe, sigma=1 / snr, s0=s0, seed=seed, settings=settings)
    trained = time.perf_counter()
    post = fit.posterior(y[n:])
    means, interval = post.mean, {p: post.interval(p) for p in (0.5, 0.9)}
    told = time.perf_counter()
    draws = post.draws(999, seed=seed)
    khat = float((post.khat > 0.7).float().mean())
    rows = []
    for name in means:
        truth = theta[name][n:].numpy()
        row: dict[str, Any] = {"truth": args.truth, "recipe": args.label or recipe, "snr": snr, "seed": seed}
        row |= {
            "parameter": name,
            "khat above .7": khat,
            "seconds fit": trained - begin,
            "seconds told": told - trained,
        }
        row |= ratios(truth, means[name].numpy(), None if exact is None else exact.mean[name])
        row |= calibration(truth, draws[name].numpy(), np.random.default_rng(seed))
        for p, ends in interval.items():
            low, high = ends[name].numpy().T
            row[f"interval{int(100 * p)}"] = float(((truth > low) & (truth < high)).mean())
        rows.append(row)
    return rows


def keep(rows: list[dict[str, Any]]) -> None:
    """Add rows to the results; figures of an oracle that was not run again stay."""
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    new = {tuple(r[k] for k in KEY): r for r in kept + rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"made": made, "rows": list(new.values())}, indent=0) + "\n")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth", choices=RECIPES, default="uniform")
    parser.add_argument("--recipe", help="instead of uniform for uniform truth, hierarchical for clustered truth")
    parser.add_argument("--snr", type=float, nargs="+", default=[15.0, 30.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--held-out", type=int, default=2_000)
    parser.add_argument("--oracle", type=int, default=500, help="held-out voxels that the oracle is run on")
    parser.add_argument("--settings", help="recipe entries to change, as JSON")
    parser.add_argument("--label", help="name to keep the rows under")
    args = parser.parse_args()
    torch.set_num_threads(1)
    acq = protocol("epstein")
    for snr in args.snr:
        for seed in args.seeds:
            theta, population = data(args.truth, args.train + args.held_out, seed)
            y = simulate(SIGNALS["ivim"], acq, theta, snr=snr, seed=seed + 1000)
            some = y[args.train : args.train + args.oracle].double().numpy()
            bval, nodes = acq.bval.double().numpy(), (8,) * (4 if args.truth == "uniform" else 3)
            exact = oracle.ivim(some, bval, 1 / snr, population, nodes=nodes, tolerance=5e-2) if len(some) else None
            rows = run(args, snr, seed, exact, theta, y)
            keep(rows)
            for r in rows:
                ratio = "" if r["ratio"] is None else f"ratio {r['ratio']:.3f}"
                print(
                    f"{r['truth']} {r['recipe']} SNR {snr:g} {seed} {r['parameter']:7s} rmse {r['rmse']:.4f} {ratio} "
                    f"90% {r['interval90']:.3f} 50% {r['interval50']:.3f} KS {r['ks']:.3f} "
                    f"k-hat > .7 {r['khat above .7']:.3f} {r['seconds fit']:.0f} + {r['seconds told']:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
