"""The fits that relaxometry is usually done with, in numpy, on the voxels of `benchmarks.relaxometry`: equal data.

    python -m benchmarks.usual_fits

`t1_inversion_ab`: Barral's reduced search, a and b in closed form at each T1 from 1 to 5000 ms in steps of 1 ms, and
for magnitudes the polarity with the lesser misfit, the smallest measurement turned or not (doi:10.1002/mrm.22497).
`t1_vfa`: a line through S / sin against S / tan, plain and with the weights of Chang et al. 2008
(doi:10.1002/mrm.21669). `t2star_decay`: a line through the logarithm. The columns beside them are the rows that
`benchmarks.relaxometry` kept. Myelin water has a file of its own.
"""

import json
from collections.abc import Callable

import numpy as np

from benchmarks.relaxometry import RESULTS, SNRS, rms, simulated
from pyroqmri.signals import SIGNALS

GRID = np.arange(1.0, 5001.0)
VOXELS = 2000  # where no row is kept
TURNS = 4  # rounds in which the weights of the line follow its slope
Fit = Callable[[dict[str, np.ndarray], np.ndarray, np.ndarray], np.ndarray]


def reduced_grid(ti: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T1 of signed recoveries ``(N, M)`` and what of their sum of squares it explains, each ``(N,)``."""
    shape = np.exp(-ti / GRID[:, None])
    shape -= shape.mean(1, keepdims=True)
    explained = ((y - y.mean(1, keepdims=True)) @ shape.T) ** 2 / (shape**2).sum(1)
    best = explained.argmax(1)
    return GRID[best], explained[np.arange(len(y)), best] - ((y - y.mean(1, keepdims=True)) ** 2).sum(1)


def recovery(s: dict[str, np.ndarray], y: np.ndarray, signed: bool) -> np.ndarray:
    """T1 ``(N,)``; of magnitudes with their polarity restored."""
    order = np.argsort(s["ti"])
    ti, y = s["ti"][order], y[:, order]
    if signed:
        return reduced_grid(ti, y)[0]
    least, at = y.argmin(1)[:, None], np.arange(len(ti))
    tries = [reduced_grid(ti, np.where(at < least + more, -y, y)) for more in (0, 1)]
    return np.where(tries[0][1] > tries[1][1], tries[0][0], tries[1][0])


def line(s: dict[str, np.ndarray], y: np.ndarray, B1: np.ndarray, weighted: bool) -> np.ndarray:
    """T1 ``(N,)`` of a line through S / sin (upwards) against S / tan."""
    angle, tr = B1[:, None] * s["flip"], s["tr"][0]
    up, along, weight = y / np.sin(angle), y / np.tan(angle), np.ones_like(y)
    for _ in range(TURNS if weighted else 1):
        total = weight.sum(1, keepdims=True)
        x, v = (part - (weight * part).sum(1, keepdims=True) / total for part in (along, up))
        slope = ((weight * x * v).sum(1) / (weight * x * x).sum(1)).clip(1e-3, 1 - 1e-4)
        weight = (np.sin(angle) / (1 - slope[:, None] * np.cos(angle))) ** 2
    return -tr / np.log(slope)


def logarithm(s: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """T2* ``(N,)`` of a line through the logarithm, weighted by the square of the signal."""
    weight, value, te = y**2, np.log(y), s["te"]
    total = weight.sum(1)
    x = te - ((weight * te).sum(1) / total)[:, None]
    slope = (weight * x * value).sum(1) / (weight * x * x).sum(1)
    return -1 / np.minimum(slope, -1e-4)


FITS: dict[str, tuple[str, dict[str, Fit]]] = {
    "t1_inversion_ab": ("T1", {"reduced grid": lambda s, y, _: recovery(s, y, False)}),
    "t1_inversion_ab_signed": ("T1", {"reduced grid": lambda s, y, _: recovery(s, y, True)}),
    "t1_vfa": ("T1", {
        "line": lambda s, y, B1: line(s, y, B1, False), "weighted line": lambda s, y, B1: line(s, y, B1, True),
    }),
    "t2star_decay": ("T2star", {"weighted line of the logarithm": lambda s, y, _: logarithm(s, y)}),
}  # fmt: skip


def main() -> None:
    """Print a table."""
    print("| signal | SNR | parameter | usual fit | RMSE | `hierarchical` | voxel by voxel, ours |")
    print("| --- " * 7 + "|")
    rows = {(row["signal"], row["snr"]): row for row in json.loads(RESULTS.read_text()) if not row["fluid"]}
    for name, (key, fits) in FITS.items():
        for snr in SNRS:
            row = rows.get((name, snr), {"n": VOXELS, "seed": 0})
            truth, y, _, inputs = simulated(name, snr, row["n"], False, row["seed"])
            B1 = inputs["B1"].double().numpy() if inputs else np.ones(len(y))
            cell = row["cells"][key] if "cells" in row else {}
            ours = f"{cell['rmse']:.3g} | {cell['voxelwise']:.3g}" if cell else "not run | not run"
            for words, fit in fits.items():
                error = rms(fit(settings_of(name), y, B1) - truth[key])
                print(f"| `{name}` | {snr:g} | {key} | {words} | {error:.3g} | {ours} |", flush=True)


def settings_of(name: str) -> dict[str, np.ndarray]:
    """Settings of a signal's default protocol."""
    protocol = SIGNALS[name].default_protocol
    assert protocol is not None
    return {key: value.double().numpy() for key, value in protocol.settings().items()}


if __name__ == "__main__":
    main()
