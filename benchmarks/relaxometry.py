"""Are the intervals of the relaxometry signals calibrated? Simulated in numpy alone, at two noise levels.

    python -m benchmarks.relaxometry --signals t2star_decay mpm
    python -m benchmarks.relaxometry --write

Voxels between white and grey matter (``typical_tissue``: mean and spread of both, normal) are measured on the default
protocol with Rician noise (Gaussian where data keep their sign), whose level is the mean over the voxels of the
brightest measurement divided by 20 or 50. With ``--fluid`` a third of the voxels are white matter, grey matter and
fluid each, which a single Gaussian population does not describe. Maps of B1 are given. Rows are kept in
``benchmarks/results/relaxometry.json``; ``--write`` makes the table of ``docs/relaxometry.md`` from them.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from benchmarks.myelin_water import echoes
from pyroqmri.signals import SIGNALS

RESULTS = Path(__file__).parent / "results" / "relaxometry.json"
PAGE = Path(__file__).parents[1] / "docs" / "relaxometry.md"
SNRS = (20.0, 50.0)
Settings = dict[str, np.ndarray]


def t2star_decay(s: Settings, T2star: np.ndarray) -> np.ndarray:
    """Echoes."""
    return np.exp(-s["te"] / T2star)


def t1_inversion_ab(s: Settings, T1: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Recovery with free amplitudes."""
    return a + b * np.exp(-s["ti"] / T1)


def t1_looklocker(s: Settings, T1star: np.ndarray, b_over_a: np.ndarray) -> np.ndarray:
    """Recovery under readouts."""
    return 1 - b_over_a * np.exp(-s["ti"] / T1star)


def mpm(s: Settings, R1: np.ndarray, R2star: np.ndarray, MTsat: np.ndarray, B1: np.ndarray) -> np.ndarray:
    """Fixed point of saturation, excitation and recovery."""
    left = 1 - s["mt"] * MTsat / 100 * B1**2 * (1 - 0.4 * B1) / 0.6
    decay = np.exp(-s["tr"] * R1 / 1000)
    before = (1 - decay) / (1 - decay * np.cos(B1 * s["flip"]) * left)
    return before * left * np.sin(B1 * s["flip"]) * np.exp(-s["te"] * R2star / 1000)


def spoiled(s: Settings, T1: np.ndarray, B1: np.ndarray) -> np.ndarray:
    """Fixed point of excitation and recovery."""
    decay = np.exp(-s["tr"] / T1)
    return np.sin(B1 * s["flip"]) * (1 - decay) / (1 - decay * np.cos(B1 * s["flip"]))


def turned_echoes(s: Settings, T2: np.ndarray, B1: np.ndarray) -> np.ndarray:
    """Phase graph, state by state, of echoes that are multiples of the first one."""
    return echoes(T2[:, 0], B1[:, 0], len(s["te"]), float(s["te"][0]))


def wassr(s: Settings, A: np.ndarray, w: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Water's line."""
    return 1 - A / (1 + (2 * (s["offset"] - shift) / w) ** 2)


def mp2rage(s: Settings, T1: np.ndarray, B1: np.ndarray) -> np.ndarray:
    """Both trains pulse by pulse, 12 cycles on."""
    before, after, spacing = int(s["shots_before"][0]), int(s["shots_after"][0]), s["tr_readout"][0]
    m, seen = np.ones_like(T1), [T1, T1]
    for _ in range(12):
        m, clock = -0.96 * m, 0.0
        for i, (centre, flip) in enumerate(zip(s["ti"], s["flip"], strict=True)):
            m = 1 + (m - 1) * np.exp(-(centre - before * spacing - clock) / T1)
            for k in range(before + after):
                seen[i] = m * np.sin(B1 * flip) if k == before else seen[i]
                m = 1 + (m * np.cos(B1 * flip) - 1) * np.exp(-spacing / T1)
            clock = centre + after * spacing
        m = 1 + (m - 1) * np.exp(-(s["tr"][0] - clock) / T1)
    return np.concatenate(seen, 1)


EQUATIONS: dict[str, Callable[..., np.ndarray]] = {
    "t2star_decay": t2star_decay, "t1_inversion_ab": t1_inversion_ab, "t1_inversion_ab_signed": t1_inversion_ab,
    "t1_looklocker": t1_looklocker, "mpm": mpm, "mp2rage": mp2rage, "mp2rage_free_b1": mp2rage, "t1_vfa": spoiled,
    "t1_vfa_free_b1": spoiled, "t2_epg": turned_echoes, "t2_epg_given_b1": turned_echoes, "wassr": wassr,
}  # fmt: skip


def drawn(name: str, n: int, fluid: bool, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """True parameters ``(N,)``."""
    white, grey, csf = SIGNALS[name].typical_tissue.values()
    if fluid:
        label = rng.integers(3, size=n)
        mean, sd = (np.array([[t[key][i] for t in (white, grey, csf)] for key in white])[:, label] for i in (0, 1))
    else:
        mean = np.array([[(white[key][0] + grey[key][0]) / 2] for key in white])
        sd = np.array([[abs(white[key][0] - grey[key][0]) / 2 + grey[key][1]] for key in white])
    values = mean + sd * rng.standard_normal((len(white), n)).clip(-2.5, 2.5)
    return {p.name: v.clip(p.lower + 1e-3, p.upper) for p, v in zip(SIGNALS[name].parameters, values, strict=True)}


def simulated(name: str, snr: float, n: int, fluid: bool, seed: int) -> tuple[Settings, np.ndarray, float, Any]:
    """Truth by parameter ``(N,)``, measurements ``(N, M)`` of S0 near 1000, their noise level and maps of inputs."""
    model, rng = SIGNALS[name], np.random.default_rng(seed)
    truth = drawn(name, n, fluid, rng)
    assert model.default_protocol is not None
    settings = {key: value.double().numpy() for key, value in model.default_protocol.settings().items()}
    inputs = {key: 1 + 0.1 * rng.standard_normal(n).clip(-2, 2) for key in model.inputs}
    columns = {key: value[:, None] for key, value in (truth | inputs).items()}
    level = 1000 * (1 + 0.1 * rng.standard_normal(n).clip(-2.5, 2.5))
    clean = level[:, None] * EQUATIONS[name](settings, **columns)
    clean = clean if model.signed else np.abs(clean)
    sigma = float(np.abs(clean).max(1).mean()) / snr
    noise = sigma * rng.standard_normal((2, *clean.shape))
    y = clean + noise[0] if model.signed else np.hypot(clean + noise[0], noise[1])
    derived = model.derived({key: torch.as_tensor(value) for key, value in truth.items()})
    truth |= {p.name: level * truth[p.name] for p in model.parameters if p.unit == "a.u."}
    truth |= {key: value.numpy() for key, value in derived.items()}
    return truth, y, sigma, {key: torch.as_tensor(value, dtype=torch.float32) for key, value in inputs.items()}


def run(name: str, snr: float, n: int, fluid: bool, seed: int = 0) -> dict[str, Any]:
    """Share of truths inside 90 % intervals of `hierarchical`, and RMSE of it and of maximum likelihood."""
    truth, y, sigma, inputs = simulated(name, snr, n, fluid, seed)
    acq, begin = SIGNALS[name].default_protocol, time.perf_counter()
    point = "least_squares" if SIGNALS[name].signed else "maximum_likelihood"
    likelihood = "gaussian" if SIGNALS[name].signed else "rician"
    call = {"signal": name, "sigma": sigma, "inputs": inputs}
    fit = pq.fit(y, acq, recipe="hierarchical", likelihood=likelihood, **call)
    voxelwise = pq.fit(y, acq, recipe=point, **call).posterior(y, inputs=inputs).mean
    post = fit.posterior(y, inputs=inputs)
    cells = {}
    for key, value in truth.items():
        low, high = post.interval(0.9)[key].numpy().T
        cells[key] = {
            "covered": float(np.mean((low < value) & (value < high))),
            "rmse": rms(post.mean[key].numpy() - value), "voxelwise": rms(voxelwise[key].numpy() - value),
        }  # fmt: skip
    return {"signal": name, "snr": snr, "fluid": fluid, "n": n, "seed": seed, "cells": cells,
            "warnings": list(fit.warnings), "seconds": round(time.perf_counter() - begin, 1)}  # fmt: skip


def rms(error: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(error**2)))


def keep(row: dict[str, Any]) -> None:
    """Put a row in the place of that of the same condition."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = {(r["signal"], r["fluid"], r["snr"]): r for r in [*kept, row]}
    ordered = [rows[key] for key in sorted(rows, key=lambda k: (list(SIGNALS).index(k[0]), *k[1:]))]
    RESULTS.write_text(json.dumps(ordered, indent=0) + "\n")


def table() -> str:
    """The rows as Markdown."""
    head = "| signal | truths | SNR | parameter | share inside 90 % intervals "
    head += "| RMSE, `hierarchical` | RMSE, voxel by voxel |"
    lines = [head, "| --- " * 7 + "|"]
    for row in json.loads(RESULTS.read_text()):
        for key, cell in row["cells"].items():
            numbers = f"{cell['covered']:.3f} | {cell['rmse']:.3g} | {cell['voxelwise']:.3g}"
            truths = "with fluid" if row["fluid"] else "tissue"
            lines.append(f"| `{row['signal']}` | {truths} | {row['snr']:g} | {key} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and keep, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", nargs="*", default=[], choices=list(EQUATIONS))
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--snr", nargs="*", type=float, default=SNRS)
    parser.add_argument("--fluid", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.signals:
        for snr in args.snr:
            row = run(name, snr, args.n, args.fluid)
            keep(row)
            covered = {key: round(cell["covered"], 3) for key, cell in row["cells"].items()}
            print(name, snr, covered, row["warnings"], row["seconds"], flush=True)
    if args.write:
        before, _, rest = re.split("<!-- (?:relaxometry table|end) -->", PAGE.read_text())
        PAGE.write_text(f"{before}<!-- relaxometry table -->\n\n{table()}\n\n<!-- end -->{rest}")


if __name__ == "__main__":
    main()
