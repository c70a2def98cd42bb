"""Coverage of 90 % intervals where the population is hard to find: truth and noise in numpy, from the physics.

    python -m benchmarks.population_conditions CONDITION [--seeds 0 1 2] [--voxels N] [--steps N]

Each row has the share of truths inside the intervals of the maps as shipped, that among voxels of status 1, and of the
truths that are missed the share in voxels that are marked (status, or a contraction below a quarter).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from benchmarks import tissue_conditions as tissue
from benchmarks.noise_conditions import directions
from benchmarks.tissue_conditions import Scan, magnitudes
from pyroqmri.measurements.status import FINE

RESULTS = Path(__file__).parent / "results" / "population_conditions.json"
OPEN = 0.25  # contraction below which a value is said to be the population's
# D, f and D* (10^-3 mm2/s) of fourteen tissues, after OSIPI's phantom
TISSUES = np.array([
    (2.4, 0.15, 80), (2.0, 0.07, 70), (1.5, 0.07, 70), (1.47, 0.103, 30.9), (1.5, 0.11, 100), (1.67, 0.32, 30),
    (1.5, 0.3, 12), (1.3, 0.15, 10), (2.12, 0.097, 20), (2.09, 0.158, 19), (1.3, 0.2, 30), (0.83, 0.076, 10.9),
    (0.81, 0.09, 17), (1.43, 0.07, 52),
])  # fmt: skip


def two_pools(n: int, rng: np.random.Generator, uniform: bool = False) -> Scan:
    """Myelin water and the rest, 32 echoes, SNR 50, S0 that differs by 6 %; normal populations or uniform ones."""
    te = np.arange(10.0, 330, 10)
    if uniform:
        f, short, long = rng.uniform(0.05, 0.3, n), rng.uniform(10, 40, n), rng.uniform(60, 120, n)
    else:
        f, short = np.clip(rng.normal(0.12, 0.03, n), 0.01, None), np.clip(rng.normal(18, 3, n), 5, None)
        long = rng.normal(80, 6, n)
    s0 = 1000 * (1 + 0.06 * rng.normal(size=n))
    decay = f[:, None] * np.exp(-te / short[:, None]) + (1 - f[:, None]) * np.exp(-te / long[:, None])
    truth = {"f": f, "T2_short": short, "T2_long": long, "S0": s0}
    return Scan(magnitudes(s0[:, None] * decay, 20.0, rng), pq.Acquisition(te=te), truth, 20.0)


def perfusion(n: int, rng: np.random.Generator) -> Scan:
    """Fourteen tissues, each parameter 10 % around its tissue's, 16 b-values, SNR 30."""
    b = np.array([0, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 700, 800]) / 1000
    slow, f, fast = TISSUES[rng.integers(len(TISSUES), size=n)].T * (1 + 0.1 * rng.normal(size=(3, n)))
    s = f[:, None] * np.exp(-b * fast[:, None]) + (1 - f[:, None]) * np.exp(-b * slow[:, None])
    truth = {"f": f, "D_fast": fast - slow, "D_slow": slow}
    return Scan(magnitudes(1000 * s, 1000 / 30, rng), pq.Acquisition(bval=b), truth, 1000 / 30)


def one_shell(n: int, rng: np.random.Generator) -> Scan:
    """Ball and stick from one volume without encoding and 6 directions at b 1000 s/mm2, SNR 20."""
    b, g = np.r_[0.0, np.ones(6)], np.r_[np.zeros((1, 3)), directions(6)]
    f = np.clip(rng.normal(0.6, 0.1, n), 0.05, 0.95)
    along, iso = rng.normal(1.9, 0.2, n), rng.normal(0.9, 0.15, n)
    axis = rng.normal(size=(n, 3))
    cosine = (axis / np.linalg.norm(axis, axis=1, keepdims=True)) @ g.T
    s = f[:, None] * np.exp(-b * along[:, None] * cosine**2) + (1 - f[:, None]) * np.exp(-b * iso[:, None])
    return Scan(magnitudes(s, 0.05, rng), pq.Acquisition(bval=b, bvec=g), {"f": f, "D_par": along, "D_iso": iso}, 0.05)


def kurtosis(n: int, rng: np.random.Generator) -> Scan:
    """MS-DKI, 6 volumes at each of b 0, 1000, 2000 and 3000 s/mm2, SNR 20."""
    b, D, K = np.repeat([0.0, 1.0, 2.0, 3.0], 6), rng.normal(1.1, 0.12, n), rng.normal(0.9, 0.2, n)
    s = np.exp(-b * D[:, None] + b**2 * D[:, None] ** 2 * K[:, None] / 6)
    return Scan(magnitudes(s, 0.05, rng), pq.Acquisition(bval=b), {"D": D, "K": K}, 0.05)


def dispersed(n: int, rng: np.random.Generator, narrow: bool = False, snr: float = 25.0) -> Scan:
    """NODDI in white and grey matter, 5 volumes without encoding, 50 directions at b 1000 and 2000 s/mm2.

    The integral over the sphere is a sum. Normal populations end inside the bounds and have no voxels at one value: no
    density describes clipped ones. ``narrow`` has tissues half as far spread in the fraction of neurites.
    """
    b, g = np.r_[np.zeros(5), np.repeat([1.0, 2.0], 50)], np.r_[np.zeros((5, 3)), directions(50), directions(50)]
    white = rng.random(n) < 0.5
    means = np.where(white[:, None], (0.60, 0.20, 0.08), (0.40, 0.48, 0.10))
    sds = np.where(white[:, None], (0.05 if narrow else 0.08, 0.06, 0.04), (0.05 if narrow else 0.06, 0.08, 0.05))
    values = means + sds * rng.normal(size=(n, 3))
    while (out := ((values < (0.02, 0.03, 0.002)) | (values > (0.98, 0.97, 0.98)))).any():
        values[out] = (means + sds * rng.normal(size=(n, 3)))[out]
    ndi, odi, water = values.T
    axis = rng.normal(size=(n, 3))
    along = (axis / np.linalg.norm(axis, axis=1, keepdims=True)) @ g.T
    u, kappa, s = directions(1000), 1 / np.tan(np.pi / 2 * odi), np.empty((n, len(b)))
    for i in range(n):
        weight = np.exp(kappa[i] * (u[:, 2] ** 2 - 1))
        weight /= weight.sum()
        across = np.sqrt(np.clip(np.any(g, 1) - along[i] ** 2, 0, None))
        sticks = weight @ np.exp(-b * 1.7 * np.square(np.outer(u[:, 0], across) + np.outer(u[:, 2], along[i])))
        spread = weight @ u[:, 2] ** 2
        inside = spread * along[i] ** 2 + (1 - spread) / 2 * across**2
        around = np.exp(-b * 1.7 * (1 - ndi[i] + ndi[i] * inside))
        tissue = ndi[i] * sticks + (1 - ndi[i]) * around
        s[i] = water[i] * np.exp(-b * 3.0) + (1 - water[i]) * tissue
    truth = {"NDI": ndi, "ODI": odi, "FWF": water}
    return Scan(magnitudes(s, 1 / snr, rng), pq.Acquisition(bval=b, bvec=g), truth, 1 / snr)


def saturation(n: int, rng: np.random.Generator) -> Scan:
    """Four Lorentzian pools of white matter, 65 offsets and two without saturation, SNR 100."""
    offset = np.r_[300.0, 300.0, np.arange(-8, 8.25, 0.25)]
    usual = dict(
        A_water=(0.75, 0.03), w_water=(1.6, 0.15), A_amide=(0.06, 0.01), w_amide=(1.5, 0.2), A_noe=(0.10, 0.015),
        w_noe=(3.0, 0.3), A_mt=(0.14, 0.02), w_mt=(40.0, 4.0), shift=(0.0, 0.1),
    )  # fmt: skip
    truth = {name: rng.normal(mean, sd, n) for name, (mean, sd) in usual.items()}
    s = 1.0
    for pool, centre in (("water", 0.0), ("amide", 3.5), ("noe", -3.5), ("mt", -2.5)):
        half = (truth[f"w_{pool}"][:, None] / 2) ** 2
        s = s - truth[f"A_{pool}"][:, None] * half / (half + (offset - centre - truth["shift"][:, None]) ** 2)
    return Scan(magnitudes(s, 0.01, rng), pq.Acquisition(offset=offset), truth, 0.01)


CONDITIONS: dict[str, tuple[str, str, Callable[[int, np.random.Generator], Scan]]] = {
    "two_pools": ("t2_biexp", "inferred", two_pools),
    "two_pools_uniform": ("t2_biexp", "inferred", lambda n, rng: two_pools(n, rng, uniform=True)),
    "perfusion": ("ivim", "inferred", perfusion),
    "one_shell": ("ball_stick", "measured", one_shell),
    "kurtosis": ("msdki", "measured", kurtosis),
    "dispersed": ("noddi", "measured", dispersed),
    "dispersed_narrow": ("noddi", "measured", lambda n, rng: dispersed(n, rng, narrow=True)),
    "saturation": ("cest_lorentz", "measured", saturation),
    "crossing": ("ball_stick", "measured", tissue.crossing),
    "fluid_minority": ("msdki", "measured", tissue.fluid_minority),
    "lesion": ("msdki", "measured", tissue.lesion),
    "three_tissues": ("ivim", "inferred", tissue.three_tissues),
    "fourfold": ("ball_stick", "measured", tissue.fourfold),
}


def run(condition: str, n: int, seed: int, recipe: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit ``n`` voxels of a condition and compare the maps' intervals with their truth."""
    signal, s0, made = CONDITIONS[condition]
    scan = made(n, np.random.default_rng(seed))
    begin = time.perf_counter()
    fit = pq.fit(scan.y, scan.acquisition, signal=signal, recipe=recipe, sigma=scan.sigma, s0=s0, settings=settings)
    trained = time.perf_counter()
    post = fit.posterior(scan.y)
    everywhere, found = np.ones(n, bool), judged(post, scan)
    seconds = trained - begin, time.perf_counter() - trained
    row = {name: shares(*columns, everywhere) for name, columns in found.items()}
    few = {name: shares(*columns, scan.minority) for name, columns in found.items() if scan.minority.any()}
    return {
        "condition": condition, "voxels": n, "seed": seed, "recipe": recipe, "parameters": row, "minority": few,
        "fine": float((post.status == FINE).double().mean()), "warnings": fit.warnings,
        "seconds": {"training": seconds[0], "maps": seconds[1]},
        "reweighted": bool(fit.recipe.tables.get("posterior", {}).get("reweight", False)),
        "populations": 0 if fit.model is None else len(fit.model.prior.populations()),
    }  # fmt: skip


def judged(post: Any, scan: Scan) -> dict[str, tuple[np.ndarray, ...]]:
    """Of each parameter which truths lie inside, which voxels are marked, and errors of the mean, each ``(N,)``."""
    interval, fine, found = post.interval(0.9), (post.status == FINE).numpy(), {}
    for name, true in scan.truth.items():
        low, high = interval[name].numpy().T
        marked = ~fine | (post.contraction[name].numpy() < OPEN if name in post.contraction else False)
        found[name] = (low <= true) & (true <= high), marked, post.mean[name].numpy() - true
    return found


def shares(inside: np.ndarray, marked: np.ndarray, error: np.ndarray, pick: np.ndarray) -> dict[str, float | None]:
    """What the intervals of the voxels ``pick`` cover, in all and where nothing marks them; how far means are off."""
    inside, marked, error = inside[pick], marked[pick], error[pick]

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) else None

    return {
        "covers": mean(inside), "covers where unmarked": mean(inside[~marked]), "marked": mean(marked),
        "misses that are marked": mean(marked[~inside]), "bias": mean(error),
        "rmse": float(np.sqrt(np.mean(error**2))),
    }  # fmt: skip


def main() -> None:
    """Run a condition with several seeds, and add its rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("condition", choices=CONDITIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--recipe", default="hierarchical")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {} if args.steps is None else {"training.steps": args.steps}
    for seed in args.seeds:
        row = run(args.condition, args.voxels, seed, args.recipe, settings)
        print({k: round(v["covers"], 3) for k, v in row["parameters"].items()}, row, flush=True)
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
