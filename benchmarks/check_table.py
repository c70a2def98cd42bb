"""`check` of every generative recipe on three protocols at two noise levels: which posteriors hold, and which do not.

Run ``python -m benchmarks.check_table --recipes hierarchical --s0 measured inferred``; rows are added to
``benchmarks/results/check_table.json`` (a row of the same condition is replaced). ``--write`` makes the table
of ``docs/calibration.md`` from them.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.protocols import protocol
from pyroqmri.calibration.check import Check, check, fit_protocol, recalibrate
from pyroqmri.fitting.schema import list_recipes

RESULTS = Path(__file__).parent / "results" / "check_table.json"
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
PROTOCOLS = {"msdki": ("A288", "18 b0 and 3 x 90"), "ball_stick": ("demo", "13 b0, 30 and 60"),
             "ivim": ("epstein", "ten b-values")}  # fmt: skip
KEY = ("signal", "snr", "recipe", "s0")


def brief(found: Check) -> dict[str, Any]:
    """What the table shows of a check."""
    keep = ("parameter", "group", "n", "coverage", "shift", "spread", "distance", "contraction", "exact", "faults")
    cells = [{k: cell.record()[k] for k in (*keep, "holds", "counts")} for cell in found.cells]
    return {"holds": found.holds, "verdict": found.verdict, "n_lost": found.n_lost, "cells": cells}


def run(signal: str, recipe: str, snr: float, s0: str, n_train: int, n: int) -> dict[str, Any]:
    """Fit, check on its own population and on tissue, recalibrate where the first fails."""
    name, words = PROTOCOLS[signal]
    row: dict[str, Any] = {"signal": signal, "protocol": words, "snr": snr, "recipe": recipe, "s0": s0}
    begin = time.perf_counter()
    fit = fit_protocol(protocol(name), signal=signal, recipe=recipe, snr=snr, s0=s0, n_train=n_train)
    row |= {"fit_seconds": time.perf_counter() - begin, "own": brief(check(fit, n=n))}
    row["tissue"] = brief(check(fit, n=n, truth="tissue"))
    row["check_seconds"] = time.perf_counter() - begin - row["fit_seconds"]
    if not row["own"]["holds"]:
        again = recalibrate(fit, n=2 * n)
        row["recalibrated"] = {g: brief(check(again, n=n, truth=g, seed=2)) for g in ("own", "tissue")}
    return row


def keep(row: dict[str, Any]) -> None:
    """Add a row to the results."""
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    new = {tuple(r[k] for k in KEY): r for r in [*kept, row]}
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    RESULTS.write_text(json.dumps({"made": made, "rows": list(new.values())}, indent=0) + "\n")


def outcome(found: dict[str, Any] | None) -> str:
    """A cell of the table: how the parameters over all voxels did, worst first."""
    if found is None:
        return ""
    cells = [c for c in found["cells"] if c["group"] == "all"]
    numbers = ", ".join(f"{c['parameter']} {c['coverage'][2]:.2f} {c['shift']:+.2f}" for c in cells)
    return f"{'**passes**' if found['holds'] else 'fails'}: {numbers}"


def table() -> str:
    """The rows as Markdown."""
    rows = sorted(json.loads(RESULTS.read_text())["rows"], key=lambda r: [r["signal"], r["snr"], r["s0"], r["recipe"]])
    lines = [("signal", "SNR", "S0", "recipe", "own population", "after recalibration", "tissue")]
    lines.append(tuple("---" for _ in lines[0]))
    for r in rows:
        again = r.get("recalibrated", {}).get("own")
        head = (f"`{r['signal']}`", f"{r['snr']:g}", r["s0"], f"`{r['recipe']}`")
        lines.append((*head, outcome(r["own"]), outcome(again), outcome(r["tissue"])))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print and keep."""
    known = [r.name for r in list_recipes() if r.estimator == "voxel_model"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=known)
    parser.add_argument("--signals", nargs="+", default=list(PROTOCOLS))
    parser.add_argument("--snr", type=float, nargs="+", default=[10.0, 30.0])
    parser.add_argument("--s0", nargs="+", default=["measured"])
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--voxels", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="make the table of the page, and measure nothing")
    args = parser.parse_args()
    if args.write:
        opening, closing = "<!-- check table: made by python -m benchmarks.check_table --write -->", "<!-- end -->"
        before, after = PAGE.read_text().split(opening)
        PAGE.write_text(f"{before}{opening}\n\n{table()}\n\n{closing}{after.split(closing)[1]}")
        return
    torch.set_num_threads(1)
    for recipe in args.recipes:
        for signal in args.signals:
            for snr in args.snr:
                for s0 in args.s0:
                    row = run(signal, recipe, snr, s0, args.train, args.voxels)
                    keep(row)
                    again = f"\n  recalibrated {outcome(row['recalibrated']['own'])}" if "recalibrated" in row else ""
                    print(f"{signal} {snr:g} {s0} {recipe} {row['fit_seconds']:.0f} s\n  own {outcome(row['own'])}"
                          f"{again}\n  tissue {outcome(row['tissue'])}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
