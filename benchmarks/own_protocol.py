"""Gradients that deviate by a twentieth, and measurements that are garbage: bias and RMSE without and with knowing.

    python -m benchmarks.own_protocol field --voxels 600
    python -m benchmarks.own_protocol outliers --voxels 600

Signals are written here in numpy, apart from the package.
"""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import pyroqmri as pq
from benchmarks.transfer import sphere

Array = np.ndarray
SIGMA = 1 / 30  # over S0
BVAL = np.repeat([0.0, 1.0, 2.0], [6, 32, 32])
BVEC = np.concatenate([np.zeros((6, 3)), sphere(32), sphere(32, 1)])
DECAY = np.array([1.7, 0.4, 0.3])
OUTLIERS = 0.1


def axes(rng: Any, n: int) -> Array:
    found = rng.normal(size=(n, 3))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def field(rng: Any, n: int) -> Array:
    """Deviations ``(n, 3, 3)``: 5 % along each axis, give or take 2 %, and up to 2 % between axes."""
    return 0.05 * np.eye(3) + rng.uniform(-0.02, 0.02, (n, 3, 3))


def gradients(L: Array) -> Array:
    """What each voxel sees ``(n, M, 3)``, of length one where nothing deviates."""
    return BVEC @ (np.eye(3) + L).transpose(0, 2, 1)


def dti(v: Array, rng: Any) -> tuple[Array, dict[str, Array]]:
    frames = np.linalg.qr(rng.normal(size=(len(v), 3, 3)))[0]
    D = np.einsum("nij,j,nkj->nik", frames, DECAY, frames)
    md = DECAY.mean()
    fa = np.sqrt(1.5 * ((DECAY - md) ** 2).sum() / (DECAY**2).sum())
    one = np.ones(len(v))
    return np.exp(-BVAL * np.einsum("nmi,nij,nmj->nm", v, D, v)), {"MD": md * one, "FA": fa * one}


def ball_stick(v: Array, rng: Any) -> tuple[Array, dict[str, Array]]:
    n = len(v)
    f, D_par, D_iso = rng.normal(0.5, 0.08, n), rng.normal(1.8, 0.15, n), rng.normal(0.9, 0.1, n)
    b = BVAL * (v**2).sum(-1)
    along = BVAL * np.einsum("nmi,ni->nm", v, axes(rng, n)) ** 2
    clean = f[:, None] * np.exp(-along * D_par[:, None]) + (1 - f[:, None]) * np.exp(-b * D_iso[:, None])
    return clean, {"f": f, "D_par": D_par, "D_iso": D_iso}


def msdki(v: Array, rng: Any) -> tuple[Array, dict[str, Array]]:
    n = len(v)
    D, K = rng.normal(0.9, 0.1, n), rng.normal(0.9, 0.15, n)
    b = BVAL * (v**2).sum(-1)
    bD = b * D[:, None]
    return np.exp(-bD + bD**2 * K[:, None] / 6), {"D": D, "K": K}


CASES: dict[str, tuple[Callable, str]] = {
    "dti": (dti, "least_squares"),
    "ball_stick": (ball_stick, "hierarchical"),
    "msdki": (msdki, "hierarchical"),
}


def measured(clean: Array, rng: Any) -> Array:
    noise = rng.normal(scale=SIGMA, size=(2, *clean.shape))
    return np.hypot(clean + noise[0], noise[1])


def rows(case: str, y: Array, truth: dict[str, Array], ways: Iterable[tuple[str, dict]], steps: int) -> None:
    """Print bias, RMSE and coverage of each way."""
    recipe = CASES[case][1]
    for name, own in ways:
        settings = {} if recipe == "least_squares" else {"training.steps": steps}
        acquisition = own.pop("acquisition", pq.Acquisition(bval=BVAL, bvec=BVEC))
        seen = own.pop("y", y)
        call: dict[str, Any] = {"signal": case, "recipe": recipe, "sigma": SIGMA, "settings": settings, "causes": False}
        found = pq.fit(seen, acquisition, **call, **own).posterior(seen, **own)
        for parameter, value in truth.items():
            error = found.mean[parameter].numpy() - value
            low, high = found.interval(0.9)[parameter].numpy().T
            print(
                f"| {case}, {recipe} | {name} | {parameter} | {np.nanmean(error) / value.mean():+.1%} | "
                f"{np.sqrt(np.nanmean(error**2)):.3g} | {np.mean((low < value) & (value < high)):.2f} |", flush=True,
            )  # fmt: skip


def main() -> None:
    """Print the rows: case, way, parameter, bias over the mean, RMSE, 90 % intervals contain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["field", "outliers"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--voxels", type=int, default=600)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for case in given.cases:
        rng, n = np.random.default_rng(given.seed), given.voxels
        L = field(rng, n) if given.what == "field" else np.zeros((n, 3, 3))
        clean, truth = CASES[case][0](gradients(L), rng)
        y = measured(clean, rng)
        if given.what == "field":
            rows(case, y, truth, [("as played out", {}), ("with grad_dev", {"grad_dev": L})], given.steps)
            continue
        weights = (rng.random(y.shape) > OUTLIERS).astype(float)
        bad = np.where(weights > 0, y, 0.3 * y)  # as after a signal dropout
        ways = [("all count", {"y": bad}), ("with weights", {"y": bad, "weights": weights}), ("no outliers", {})]
        rows(case, y, truth, ways, given.steps)


if __name__ == "__main__":
    main()
