"""Coverage of 90 % intervals and cones of the diffusion signals of tissue: truth and noise in numpy, from the physics.

    python -m benchmarks.diffusion_calibration SIGNAL [--snr 20 40] [--voxels N] [--seed S] [--recipe R] [--classes C]

Each signal on its default protocol, sigma given: `ball_sticks_gamma` (0 to 3 sticks in equal parts), `dki` (tensors of
two or three compartments, their cumulants exact), `fwdti` and `noddi` (white and grey matter).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pyroqmri as pq
from benchmarks.noise_conditions import directions
from benchmarks.population_conditions import dispersed
from benchmarks.sticks_number import F1, SHARE2, SHARE3, D
from benchmarks.tissue_conditions import Scan, magnitudes
from pyroqmri.measurements.status import FINE

RESULTS = Path(__file__).parent / "results" / "diffusion_calibration.json"
Array = NDArray[np.floating]
MAPS = {"ball_sticks_gamma": ("D", "D_std", "f1", "f2"), "dki": ("MD", "FA", "MK", "AK", "RK"),
        "fwdti": ("FWF", "MD", "FA"), "noddi": ("NDI", "ODI", "FWF")}  # fmt: skip


def protocol(n_b0: int, n: int, *shells: float) -> tuple[Array, Array]:
    """b-values ``(M,)`` and directions ``(M, 3)``, the same ``n`` on each shell."""
    g = directions(n)
    return np.r_[np.zeros(n_b0), np.repeat(shells, n)], np.concatenate([np.zeros((n_b0, 3)), *(g for _ in shells)])


def units(n: int, rng: np.random.Generator) -> Array:
    """Random axes ``(n, 3)``."""
    axis = rng.normal(size=(n, 3))
    return axis / np.linalg.norm(axis, axis=1, keepdims=True)


def along(axis: Array, parallel: Array, across: Array, g: Array) -> Array:
    """Diffusivities ``(n, M)`` of axially symmetric tensors along directions ``(M, 3)`` or ``(n, M, 3)``."""
    return across[:, None] + (parallel - across)[:, None] * (axis[:, None] * g).sum(-1) ** 2


def cumulants(n: int, rng: np.random.Generator) -> Callable[[Array], tuple[Array, Array]]:
    """Mean and variance of the diffusivity along directions, of compartments in white and grey matter."""
    normal, white = rng.normal, rng.random(n) < 0.6
    one, two = units(n, rng), units(n, rng)
    inside = np.where(white, normal(0.5, 0.06, n), normal(0.35, 0.05, n)).clip(0.1, 0.8)
    second = np.where(white & (rng.random(n) < 0.5), rng.uniform(0.1, 0.3, n), 0.0)
    in_par, in_across = normal(1.7, 0.1, n), np.where(white, normal(0.2, 0.04, n), normal(0.6, 0.05, n)).clip(0.02)
    out_par, out_across = np.where(white, normal(1.5, 0.1, n), 1.4), normal(0.7, 0.08, n)
    uneven = normal(0.45, 0.06, n).clip(0.2)  # sd of the diffusivity within a compartment, over its mean
    shares = np.stack([inside * (1 - second), inside * second, 1 - inside], 1)

    def of(g: Array) -> tuple[Array, Array]:
        parts = (along(one, in_par, in_across, g), along(two, in_par, in_across, g), along(one, out_par, out_across, g))
        each = np.stack(parts, 1)
        mean = (shares[..., None] * each).sum(1)
        return mean, ((1 + uneven**2)[:, None, None] * shares[..., None] * each**2).sum(1) - mean**2

    return of


def tensors(of: Callable[[Array], tuple[Array, Array]], g: Array) -> Array:
    """Tensors ``(n, 3, 3)`` of a diffusivity along directions, by least squares, which is exact."""
    i, j = np.tril_indices(3)
    found = np.linalg.lstsq(g[:, i] * g[:, j] * np.where(i == j, 1, 2), of(g)[0].T, rcond=None)[0].T
    full = np.zeros((len(found), 3, 3))
    full[:, i, j] = full[:, j, i] = found
    return full


def anisotropy(values: Array) -> Array:
    """Fractional anisotropy ``(n,)`` of eigenvalues ``(n, 3)``."""
    off = values - values.mean(1, keepdims=True)
    return np.sqrt(1.5 * (off**2).sum(1) / (values**2).sum(1))


def kurtosis(n: int, snr: float, rng: np.random.Generator) -> Scan:
    """The signal of the first two cumulants, and kurtosis over the sphere, along and across the main axis as sums."""
    b, g = protocol(6, 45, 1.0, 2.0)
    of = cumulants(n, rng)
    mean, variance = of(g)
    sphere = directions(1500)
    full = tensors(of, sphere)
    values, vectors = np.linalg.eigh(full)
    everywhere = of(sphere)
    angle = np.linspace(0, np.pi, 180, endpoint=False)
    ring = np.cos(angle)[:, None] * vectors[:, None, :, 0] + np.sin(angle)[:, None] * vectors[:, None, :, 1]
    main, ringed = of(vectors[:, None, :, 2]), of(ring)
    truth = {
        "MD": values.mean(1), "FA": anisotropy(values), "MK": (3 * everywhere[1] / everywhere[0] ** 2).mean(1),
        "AK": (3 * main[1] / main[0] ** 2)[:, 0], "RK": (3 * ringed[1] / ringed[0] ** 2).mean(1),
    }  # fmt: skip
    s = np.exp(-b * mean + b**2 / 2 * variance)
    return Scan(magnitudes(s, 1 / snr, rng), pq.Acquisition(bval=b, bvec=g), truth, 1 / snr)


def free_water(n: int, snr: float, rng: np.random.Generator) -> Scan:
    """A tensor and free water, white and grey matter."""
    b, g = protocol(6, 32, 0.5, 1.5)
    white, normal = rng.random(n) < 0.5, rng.normal
    par = np.where(white, normal(1.5, 0.12, n), normal(1.0, 0.08, n))
    across = np.where(white, normal(0.45, 0.07, n), normal(0.75, 0.06, n)).clip(0.05)
    water = np.where(white, normal(0.1, 0.05, n), normal(0.2, 0.07, n))
    while (out := (water < 0.005) | (water > 0.95)).any():  # as clipped values are, which no density describes
        water[out] = np.where(white, normal(0.1, 0.05, n), normal(0.2, 0.07, n))[out]
    tissue = np.exp(-b * along(units(n, rng), par, across, g))
    truth = {"FWF": water, "MD": (par + 2 * across) / 3, "FA": anisotropy(np.stack([par, across, across], 1))}
    s = water[:, None] * np.exp(-3.0 * b) + (1 - water[:, None]) * tissue
    return Scan(magnitudes(s, 1 / snr, rng), pq.Acquisition(bval=b, bvec=g), truth, 1 / snr)


def sticks(n: int, snr: float, rng: np.random.Generator) -> Scan:
    """0 to 3 sticks whose diffusivity has a gamma distribution."""
    b, g = protocol(6, 60, 1.0, 2.0, 3.0)
    k, f = np.arange(n) % 4, np.zeros((n, 3))
    d, width = rng.uniform(*D, n), rng.normal(0.6, 0.12, n).clip(0.1)
    f[:, 0] = rng.uniform(*F1, n)
    f[:, 1] = rng.uniform(*SHARE2, n) * np.minimum(f[:, 0], 1 - f[:, 0])
    f[:, 2] = rng.uniform(*SHARE3, n) * np.minimum(f[:, 1], 1 - f[:, 0] - f[:, 1])
    f[np.arange(3) >= k[:, None]] = 0
    axes, shape = units(3 * n, rng).reshape(n, 3, 3), (d / width)[:, None] ** 2

    def decay(x: Array) -> Array:
        return (1 + x * (width**2 / d)[:, None]) ** -shape

    s = (1 - f.sum(1))[:, None] * decay(np.broadcast_to(b, (n, len(b))))
    for j in range(3):
        s = s + f[:, j, None] * decay(b * (axes[:, j] @ g.T) ** 2)
    truth = {"D": d, "D_std": width, "f1": f[:, 0], "f2": f[:, 1], "k": k, "n1": axes[:, 0], "n2": axes[:, 1]}
    return Scan(magnitudes(s, 1 / snr, rng), pq.Acquisition(bval=b, bvec=g), truth, 1 / snr)


CONDITIONS: dict[str, Callable[[int, float, np.random.Generator], Scan]] = {
    "ball_sticks_gamma": sticks,
    "dki": kurtosis,
    "fwdti": free_water,
    "noddi": lambda n, snr, rng: dispersed(n, rng, snr=snr),
}


def judged(post: Any, truth: dict[str, Array], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Coverage, error, shift and stated sd of each map, where there is what it shows."""
    interval, rows = post.interval(0.9), {}
    for name in names:
        least = int(name[1]) if name in ("f1", "f2") else 0
        there = truth["k"] >= least if "k" in truth else np.ones(len(truth[name]), bool)
        low, high = interval[name].numpy()[there].T
        true, mean, sd = truth[name][there], post.mean[name].numpy()[there], post.sd[name].numpy()[there]
        rows[name] = {
            "covers": float(((low <= true) & (true <= high)).mean()),
            "rmse": float(np.sqrt(np.mean((mean - true) ** 2))),
            "sd": float(np.sqrt(np.mean(sd**2))), "shift": float(np.mean((mean - true) / sd)),
        }  # fmt: skip
    for k, name in ((1, "n1"), (2, "n2")):
        if name in truth:
            there = truth["k"] >= k
            cosine = np.abs((post.direction(name).numpy() * truth[name]).sum(-1)).clip(0, 1)[there]
            inside = np.rad2deg(np.arccos(cosine)) < post.cone(0.9, name).numpy()[there]
            rows[name] = {"covers": float(inside.mean())}
    return rows


def run(
    signal: str, snr: float, n: int, seed: int, recipe: str = "hierarchical", classes: int | None = None
) -> dict[str, Any]:
    """A row of results; a mixture has so many ``classes``, or as many as its recipe states."""
    scan = CONDITIONS[signal](n, snr, np.random.default_rng(seed))
    y = scan.y
    begin = time.process_time()
    settings = {} if classes is None else {"prior.classes": classes}
    fit = pq.fit(y, scan.acquisition, signal=signal, recipe=recipe, sigma=scan.sigma, causes=False, settings=settings)
    trained = time.process_time()
    post = fit.posterior(y)
    row: dict[str, Any] = {"signal": signal, "snr": snr, "voxels": n, "seed": seed, "recipe": recipe} | settings
    row |= {"maps": judged(post, scan.truth, MAPS[signal]), "fine": float((post.status == FINE).double().mean())}
    seconds = {"training": trained - begin, "maps": time.process_time() - trained}
    return row | {"cpu": {k: round(v, 1) for k, v in seconds.items()}}


def main() -> None:
    """Run a signal at each SNR, and add its rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signal", choices=CONDITIONS)
    parser.add_argument("--snr", type=float, nargs="+", default=[20.0, 40.0])
    parser.add_argument("--voxels", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="hierarchical")
    parser.add_argument("--classes", type=int, help="of hierarchical_mixture")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for snr in args.snr:
        row = run(args.signal, snr, args.voxels, args.seed, args.recipe, args.classes)
        print({k: round(v["covers"], 3) for k, v in row["maps"].items()}, json.dumps(row), flush=True)
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
