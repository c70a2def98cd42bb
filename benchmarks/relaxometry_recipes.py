"""Does a VAE help on T1, T2 and CEST? Every recipe on the same simulated voxels, against the best that there is.

    python -m benchmarks.relaxometry_recipes --signals t2_decay --seeds 0 1
    python -m benchmarks.relaxometry_recipes --write

Voxels are white matter, grey matter and fluid (``typical_tissue``; 45, 40 and 15 of 100), S0 is 1000 with an sd of
10 %, noise is Rician of known level 1000 / SNR, protocols are the default ones, and the equations are written once more
in numpy. The oracle is the posterior mean under the distribution that the voxels were drawn from, by 10,000 draws of it
that are weighed by the likelihood; a Z-spectrum has too many parameters for that and no oracle. Rows are kept in
``benchmarks/results/relaxometry_recipes.json``; ``--write`` makes the table of ``docs/relaxometry.md`` from them.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import i0e

import pyroqmri as pq
from pyroqmri.signals import SIGNALS

RESULTS = Path(__file__).parent / "results" / "relaxometry_recipes.json"
PAGE = Path(__file__).parents[1] / "docs" / "relaxometry.md"
RECIPES = (
    "least_squares", "maximum_likelihood", "hierarchical", "hierarchical_mixture", "vae_unig", "vae_gmm",
    "self_supervised",
)  # fmt: skip
SHARES = (0.45, 0.40, 0.15)
SNRS = {"t1_inversion": 20.0, "t2_decay": 20.0, "cest_lorentz": 50.0}
SHOWN = {"t1_inversion": ("T1",), "t2_decay": ("T2",), "cest_lorentz": ("A_amide", "A_noe", "A_mt", "shift")}
CENTRES = {"water": 0.0, "amide": 3.5, "noe": -3.5, "mt": -2.5}
Columns = dict[str, np.ndarray]


def t1_inversion(s: Columns, t: Columns) -> np.ndarray:
    """Magnitude of the recovery, repeated every TR."""
    inverted = 1 - 2 * t["inv_eff"] * np.exp(-s["ti"] / t["T1"])
    return np.abs(inverted + (2 * t["inv_eff"] - 1) * np.exp(-s["tr"] / t["T1"]))


def t2_decay(s: Columns, t: Columns) -> np.ndarray:
    """Echoes."""
    return np.exp(-s["te"] / t["T2"])


def cest_lorentz(s: Columns, t: Columns) -> np.ndarray:
    """Four Lorentzian lines."""
    at = {k: 2 * (s["offset"] - t["shift"] - c) / t[f"w_{k}"] for k, c in CENTRES.items()}
    return 1 - sum(t[f"A_{k}"] / (1 + at[k] ** 2) for k in CENTRES)


EQUATIONS = {"t1_inversion": t1_inversion, "t2_decay": t2_decay, "cest_lorentz": cest_lorentz}


def drawn(name: str, n: int, rng: np.random.Generator) -> tuple[Columns, np.ndarray]:
    """Parameters and S0 by name, each ``(N, 1)``, and the tissue of each voxel ``(N,)``."""
    model, label = SIGNALS[name], rng.choice(3, size=n, p=SHARES)
    found = {"S0": 1000 * (1 + 0.1 * rng.standard_normal((n, 1)).clip(-2.5, 2.5))}
    for p in model.parameters:
        mean, sd = np.array([tissue[p.name] for tissue in model.typical_tissue.values()])[label].T
        value = mean + sd * rng.standard_normal(n).clip(-2.5, 2.5)
        found[p.name] = value[:, None].clip(p.lower + 1e-4, p.upper)
    if name == "cest_lorentz":  # water and macromolecules saturate no more than everything
        found["A_mt"] = np.minimum(found["A_mt"], 1 - found["A_water"])
    return found, label


def simulated(name: str, n: int, seed: int, best: bool) -> tuple[Columns, np.ndarray, np.ndarray, float, Columns]:
    """Truths, tissue, measurements ``(N, M)``, their noise level, and where wanted the oracle's means."""
    protocol = SIGNALS[name].default_protocol
    assert protocol is not None
    rng = np.random.default_rng(seed)
    settings = {key: value.double().numpy() for key, value in protocol.settings().items()}
    truth, label = drawn(name, n, rng)
    clean, sigma = truth["S0"] * EQUATIONS[name](settings, truth), 1000 / SNRS[name]
    noise = sigma * rng.standard_normal((2, *clean.shape))
    y = np.hypot(clean + noise[0], noise[1])
    if not best:
        return truth, label, y, sigma, {}
    prior, _ = drawn(name, 10_000, rng)
    expected = prior["S0"] * EQUATIONS[name](settings, prior)
    means = oracle(y, expected, sigma, np.concatenate(list(prior.values()), 1))
    return truth, label, y, sigma, dict(zip(truth, means.T, strict=True))


def oracle(y: np.ndarray, expected: np.ndarray, sigma: float, prior: np.ndarray) -> np.ndarray:
    """Posterior means ``(N, P)`` of draws of the prior ``(K, P)`` with signals ``(K, M)``."""
    means = []
    for row in y:
        at = expected * row / sigma**2
        log = (np.log(i0e(at)) + at - expected**2 / (2 * sigma**2)).sum(1)
        weight = np.exp(log - log.max())
        means.append(weight @ prior / weight.sum())
    return np.array(means)


def run(name: str, recipe: str, n: int, seed: int) -> dict[str, Any]:
    """RMSE in tissue and in fluid, and share of truths inside 90 % intervals, of one recipe or of the oracle."""
    truth, label, y, sigma, mean = simulated(name, n, seed, recipe == "oracle")
    begin, low, high = time.perf_counter(), None, None
    if recipe != "oracle":
        likelihood = {} if recipe in ("least_squares", "self_supervised") else {"likelihood": "rician"}
        call = {"signal": name, "recipe": recipe, "sigma": sigma, "seed": seed, **likelihood}
        post = pq.fit(y, SIGNALS[name].default_protocol, **call).posterior(y)
        mean = {key: value.numpy() for key, value in post.mean.items()}
        if recipe != "self_supervised":
            low, high = ({k: v[:, i].numpy() for k, v in post.interval(0.9).items()} for i in (0, 1))
    cells = {}
    for key in SHOWN[name]:
        error, cell = mean[key] - truth[key][:, 0], {}
        for where, pick in (("tissue", label < 2), ("fluid", label == 2)):
            cell[where] = float(np.sqrt(np.mean(error[pick] ** 2)))
            if low is not None and high is not None:
                inside = (low[key] < truth[key][:, 0]) & (truth[key][:, 0] < high[key])
                cell[f"{where}_covered"] = float(inside[pick].mean())
        cells[key] = cell
    seconds = round(time.perf_counter() - begin, 1)
    return {"signal": name, "recipe": recipe, "n": n, "seed": seed, "cells": cells, "seconds": seconds}


def kept() -> list[dict[str, Any]]:
    """Rows that were measured."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def measure(names: list[str], seeds: list[int], n: int) -> None:
    """Measure what is not kept yet."""
    for seed in seeds:
        for name in names:
            for recipe in ("oracle", *RECIPES):
                if (name, recipe, n, seed) in {(r["signal"], r["recipe"], r["n"], r["seed"]) for r in kept()}:
                    continue
                if (name, recipe) == ("cest_lorentz", "oracle"):
                    continue
                row = run(name, recipe, n, seed)
                RESULTS.write_text(json.dumps([*kept(), row], indent=0) + "\n")
                print(name, recipe, seed, row["cells"], row["seconds"], flush=True)


def table() -> str:
    """The rows as Markdown: the mean over seeds, and the range."""
    rows = kept()
    head = "| signal | parameter | recipe | RMSE, white and grey matter | RMSE, fluid "
    head += "| inside 90 % intervals, tissue | fluid |"
    entries = ("tissue", "fluid", "tissue_covered", "fluid_covered")
    lines = [head, "| --- " * 7 + "|"]
    for name, keys in SHOWN.items():
        for key in keys:
            for recipe in ("oracle", *RECIPES):
                cells = [r["cells"][key] for r in rows if (r["signal"], r["recipe"]) == (name, recipe)]
                if cells:
                    numbers = [ranged([c.get(entry) for c in cells]) for entry in entries]
                    shown = recipe if recipe == "oracle" else f"`{recipe}`"
                    lines.append(f"| `{name}` | {key} | {shown} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def ranged(values: list[float | None]) -> str:
    """The mean over seeds, and least and largest in brackets."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    shown = f"{np.mean(known):.3g}"
    return shown if len(known) == 1 else f"{shown} ({min(known):.3g} to {max(known):.3g})"


def main() -> None:
    """Measure and keep, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", nargs="*", default=[], choices=list(EQUATIONS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    measure(args.signals, args.seeds, args.n)
    if args.write:
        before, _, rest = re.split("<!-- (?:recipes table|end recipes) -->", PAGE.read_text())
        PAGE.write_text(f"{before}<!-- recipes table -->\n\n{table()}\n\n<!-- end recipes -->{rest}")


if __name__ == "__main__":
    main()
