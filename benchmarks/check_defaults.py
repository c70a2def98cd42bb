"""`check` of `hierarchical` for every signal on its default protocol: which intervals contain the truth, and where.

    python -m benchmarks.check_defaults --signals adc wassr --snr 20 50
    python -m benchmarks.check_defaults --write

Rows go to ``benchmarks/results/check_defaults.json``, one per signal and SNR; ``--write`` makes the
table of ``docs/calibration.md`` from them. Signals without typical tissue are trained on, and checked with, voxels that
are uniform inside their bounds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from pyroqmri.calibration.check import UNMARKED, Check, check, fit_protocol
from pyroqmri.signals import SIGNALS

RESULTS = Path(__file__).parent / "results" / "check_defaults.json"
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
OPENING, CLOSING = "<!-- defaults: made by python -m benchmarks.check_defaults --write -->", "<!-- end of defaults -->"
WELL = (0.87, 0.92)  # share of truths inside 90 % intervals that needs no remark
HEADS = ("signal", "SNR", "own population", "tissue", "tissue with status fine", "share of it", "misses marked")


def covered(found: Check, group: str) -> dict[str, float]:
    """Share of truths inside 90 % intervals of each parameter in a group of voxels."""
    return {c.parameter: round(c.coverage[2], 4) for c in found.cells if c.group == group}


def run(signal: str, snr: float, n: int, seed: int, steps: int | None) -> dict[str, Any]:
    """Fit simulated tissue on the signal's default protocol, then check other voxels."""
    protocol = SIGNALS[signal].default_protocol
    assert protocol is not None, f"{signal} has no default protocol"
    begin = time.perf_counter()
    how: dict[str, Any] = {"signal": signal, "recipe": "hierarchical", "snr": snr, "n_train": n, "seed": seed}
    if SIGNALS[signal].signed:
        how["likelihood"] = "gaussian"
    fit = fit_protocol(protocol, **how, settings={} if steps is None else {"training.steps": steps})
    own, tissue = check(fit, n=n, seed=seed), check(fit, n=n, seed=seed, truth="tissue")
    return how | {
        "steps": steps,
        "s0": fit.preparation.s0, "holds": own.holds, "own": covered(own, "all"), "tissue": covered(tissue, "all"),
        "ground": tissue.simulated, "fine": covered(tissue, UNMARKED), "share": tissue.told["status_fine"],
        "weighted": bool(fit.recipe.tables.get("posterior", {}).get("reweight", False)),
        "seconds": round(time.perf_counter() - begin),
    }  # fmt: skip


def misses_marked(row: dict[str, Any]) -> dict[str, float]:
    """Of the misses beyond the tenth that is due, by parameter, the share that lies in voxels with a code."""
    found = {}
    for name, share in row["tissue"].items():
        excess = (1 - share) - 0.1
        if share < WELL[0] and row["share"] is not None:
            fine = row["fine"].get(name, share if row["share"] == 1 else 0.0)  # fewer than 200 voxels may all miss
            left = row["share"] * max(0.0, (1 - fine) - 0.1)
            found[name] = max(0.0, 1 - left / excess)
    return found


def words(shares: dict[str, float]) -> str:
    """Shares by parameter; those outside the wanted range in bold."""
    return ", ".join(
        f"{k} {v:.2f}" if WELL[0] <= round(v, 2) <= WELL[1] else f"{k} **{v:.2f}**" for k, v in shares.items()
    )


def table() -> str:
    """The rows as Markdown."""
    order = list(SIGNALS)
    rows = sorted(json.loads(RESULTS.read_text()), key=lambda r: (order.index(r["signal"]), r["snr"]))
    lines = [HEADS, tuple("---" for _ in HEADS)]
    for r in rows:
        marked = ", ".join(f"{k} {v:.0%}" for k, v in misses_marked(r).items())
        share = "" if r["share"] is None else f"{r['share']:.0%}"
        lines.append((f"`{r['signal']}`", f"{r['snr']:g}", words(r["own"]), words(r["tissue"]), words(r["fine"]), share,
                      marked))  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print and keep; or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS))
    parser.add_argument("--snr", type=float, nargs="+", default=[20.0, 50.0])
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="of the training; the recipe's when left out")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write:
        before, after = PAGE.read_text().split(OPENING)
        PAGE.write_text(f"{before}{OPENING}\n\n{table()}\n\n{CLOSING}{after.split(CLOSING)[1]}")
        return
    torch.set_num_threads(1)
    for signal in args.signals:
        for snr in args.snr:
            row = run(signal, snr, args.voxels, args.seed, args.steps)
            kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            rows = [r for r in kept if (r["signal"], r["snr"]) != (signal, snr)] + [row]
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
