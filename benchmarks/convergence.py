"""Whether the recipes' trainings have converged: what their own judgement says, and what three times the steps gain.

Run ``python -m benchmarks.convergence``, or with some ``RECIPE,SIGNAL,VOXELS,SNR,FACTOR``, the last of which multiplies
the recipe's steps; kept in ``benchmarks/results/convergence.json``. ``late_fall`` and ``error`` are what
``Trace.late_fall`` found in the training's own looks; ``loss`` is that of 4,000 other voxels of the same tissue, in 16
groups with the same noise whatever the training, so that two trainings are compared group by group.
"""

import copy
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import pyroqmri as pq
from benchmarks.protocols import protocol
from pyroqmri.fitting.schema import plan_recipe
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import CLASSES, TISSUE, simulate
from pyroqmri.simulate.populations import gaussian_classes
from pyroqmri.svi import SVILoop, Training, seeded

RESULTS = Path(__file__).parent / "results" / "convergence.json"
PROTOCOLS = {"msdki": "A288", "ball_stick": "demo", "ivim": "epstein"}
GENERATIVE = ("hierarchical", "hierarchical_mixture", "vae_unig", "vae_gmm", "vae_gmm_relaxed", "uniform")
CASES = (
    *(f"hierarchical,msdki,{n},20,{k}" for n in (1000, 10_000, 50_000) for k in (1, 3)),
    *(f"{recipe},ivim,2000,20,1" for recipe in GENERATIVE),
    *(f"{recipe},ball_stick,1000,{snr},1" for recipe, snr in (("hierarchical", 30), ("uniform", 10), ("vae_unig", 20))),
    *(f"{recipe},msdki,5000,20,{k}" for recipe in GENERATIVE[1:] for k in (1, 3)),
    *(f"hierarchical,msdki,1000,20,{k}" for k in (0.01, 0.0667, 0.2)),  # 3, 20 and 60 steps
)
N_OTHER, N_GROUPS = 4000, 16


def measurements(signal: str, n: int, snr: float, seed: int) -> tuple[torch.Tensor, pq.Acquisition]:
    """Rician measurements of three tissues."""
    model, acq = SIGNALS[signal], protocol(PROTOCOLS[signal])
    table = TISSUE[model.__name__]
    means, sds = ([{k: v[c][j] for k, v in table.items()} for c in range(len(CLASSES))] for j in (0, 1))
    theta, _ = gaussian_classes(model, n, means, sds, (1, 1, 1), seed)
    return simulate(model, acq, theta, snr=snr, seed=seed + 1), acq


def run(recipe: str, signal: str, n: int, snr: float, factor: float) -> dict[str, Any]:
    """One training and its judgement."""
    y, acq = measurements(signal, n, snr, 0)
    steps = round(factor * plan_recipe(recipe).table("training")["steps"])
    begin = time.process_time()
    fit = pq.fit(y, acq, signal=signal, recipe=recipe, sigma=1 / snr, settings={"training.steps": steps})
    seconds = time.process_time() - begin
    fall, error = fit.trace.late_fall()
    other, _ = measurements(signal, N_OTHER, snr, 777)
    assert fit.model is not None
    assert fit.guide is not None
    voxels = fit.guide.prepare(fit.preparation(other, torch.tensor(1 / snr), acq).voxels)
    with seeded(1, voxels.y):
        # simulations, where a guide learns from its own; making them would standardise its features anew
        voxels = copy.deepcopy(fit.guide).training_set(voxels)[:N_OTHER]
    loop = SVILoop(fit.model, fit.guide, voxels, Training(held_out=0), 0)
    return {
        "recipe": recipe, "signal": signal, "voxels": n, "snr": snr, "steps": steps, "cpu_seconds": round(seconds),
        "late_fall": None if fall != fall else round(fall, 4), "error": None if fall != fall else round(error, 4),
        "warns": bool(fit.trace.not_converged), "loss": loop.losses(voxels, N_GROUPS),
    }  # fmt: skip


def gain(short: dict[str, Any], long: dict[str, Any]) -> tuple[float, float]:
    """How much lower the loss of a longer training is, nats a voxel, and its standard error."""
    falls = [a - b for a, b in zip(short["loss"], long["loss"], strict=True)]
    return statistics.fmean(falls), statistics.stdev(falls) / len(falls) ** 0.5


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    key = ("recipe", "signal", "voxels", "snr", "steps")
    for case in sys.argv[1:] or CASES:
        recipe, signal, n, snr, factor = case.split(",")
        row = run(recipe, signal, int(n), float(snr), float(factor))
        kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
        same = [r for r in kept if all(r[k] == row[k] for k in key[:-1]) and r["steps"] < row["steps"] and r["loss"]]
        if same:
            row["gain_over"] = {str(r["steps"]): [round(x, 4) for x in gain(r, row)] for r in same}
        rows = {tuple(r[k] for k in key): r for r in [*kept, row]}
        made = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
        RESULTS.write_text(json.dumps({"made": made, "rows": list(rows.values())}, indent=1) + "\n")
        print(json.dumps({k: v for k, v in row.items() if k != "loss"}), flush=True)


if __name__ == "__main__":
    main()
