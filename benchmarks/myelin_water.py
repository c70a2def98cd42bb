"""Myelin water by `mwf` and by regularised non-negative least squares, on trains simulated in numpy.

    python -m benchmarks.myelin_water --snr 100 300

Echoes are those of a state-by-state phase graph, written apart from the package. With ``--broad`` each pool is a
log-normal distribution of T2 (sd of the logarithm 0.2) in place of one value. Non-negative least squares has 40 times
from 10 to 2000 ms, the refocusing angle with the least misfit of nine, and a penalty on the amplitudes that raises the
misfit by 2 % (Whittall and MacKay 1989, doi:10.1016/0022-2364(89)90011-5); its fraction is that of T2 below 40 ms.
"""

import argparse
import time

import numpy as np
import torch
from scipy.optimize import brentq, nnls

import pyroqmri as pq
from pyroqmri.signals import MWF

TE = np.arange(10.0, 330, 10)
TIMES, ANGLES, RAISED = np.geomspace(10, 2000, 40), np.linspace(0.6, 1.0, 9), 1.02


def echoes(T2: np.ndarray, B1: np.ndarray, n: int = 32, spacing: float = 10.0, T1: float = 1000.0) -> np.ndarray:
    """Echoes ``(..., n)`` of T2 and B1 ``(...)`` by extended phase graphs, state by state."""
    E1, E2 = np.exp(-spacing / 2 / T1), np.exp(-spacing / 2 / T2)[..., None]
    a, k = np.pi * B1[..., None], 2 * n + 2
    up, down, z = (np.zeros((*np.broadcast_shapes(T2.shape, B1.shape), k)) for _ in range(3))
    up[..., 0] = down[..., 0] = 1
    seen = []
    for _ in range(n):
        for refocus in (True, False):
            up, down, z = E2 * up, E2 * down, E1 * z
            up[..., 1:], down[..., :-1] = up[..., :-1].copy(), down[..., 1:].copy()
            down[..., -1], up[..., 0] = 0, down[..., 0]
            if refocus:  # about the axis that the excitation left the magnetisation on
                plus, minus = up.copy(), down.copy()
                up = np.cos(a / 2) ** 2 * plus + np.sin(a / 2) ** 2 * minus + np.sin(a) * z
                down = np.sin(a / 2) ** 2 * plus + np.cos(a / 2) ** 2 * minus - np.sin(a) * z
                z = -np.sin(a) / 2 * (plus - minus) + np.cos(a) * z
        seen.append(up[..., 0])
    return np.stack(seen, -1)


def simulated(n: int, snr: float, broad: bool, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Truths ``(N,)``, magnitudes ``(N, 32)`` of S0 near 1000 and their noise level 1000 / SNR."""
    rng = np.random.default_rng(seed)
    white = [rng.standard_normal(n).clip(-2.5, 2.5) for _ in range(5)]
    truth = {
        "MWF": np.abs(0.09 + 0.045 * white[0]), "T2_my": 18 + 2.5 * white[1], "T2_ie": 82 + 9 * white[2],
        "B1": (0.85 + 0.05 * white[3]).clip(0.6, 0.99), "S0": 1000 * (1 + 0.1 * white[4]),
    }  # fmt: skip
    nodes, weights = np.polynomial.hermite_e.hermegauss(7) if broad else (np.zeros(1), np.ones(1))
    spread, weights = np.exp(0.2 * nodes), weights / weights.sum()
    pools = [
        weights @ echoes(truth[key][:, None] * spread, truth["B1"][:, None]).swapaxes(0, 1).reshape(len(spread), -1)
        for key in ("T2_my", "T2_ie")
    ]
    myelin, other = (pool.reshape(n, -1) for pool in pools)
    clean = truth["S0"][:, None] * (truth["MWF"][:, None] * myelin + (1 - truth["MWF"][:, None]) * other)
    noise = 1000 / snr * rng.standard_normal((2, *clean.shape))
    return truth, np.hypot(clean + noise[0], noise[1]), 1000 / snr


def non_negative(y: np.ndarray) -> np.ndarray:
    """Myelin water fractions ``(N,)`` of trains ``(N, 32)``."""
    bases = [echoes(TIMES, np.full(len(TIMES), angle)).T for angle in ANGLES]
    found = []
    for row in y:
        norms = [nnls(basis, row)[1] for basis in bases]
        basis, least = bases[int(np.argmin(norms))], min(norms) ** 2

        def amplitudes(log_mu: float, basis: np.ndarray = basis, row: np.ndarray = row) -> np.ndarray:
            penalty = np.exp(log_mu) * np.eye(len(TIMES))
            return nnls(np.concatenate([basis, penalty]), np.concatenate([row, np.zeros(len(TIMES))]))[0]

        def excess(log_mu: float, basis: np.ndarray = basis, row: np.ndarray = row, least: float = least) -> float:
            return float(np.sum((basis @ amplitudes(log_mu) - row) ** 2) / least - RAISED)

        at = brentq(excess, -12, 4, xtol=0.05) if excess(-12) < 0 < excess(4) else -12
        x = amplitudes(float(at))
        found.append(x[TIMES < 40].sum() / x.sum())
    return np.array(found)


def main() -> None:
    """Print a line a condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snr", type=float, nargs="*", default=[100.0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broad", action="store_true")
    parser.add_argument("--recipes", nargs="*", default=["maximum_likelihood", "hierarchical"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for snr in args.snr:
        truth, y, sigma = simulated(args.n, snr, args.broad, args.seed)
        begin = time.process_time()
        error = non_negative(y) - truth["MWF"]
        print(f"SNR {snr:g} broad {args.broad}: nnls MWF RMSE {rms(error):.4f} mean error {error.mean():+.4f}, "
              f"{1e3 * (time.process_time() - begin) / args.n:.1f} ms a voxel", flush=True)  # fmt: skip
        for recipe in args.recipes:
            begin = time.process_time()
            fit = pq.fit(y, MWF.default_protocol, signal="mwf", recipe=recipe, sigma=sigma, likelihood="rician")
            post = fit.posterior(y)
            print(f"  {recipe}, {time.process_time() - begin:.0f} s of CPU {fit.warnings}")
            for key in truth:
                value, (low, high) = post.mean[key].numpy(), post.interval(0.9)[key].numpy().T
                inside, error = np.mean((low < truth[key]) & (truth[key] < high)), value - truth[key]
                print(
                    f"    {key}: covered {inside:.3f} RMSE {rms(error):.4g} mean error {error.mean():+.3g}", flush=True
                )


def rms(error: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(error**2)))


if __name__ == "__main__":
    main()
