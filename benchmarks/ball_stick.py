"""Ball-stick at SNR 20 with 90 directions: least squares and maximum likelihood against a learned population.

Beside them the exact posterior mean under the true population and the true noise, on some voxels of each tissue.
Run ``python -m benchmarks.ball_stick``; rows are kept in ``benchmarks/results/ball_stick.json``.
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
from benchmarks.oracle_ball_stick import ball_stick
from benchmarks.protocols import protocol
from pyroqmri.signals import BallStick
from pyroqmri.simulate import brain_phantom, simulate

RECIPES = ("least_squares", "maximum_likelihood", "hierarchical", "hierarchical_mixture", "vae_unig")
SNR = 20.0
Limit = tuple[np.ndarray, dict[str, np.ndarray]]  # voxels, and the exact posterior means there


def exact(y: torch.Tensor, phantom: Any, tissue: np.ndarray, n: int) -> Limit:
    """Exact posterior means of ``n`` voxels of white and of grey matter."""
    chosen = np.concatenate(
        [np.flatnonzero(tissue == label)[:: max(1, (tissue == label).sum() // n)] for label in (0, 1)]
    )
    acq = protocol("ball_stick_90")
    found = ball_stick(y[chosen].numpy(), acq.bval.numpy(), acq.bvec.numpy(), 1 / SNR, phantom.population)
    return chosen, found.mean


def rows_of(
    recipe: str, fit: Any, post: Any, theta: dict[str, Any], tissue: np.ndarray, limit: Limit
) -> list[dict[str, Any]]:
    """Error, alone and over the least possible, and coverage by parameter and tissue; the angle to the true axis."""
    axis = torch.nn.functional.normalize(theta["n"], dim=-1)
    cosine = (post.direction * axis).sum(-1).abs().clamp(max=1)
    angle = torch.rad2deg(torch.acos(cosine)).numpy()
    cone = (angle < post.cone(0.9).numpy()) if hasattr(post, "cone") else None
    interval = post.interval(0.9)
    rows = []
    for label, name in enumerate(("white matter", "grey matter")):
        pick = tissue == label
        row: dict[str, Any] = {"recipe": recipe, "tissue": name, "n": int(pick.sum())}
        row |= {"angle": float(np.median(angle[pick])), "sigma over true": fit.sigma * SNR}
        if cone is not None:
            row["cone90"] = float(cone[pick].mean())
        for p in ("f", "D_par", "D_iso"):
            truth, mean = theta[p].numpy()[pick], post.mean[p].numpy()[pick]
            low, high = interval[p].numpy()[pick].T
            row[f"rmse {p}"] = float(np.sqrt(np.mean((mean - truth) ** 2)))
            row[f"cover90 {p}"] = float(((truth > low) & (truth < high)).mean())
            here = tissue[limit[0]] == label
            told = limit[0][here]
            errors = [v - theta[p].numpy()[told] for v in (post.mean[p].numpy()[told], limit[1][p][here])]
            row[f"ratio {p}"] = float(np.sqrt(np.mean(errors[0] ** 2) / np.mean(errors[1] ** 2)))
            row["n oracle"] = int(here.sum())
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--oracle", type=int, default=300, help="voxels of each tissue that the oracle is run on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    phantom = brain_phantom(BallStick, (40, 48, 6), seed=args.seed)
    mask = phantom.mask
    theta, tissue = phantom.voxels(), np.asarray(phantom.labels)[np.asarray(mask)] - 1
    acq = protocol("ball_stick_90")
    y = simulate(BallStick, acq, theta, snr=SNR, seed=args.seed + 1)
    limit = exact(y, phantom, tissue, args.oracle)
    rows = []
    for recipe in RECIPES:
        begin = time.perf_counter()
        learn = recipe not in ("least_squares", "maximum_likelihood")
        settings = {"likelihood.learn": True} if learn else None
        fit = pq.fit(y, acq, signal="ball_stick", recipe=recipe, sigma=1 / SNR, s0=1.0, settings=settings)
        post = fit.posterior(y)
        found = rows_of(recipe, fit, post, theta, tissue, limit)
        seconds = time.perf_counter() - begin
        for row in found:
            row |= {"seconds": seconds, "seed": args.seed}
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        rows += found
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1, "snr": SNR, "n_voxels": len(y)}
    path = Path(__file__).parent / "results" / "ball_stick.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [r for r in kept if r.get("seed", args.seed) != args.seed] + rows
    path.write_text(json.dumps({"made": made, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
