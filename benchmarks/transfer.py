"""A fit on another protocol, over one trained there: RMSE and coverage on simulated voxels.

    python -m benchmarks.transfer msdki hierarchical --voxels 1500 --seeds 2

Signals are written here in numpy, apart from the package. The fit learns on protocol A, from other voxels; a second one
learns on B; both estimate the same third set of voxels measured by B, which is another protocol, half of A, or A in
other directions.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

import pyroqmri as pq

Array = np.ndarray


class Row(NamedTuple):
    """RMSE of the posterior mean by a fit of another protocol and by one trained there, and coverage of both."""

    rmse: float
    there: float
    coverage: float
    coverage_there: float


def sphere(n: int, seed: int = 0) -> Array:
    """``n`` unit vectors ``(n, 3)``, spread over the sphere."""
    k = np.arange(n) + 0.5
    z, phi = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k + seed
    return np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z], -1)


def diffusion(n_b0: int, n: int, *b: float, seed: int = 0) -> dict[str, Array]:
    """b0s and shells of ``n`` directions each."""
    axes = [sphere(n, seed + i) for i in range(len(b))]
    return {"bval": np.repeat([0.0, *b], [n_b0, *[n] * len(b)]), "bvec": np.concatenate([np.zeros((n_b0, 3)), *axes])}


def two_tissues(rng: Any, n: int, **values: tuple[float, float, float, float]) -> dict[str, Array]:
    """Normals about one of two means each, half of the voxels in either."""
    second = rng.random(n) < 0.5
    return {
        name: np.where(second, rng.normal(m2, s2, n), rng.normal(m1, s1, n))
        for name, (m1, s1, m2, s2) in values.items()
    }


def msdki(acq: Mapping[str, Array], t: Mapping[str, Array], rng: Any) -> Array:
    b, D, K = acq["bval"], t["D"][:, None], t["K"][:, None]
    return np.exp(-b * D + b**2 * D**2 * K / 6)


def ivim(acq: Mapping[str, Array], t: Mapping[str, Array], rng: Any) -> Array:
    b, f = acq["bval"], t["f"][:, None]
    return f * np.exp(-b * t["D_fast"][:, None]) + (1 - f) * np.exp(-b * t["D_slow"][:, None])


def t2_decay(acq: Mapping[str, Array], t: Mapping[str, Array], rng: Any) -> Array:
    return t["S0"][:, None] * np.exp(-acq["te"] / t["T2"][:, None])


def t1_inversion(acq: Mapping[str, Array], t: Mapping[str, Array], rng: Any) -> Array:
    decay = np.exp(-acq["ti"] / t["T1"][:, None])
    return t["S0"][:, None] * np.abs(1 - 2 * t["inv_eff"][:, None] * decay)


def t1_vfa(acq: Mapping[str, Array], t: Mapping[str, Array], rng: Any) -> Array:
    left = np.exp(-acq["tr"] / t["T1"][:, None])
    return t["S0"][:, None] * np.sin(acq["flip"]) * (1 - left) / (1 - left * np.cos(acq["flip"]))


def ball_stick(acq: Mapping[str, Array], t: Mapping[str, Array], rng: Any) -> Array:
    axes = rng.normal(size=(len(t["f"]), 3))
    cosine = axes @ acq["bvec"].T / np.linalg.norm(axes, axis=1, keepdims=True)
    b, f = acq["bval"], t["f"][:, None]
    stick = np.exp(-b * t["D_par"][:, None] * cosine**2)
    return f * stick + (1 - f) * np.exp(-b * t["D_iso"][:, None])


_LOW = [0, 0, 0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.4, 0.8]
# signal in numpy, protocol A, protocol B, noise level over S0, tissue
CASES: dict[str, tuple[Callable, dict, dict, float, dict]] = {
    "msdki": (
        msdki,
        {"bval": np.repeat([0.0, 1, 2, 3], [12, 32, 32, 32])},
        {"bval": np.repeat([0.0, 0.7, 1.4, 2.5], [6, 16, 16, 16])},
        0.08,
        {"D": (0.8, 0.08, 1.0, 0.1), "K": (1.0, 0.15, 0.7, 0.12)},
    ),
    "ivim": (
        ivim,
        {"bval": np.repeat(_LOW, 2)},
        {"bval": np.array([0, 0, 0, 0.015, 0.04, 0.06, 0.12, 0.15, 0.3, 0.5, 0.6, 0.7])},
        1 / 30,
        {"f": (0.1, 0.02, 0.2, 0.04), "D_fast": (20, 4, 40, 8), "D_slow": (0.8, 0.08, 1.2, 0.1)},
    ),
    "t2_decay": (
        t2_decay,
        {"te": np.arange(10.0, 330, 20)},
        {"te": np.arange(15.0, 260, 35)},
        0.04,
        {"T2": (70, 7, 95, 12), "S0": (1.0, 0.1, 0.8, 0.1)},
    ),
    "t1_inversion": (
        t1_inversion,
        {"ti": np.array([50.0, 100, 200, 350, 500, 700, 950, 1300, 1700, 2200, 3000, 4500])},
        {"ti": np.array([80.0, 250, 600, 1100, 1900, 2600, 4000])},
        0.03,
        {"T1": (850, 50, 1350, 90), "inv_eff": (0.96, 0.01, 0.95, 0.01), "S0": (1.0, 0.1, 0.85, 0.1)},
    ),
    "t1_vfa": (
        t1_vfa,
        {"flip": np.deg2rad(np.repeat([2.0, 4, 8, 12, 16, 20], 2)), "tr": np.full(12, 15.0)},
        {"flip": np.deg2rad([3.0, 5, 7, 10, 15, 18, 25]), "tr": np.full(7, 15.0)},
        0.005,
        {"T1": (850, 50, 1350, 90), "S0": (1.0, 0.1, 0.85, 0.1)},
    ),
    "ball_stick": (
        ball_stick,
        diffusion(6, 32, 1.0, 2.0),
        diffusion(4, 20, 0.7, 1.6, seed=5),
        0.05,
        {"f": (0.55, 0.08, 0.3, 0.06), "D_par": (1.9, 0.15, 1.6, 0.15), "D_iso": (0.7, 0.08, 0.95, 0.1)},
    ),
}


def protocol_b(case: str, change: str) -> dict[str, Array]:
    """Settings of the protocol that the fit is applied to."""
    a, b = CASES[case][1:3]
    if change == "half":
        return {name: value[::2] for name, value in a.items()}
    return b if change == "other" else diffusion(6, 32, 1.0, 2.0, seed=17)


def measured(case: str, acq: Mapping[str, Array], n: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Tissue and Rician magnitudes ``(n, M)``."""
    rng = np.random.default_rng(seed)
    signal, _, _, sigma, values = CASES[case]
    tissue = two_tissues(rng, n, **values)
    clean = signal(acq, tissue, rng)
    noise = rng.normal(scale=sigma, size=(2, *clean.shape))
    return tissue, np.hypot(clean + noise[0], noise[1]).astype(np.float32)


def settings_of(one: Mapping[str, Array]) -> pq.Acquisition:
    """The protocol as the package takes it."""
    return pq.Acquisition(**{k: torch.as_tensor(np.array(v), dtype=torch.float32) for k, v in one.items()})


def compared(
    case: str, recipe: str, n: int, seed: int, settings: Mapping[str, Any], changes: Sequence[str] = ("other",)
) -> dict[str, Row]:
    """By parameter, or change and parameter of several: RMSE by the fit of A and by that of B, and coverage of both."""
    sigma = CASES[case][3]
    call: dict[str, Any] = {"signal": case, "recipe": recipe, "sigma": sigma, "settings": settings, "seed": seed}
    begin = time.monotonic()
    learned = pq.fit(measured(case, CASES[case][1], n, 3 * seed + 1)[1], settings_of(CASES[case][1]), **call)
    trained, rows = time.monotonic() - begin, {}
    for change in changes:
        b = protocol_b(case, change)
        acq = settings_of(b)
        there = pq.fit(measured(case, b, n, 3 * seed + 2)[1], acq, **call)
        truth, y = measured(case, b, n, 3 * seed + 3)
        begin = time.monotonic()
        one = learned.posterior(y, acquisition=acq)
        print(f"# {case} {recipe} {change}: {trained:.1f} s to train, {time.monotonic() - begin:.1f} s to apply")
        for name, row in _rows(one, there.posterior(y), truth).items():
            rows[name if len(changes) == 1 else f"{change} {name}"] = row
    return rows


def _rows(one: Any, other: Any, truth: Mapping[str, Array]) -> dict[str, Row]:
    rows = {}
    for name, value in truth.items():
        if name not in one.mean:
            continue
        errors = [float(np.sqrt(np.nanmean((p.mean[name].numpy() - value) ** 2))) for p in (one, other)]
        ends = [p.interval(0.9)[name].numpy().T for p in (one, other)]
        inside = [float(np.mean((low < value) & (value < high))) for low, high in ends]
        rows[name] = Row(*errors, *inside)
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("recipe")
    parser.add_argument("--voxels", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--changes", nargs="+", default=["other"], choices=["other", "half", "directions"])
    given = parser.parse_args()
    settings = {} if given.steps is None else {"training.steps": given.steps}
    if "directions" in given.changes and "bvec" not in CASES[given.case][1]:
        parser.error(f"{given.case} has no directions here")
    for seed in range(given.first, given.first + given.seeds):
        for name, row in compared(given.case, given.recipe, given.voxels, seed, settings, given.changes).items():
            figures = [f"{row.rmse:.4g}", f"{row.there:.4g}", f"{row.rmse / row.there:.3f}", f"{row.coverage:.3f}"]
            figures.append(f"{row.coverage_there:.3f}")
            print("| " + " | ".join([given.case, given.recipe, str(seed), name, *figures]) + " |", flush=True)


if __name__ == "__main__":
    main()
