"""Coverage of 90 % intervals under noise that is not that of one coil: truth and noise in numpy, from the physics.

    python -m benchmarks.noise_conditions CONDITION [--seeds N] [--voxels N]

Ball and stick, 13 volumes without encoding, 30 directions at b 1000 and 60 at b 2000 s/mm2, SNR 20 of one image.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, shift

import pyroqmri as pq

RESULTS = Path(__file__).parent / "results" / "noise_conditions.json"
NAMES = ("f", "D_par", "D_iso")
SIGMA = 0.05


def directions(n: int) -> np.ndarray:
    """Directions ``(n, 3)`` spread over a half sphere, along a spiral."""
    z = (np.arange(n) + 0.5) / n
    turn = np.pi * (1 + 5**0.5) * np.arange(n)
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], 1)


def protocol() -> pq.Acquisition:
    """The protocol of the demo's scan."""
    bval = np.r_[np.zeros(13), np.full(30, 1.0), np.full(60, 2.0)]
    return pq.Acquisition(bval=bval, bvec=np.r_[np.zeros((13, 3)), directions(30), directions(60)])


def tissue(n: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters of ``n`` voxels, each ``(n,)``, and their signal over S0 ``(n, M)``."""
    f = 1 / (1 + np.exp(-rng.normal(0.2, 0.6, n)))
    along, iso = np.exp(rng.normal(np.log(1.7), 0.15, n)), np.exp(rng.normal(np.log(1.1), 0.25, n))
    axis = rng.standard_normal((n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    return {"f": f, "D_par": along, "D_iso": iso}, ball_stick(f, along, iso, axis)


def smooth_tissue(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """As :func:`tissue` with parameters that vary over two voxels and more; in units of the same spread."""
    f, along, iso, x, y, z = (gaussian_filter(rng.standard_normal(shape), 2.0).ravel() for _ in range(6))
    f = 1 / (1 + np.exp(-0.2 - 0.6 * f / f.std()))
    along, iso = 1.7 * np.exp(0.15 * along / along.std()), 1.1 * np.exp(0.25 * iso / iso.std())
    axis = np.stack([x, y, z], 1) / np.sqrt(x**2 + y**2 + z**2)[:, None]
    return {"f": f, "D_par": along, "D_iso": iso}, ball_stick(f, along, iso, axis)


def ball_stick(f: np.ndarray, along: np.ndarray, iso: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Signal over S0 ``(n, M)``."""
    acq = protocol()
    b, g = acq.bval.double().numpy(), acq.bvec.double().numpy()
    stick = np.exp(-b * along[:, None] * (axis @ g.T) ** 2)
    return f[:, None] * stick + (1 - f[:, None]) * np.exp(-b * iso[:, None])


def channels(clean: np.ndarray, sigma: Any, coils: int, rng: np.random.Generator) -> np.ndarray:
    """Root of the sum of squares of ``coils`` complex channels, the signal spread evenly over them."""
    total = np.zeros_like(clean)
    for _ in range(coils):
        real = clean / np.sqrt(coils) + sigma * rng.standard_normal(clean.shape)
        total += real**2 + (sigma * rng.standard_normal(clean.shape)) ** 2
    return np.sqrt(total)


def mean_of(clean: np.ndarray, sigma: Any, averages: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of ``averages`` ``(M,)`` magnitudes."""
    total = np.zeros_like(clean)
    for k in range(int(averages.max())):
        total += np.where(averages > k, channels(clean, sigma, 1, rng), 0)
    return total / averages


def held(fit: pq.Fit, y: np.ndarray, truth: dict[str, np.ndarray], **known: Any) -> dict[str, float]:
    """Share of the truths inside 90 % intervals, by parameter, and of the fitted sigma."""
    posterior = fit.posterior(y, **known)
    found = {}
    for name in NAMES:
        low, high = posterior.interval(0.9)[name].double().numpy().T
        found[name] = float(np.mean((low <= truth[name]) & (truth[name] <= high)))
    return found | {"sigma": fit.sigma}


def fitted(y: np.ndarray, **how: Any) -> pq.Fit:
    """The recipe hierarchical on some voxels."""
    return pq.fit(y, protocol(), signal="ball_stick", recipe="hierarchical", **how)


def averages(n: int, seed: int) -> dict[str, dict[str, float]]:
    """Means of 4 magnitudes, without and with ``averages``, and means of 1 (b 0), 2 and 4 (b 2000).

    The SNR of 20 is that of the means of 4.
    """
    rng = np.random.default_rng(seed)
    truth, clean = tissue(n, rng)
    four, by_b = np.full(103, 4.0), np.r_[np.ones(13), np.full(30, 2.0), np.full(60, 4.0)]
    y, z = (mean_of(clean, 2 * SIGMA, counts, rng) for counts in (four, by_b))
    return {
        "4, taken for single": held(fitted(y), y, truth),
        "4, averages=4": held(fitted(y, averages=4), y, truth),
        "1, 2, 4 by b, averages=": held(fitted(z, averages=by_b), z, truth),
    }


def coils(n: int, seed: int) -> dict[str, dict[str, float]]:
    """Sum of squares over 4 coils, taken for one, and with ``coils`` given and learned; sigma estimated."""
    rng = np.random.default_rng(seed)
    truth, clean = tissue(n, rng)
    y = channels(clean, SIGMA, 4, rng)
    return {
        "4 coils, taken for one": held(fitted(y), y, truth),
        "coils=4": held(fitted(y, coils=4), y, truth),
        "coils='learn'": held(fitted(y, coils="learn"), y, truth),
    }


def field(n: int, seed: int) -> dict[str, dict[str, float]]:
    """Noise that grows threefold from one edge of the image to the opposite one, in its corner and where it is low."""
    rng = np.random.default_rng(seed)
    side = round((n / 6) ** 0.5)
    place = np.argwhere(np.ones((side, side, 6)))
    g = 1 + 2 * place[:, 0] * place[:, 1] / (side - 1) ** 2
    truth, clean = tissue(len(place), rng)
    y = channels(clean, SIGMA * g[:, None], 1, rng)
    fits = {
        "one number": fitted(y),
        "estimate, places known": fitted(y, voxels=place),
        "true map": fitted(y, sigma=SIGMA * g),
    }
    found = {}
    for name, fit in fits.items():
        for where, pick in (("g < 1.3", g < 1.3), ("g > 2.2", g > 2.2), ("all", g > 0)):
            level = np.broadcast_to(np.asarray(fit.noise.level), len(g))
            some = held(fit, y[pick], {k: v[pick] for k, v in truth.items()}, sigma=level[pick])
            some["sigma"] = float(np.sqrt(np.mean(np.square(level / (SIGMA * g) - 1)[pick])))
            found[f"{name}, {where} (sigma: relative error)"] = some
    return found


def touched(n: int, seed: int) -> dict[str, dict[str, float]]:
    """Smooth tissue as it came, shifted by half a voxel (truth shifted with it), and after MP-PCA."""
    from dipy.denoise.localpca import mppca

    rng = np.random.default_rng(seed)
    shape = (round((n / 6) ** 0.5), round((n / 6) ** 0.5), 6)
    place = np.argwhere(np.ones(shape))
    truth, clean = smooth_tissue(shape, rng)
    y = channels(clean, SIGMA, 1, rng)
    volume = y.reshape(*shape, -1)
    moved = {k: shift(v.reshape(shape), (0.5, 0, 0), order=1, mode="nearest").ravel() for k, v in truth.items()}
    data = {
        "as it came": (y, truth),
        "interpolated half way": (shift(volume, (0.5, 0, 0, 0), order=1, mode="nearest").reshape(len(y), -1), moved),
        "after MP-PCA": (mppca(volume.copy(), patch_radius=2).reshape(len(y), -1), truth),
    }
    found = {}
    for name, (values, true) in data.items():
        fit = fitted(values, voxels=place)
        found[name] = held(fit, values, true) | {
            "warned": float(any("denoising" in w or "interpolated" in w for w in fit.warnings))
        }
    return found


CONDITIONS: dict[str, Callable[[int, int], dict[str, dict[str, float]]]] = {
    "averages": averages, "coils": coils, "field": field, "touched": touched,
}  # fmt: skip


def main() -> None:
    """Run a condition and keep what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("condition", choices=list(CONDITIONS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--voxels", type=int, default=1000)
    args = parser.parse_args()
    every = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    runs = [CONDITIONS[args.condition](args.voxels, seed) for seed in range(args.seeds)]
    found = {
        case: {k: [round(run[case][k], 4) for run in runs] for k in runs[0][case]} for case in runs[0]
    }  # fmt: skip
    every[args.condition] = {"voxels": args.voxels, "seeds": args.seeds, "cases": found}
    RESULTS.write_text(json.dumps(every, indent=1) + "\n")
    for case, values in found.items():
        print(case, values, flush=True)


if __name__ == "__main__":
    main()
