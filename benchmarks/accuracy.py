"""Every estimator against the exact posterior: three tissue clusters, MS-DKI, held-out voxels.

Run ``python -m benchmarks.accuracy --protocol A288 --snr 10 --seeds 0 1 --recipes hierarchical vae_unig``; rows are
added to ``benchmarks/results/accuracy.json`` (a row of the same condition, recipe and seed is replaced).
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kstest

import pyroqmri as pq
from benchmarks import oracle
from benchmarks.protocols import protocol
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import cluster_classes, clusters, simulate

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
FREE_WATER = {"free_water": {"D": (3.0, 0.1), "K": (0.0, 0.1)}}


def data(name: str, snr: float, seed: int, tissues: str, n: int) -> tuple[Any, ...]:
    """Acquisition, truth, labels, measurements and the population they were drawn from."""
    acq = protocol(name)
    weights = (0.5, 0.4, 1.0) if tissues == "all" else (0.5, 0.4, 0.0)
    theta, labels = clusters(n, seed, weights=weights)
    y = simulate(MSDKI, acq, theta, snr=snr, seed=seed + 1000)
    return acq, theta, labels, y, cluster_classes(weights=weights)


def scores(truth: np.ndarray, mean: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Error of an estimate, alone and over the exact posterior mean's."""
    error = mean - truth
    rmse, best = np.sqrt(np.mean(error**2)), np.sqrt(np.mean((exact - truth) ** 2))
    r2 = 1 - np.mean(error**2) / truth.var()
    found = {"rmse": rmse, "oracle": best, "ratio": rmse / best, "bias": error.mean(), "sd": error.std(), "r2": r2}
    return {k: float(v) for k, v in found.items()}


def calibration(truth: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Coverage of central intervals, and the distance of the ranks from uniform, of draws ``(S, N)``."""
    below = (draws < truth).sum(0)
    rank = (below + rng.uniform(size=len(truth))) / (len(draws) + 1)
    found = {f"cover{p}": float((np.abs(rank - 0.5) < p / 200).mean()) for p in (50, 90)}
    return found | {"ks": float(kstest(rank, "uniform").statistic), "n": len(truth)}


def run(args: argparse.Namespace, recipe: str, seed: int, made: tuple[Any, ...], exact: Any) -> list[dict[str, Any]]:
    """Fit one recipe on the training voxels and score it on the held-out ones, by parameter and tissue."""
    acq, theta, labels, y, _ = made
    n_train = args.train
    given = FREE_WATER if args.given and recipe == "hierarchical_mixture" else None
    settings = json.loads(args.settings) if args.settings else None
    begin = time.perf_counter()
    fit = pq.fit(
        y[:n_train],
        acq,
        signal="msdki",
        recipe=recipe,
        sigma=1 / args.snr,
        s0="inferred" if args.infer_s0 else 1.0,
        seed=seed,
        given=given,
        settings=settings,
    )
    seconds = time.perf_counter() - begin
    post = fit.posterior(y[n_train:])
    draws = post.draws(999, seed=seed) if hasattr(post, "draws") else None
    rows = []
    names = {-1: "all"} | {i: name for i, name in enumerate(("white matter", "grey matter", "csf"))}
    held = np.asarray(labels)[n_train:]
    for parameter in ("D", "K"):
        truth = np.asarray(theta[parameter])[n_train:]
        for label, tissue in names.items():
            pick = (held == label) if label >= 0 else np.ones(len(held), bool)
            if pick.sum() < 20:
                continue
            row = {"protocol": args.protocol, "snr": args.snr, "tissues": args.tissues, "given": given is not None}
            row |= {"recipe": args.label or recipe, "seed": seed, "parameter": parameter, "tissue": tissue}
            row |= scores(truth[pick], post.mean[parameter].numpy()[pick], exact.mean[parameter][pick])
            if draws is not None:
                row |= calibration(truth[pick], draws[parameter].numpy()[:, pick], np.random.default_rng(seed))
            rows.append(row | {"seconds": seconds, "elbo": fit.elbo[-1] if fit.elbo else None})
    return rows


def keep(rows: list[dict[str, Any]], path: Path) -> None:
    """Add rows to the results."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    key = ("protocol", "snr", "tissues", "given", "recipe", "seed", "parameter", "tissue")
    new = {tuple(r[k] for k in key): r for r in kept + rows}
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"made": made, "rows": list(new.values())}, indent=0) + "\n")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="A288", choices=("A288", "A4"))
    parser.add_argument("--snr", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--recipes", nargs="+", default=["least_squares", "maximum_likelihood", "hierarchical", "vae_unig"]
    )
    parser.add_argument("--tissues", choices=("all", "no csf"), default="all")
    parser.add_argument("--given", action="store_true", help="free water is given to hierarchical_mixture")
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--held-out", type=int, default=2_000)
    parser.add_argument("--infer-s0", action="store_true", help="S0 is not known; dipy's fits ask for it")
    parser.add_argument("--settings", help="recipe entries to change, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--label", help="name to keep the rows under")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        made = data(args.protocol, args.snr, seed, args.tissues, args.train + args.held_out)
        acq, _, _, y, population = made
        exact = oracle.msdki(y[args.train :].numpy(), acq.bval.numpy(), 1 / args.snr, population)
        for recipe in args.recipes:
            rows = run(args, recipe, seed, made, exact)
            keep(rows, args.out)
            for r in rows:
                cover = f"90% {r['cover90']:.3f} 50% {r['cover50']:.3f} KS {r['ks']:.3f}" if "ks" in r else ""
                print(
                    f"{args.protocol} SNR {args.snr:g} {seed} {r['recipe']:20s} {r['parameter']} {r['tissue']:12s} "
                    f"rmse {r['rmse']:.4f} ratio {r['ratio']:.3f} bias {r['bias']:+.4f} {cover} {r['seconds']:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
