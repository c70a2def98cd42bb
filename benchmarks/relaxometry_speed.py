"""Least squares of relaxometry: a call of `pyroqmri.fit` with its maps, beside a loop of scipy over the voxels.

    python -m benchmarks.relaxometry_speed --signals t2_epg mwf

Both have the same measurements of ``typical_tissue`` on the default protocol at SNR 50, one thread, and seconds of CPU;
scipy's `least_squares` has its default method, the truth's mean as start, bounds, and an equation in numpy.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import least_squares

import pyroqmri as pq
from benchmarks.myelin_water import echoes
from benchmarks.relaxometry import EQUATIONS
from benchmarks.relaxometry_recipes import EQUATIONS as MORE
from pyroqmri.signals import SIGNALS, BoundSignal

SNR, LOOPED = 50.0, 60
Equation = Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], np.ndarray]


def t1_vfa(s: dict[str, np.ndarray], t: dict[str, np.ndarray]) -> np.ndarray:
    """Spoiled gradient echo."""
    e = np.exp(-s["tr"] / t["T1"])
    return np.sin(s["flip"]) * (1 - e) / (1 - e * np.cos(s["flip"]))


def t2_epg(s: dict[str, np.ndarray], t: dict[str, np.ndarray]) -> np.ndarray:
    """Phase graph, state by state."""
    return echoes(np.asarray(t["T2"]).squeeze(-1), np.asarray(t["B1"]).squeeze(-1), len(s["te"]))


def mwf(s: dict[str, np.ndarray], t: dict[str, np.ndarray]) -> np.ndarray:
    """Two pools on it."""
    pools = [t2_epg(s, {"T2": t[key], "B1": t["B1"]}) for key in ("T2_my", "T2_ie")]
    return t["MWF"] * pools[0] + (1 - t["MWF"]) * pools[1]


def equation(name: str) -> Equation:
    """The signal in numpy."""
    if name in EQUATIONS:
        return lambda s, t: EQUATIONS[name](s, **t)
    return {**MORE, "t1_vfa": t1_vfa, "t2_epg": t2_epg, "mwf": mwf}[name]


def drawn(name: str, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Parameters of white matter and S0, each ``(N, 1)``."""
    tissue = SIGNALS[name].typical_tissue["white matter"]
    found = {key: mean + sd * rng.standard_normal((n, 1)).clip(-2, 2) for key, (mean, sd) in tissue.items()}
    return found | {"S0": 1000 * (1 + 0.1 * rng.standard_normal((n, 1)).clip(-2, 2))}


def run(name: str, n: int) -> str:
    """A line of the table: voxels a second of both, and how often they agree."""
    model, rng = SIGNALS[name], np.random.default_rng(0)
    assert model.default_protocol is not None
    settings = {key: value.double().numpy() for key, value in model.default_protocol.settings().items()}
    formula, truth = equation(name), drawn(name, n, rng)
    ones = {key: np.ones((n, 1)) for key in model.inputs if key == "B1"}
    own = {key: value for key, value in truth.items() if key != "S0"} | ones
    clean = truth["S0"] * formula(settings, own)
    clean = clean if model.signed else np.abs(clean)
    sigma = float(np.abs(clean).max(1).mean() / SNR)
    y = clean + sigma * rng.standard_normal(clean.shape)
    y = y if model.signed else np.abs(y)
    call = {"signal": name, "recipe": "least_squares", "sigma": sigma, "likelihood": "gaussian", "s0": "inferred"}
    begin = time.process_time()
    mean = pq.fit(y, model.default_protocol, **call).posterior(y).mean
    ours = n / (time.process_time() - begin)
    bound = BoundSignal(model, model.default_protocol)
    keys, free = [p.name for p in bound.tissue], bound.tissue
    start = np.array([float(truth[key].mean()) for key in (*keys, "S0")])
    limits = [(p.lower, p.upper) for p in free] + [(0.0, np.inf)]

    def residual(x: np.ndarray, row: np.ndarray) -> np.ndarray:
        theta = {key: np.array([[value]]) for key, value in zip(keys, x[:-1], strict=True)}
        return (x[-1] * formula(settings, theta | {key: np.ones((1, 1)) for key in ones}) - row).ravel()

    begin = time.process_time()
    looped = [
        least_squares(residual, start, bounds=tuple(zip(*limits, strict=True)), x_scale=start, args=(row,)).x
        for row in y[:LOOPED]
    ]
    scipys = LOOPED / (time.process_time() - begin)
    off = np.abs(mean[keys[0]][:LOOPED].numpy() / np.array(looped)[:, 0] - 1)
    return f"| `{name}` | {ours:.3g} | {scipys:.3g} | {ours / scipys:.3g} | {np.mean(off < 0.01):.0%} |"


def main() -> None:
    """Print lines of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", nargs="*", required=True)
    parser.add_argument("--n", type=int, default=3000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.signals:
        print(run(name, args.n), flush=True)


if __name__ == "__main__":
    main()
