"""Thirty of 120 candidates: posterior variance over the even choice's, on simulated voxels.

    python -m benchmarks.design_gain msdki --voxels 1000

The population is learned from voxels of :mod:`benchmarks.transfer` on its protocol A. ``classic`` is the choice that
published schemes are made by: the least sum of Cramer-Rao bounds, each over its parameter's square, at one tissue (Poot
et al. 2010, doi:10.1109/TMI.2009.2037915, for kurtosis). ``published`` are as many measurements of a scheme in use.
"""

import argparse
import itertools
import time

import numpy as np
import torch

import pyroqmri as pq
from benchmarks.transfer import CASES, measured, sphere
from pyroqmri.planning.plan import plan
from pyroqmri.planning.simulated import checked, simulated

ZHAO = [0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.4, 0.8]  # as in Epstein et al. 2022, arXiv:2205.05587
TR = 15.0


def two_flips(t1: float) -> np.ndarray:
    """The flip angles (rad) at which the signal is 0.71 of that at the Ernst angle (Deoni et al. 2003)."""
    left, angles = np.exp(-TR / t1), np.deg2rad(np.linspace(0.5, 60, 20_000))
    signal = np.sin(angles) * (1 - left) / (1 - left * np.cos(angles))
    return angles[signal >= 0.71 * signal.max()][[0, -1]]


def published(case: str) -> dict[str, np.ndarray]:
    """Thirty measurements of a scheme in use; empty where there is none."""
    if case == "ivim":
        return {"bval": np.repeat(ZHAO, 3)}
    if case == "t1_vfa":
        t1 = (CASES[case][4]["T1"][0] + CASES[case][4]["T1"][2]) / 2
        return {"flip": np.repeat(two_flips(t1), 15), "tr": np.full(30, TR)}
    two_shells = np.repeat([0.0, 1.0, 2.0], [2, 14, 14])
    axes = np.concatenate([np.zeros((2, 3)), sphere(14), sphere(14, 1)])
    return {"msdki": {"bval": two_shells}, "ball_stick": {"bval": two_shells, "bvec": axes}}.get(case, {})


def with_more(offered: pq.Acquisition, more: dict[str, np.ndarray]) -> pq.Acquisition:
    """Candidates followed by other measurements."""
    have = offered.settings()
    extra = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in more.items()}
    return pq.Acquisition(**{name: torch.cat([have[name], value]) for name, value in extra.items()})


def candidates_of(case: str) -> pq.Acquisition:
    """120 candidates over the range that a scanner has."""
    if case == "t2_decay":
        return pq.Acquisition(te=torch.linspace(5, 360, 120))
    if case == "t1_inversion":
        return pq.Acquisition(ti=torch.linspace(30, 4500, 120))
    if case == "t1_vfa":
        angles = np.repeat([2.0, 3, 4, 5, 6, 8, 10, 13, 16, 19, 22, 26], 10)
        return pq.Acquisition(flip=np.deg2rad(angles), tr=np.full(120, TR))
    if case == "ivim":
        return pq.Acquisition(bval=torch.tensor(np.repeat([0, *np.geomspace(0.005, 1.0, 19)], 6), dtype=torch.float32))
    b = np.repeat([0.0, *np.arange(0.5, 3.01, 0.5)], [12, *[18] * 6])
    if case == "msdki":
        return pq.Acquisition(bval=b)
    axes = np.concatenate([np.zeros((12, 3)), *[sphere(18, i) for i in range(6)]])
    return pq.Acquisition(bval=b, bvec=axes)


def bounds(rows: np.ndarray, theta: np.ndarray) -> float:
    """Sum of the variances of parameters that slopes ``(n, P)`` bound, each over its parameter's square."""
    information = rows.T @ rows
    if np.linalg.cond(information) > 1e10:
        return np.inf
    return float((np.diag(np.linalg.inv(information)) / theta**2)[:-1].sum())


def classic(case: str, offered: pq.Acquisition, n: int) -> torch.Tensor:
    """Candidates ``(n,)`` of the least Cramer-Rao bounds at the mean tissue, by exchange from the even choice."""
    signal, _, _, _, values = CASES[case]
    acq = {
        k: getattr(offered, k).numpy()
        for k in ("bval", "bvec", "te", "ti", "flip", "tr")
        if getattr(offered, k) is not None
    }
    theta = {name: np.array([(m1 + m2) / 2]) for name, (m1, _, m2, _) in values.items()}
    clean = signal(acq, theta, np.random.default_rng(0))[0]
    slopes = []
    for name, value in theta.items():
        other = {**theta, name: value * 1.001}
        slopes.append((signal(acq, other, np.random.default_rng(0))[0] - clean) / (0.001 * value))
    rows, at = np.stack([*slopes, clean], 1), np.array([*(v[0] for v in theta.values()), 1.0])
    if "S0" in theta:
        rows, at = rows[:, :-1], at[:-1]
    index = list(np.linspace(0, len(clean) - 1, n).astype(int))
    best, before = bounds(rows[index], at), np.inf
    while best < before * (1 - 1e-6):
        before = best
        for place in range(n):
            for candidate in set(range(len(clean))) - set(index):
                tried = [*index[:place], candidate, *index[place + 1 :]]
                if (value := bounds(rows[tried], at)) < best:
                    index, best = tried, value
    return torch.tensor(sorted(index))


def main() -> None:
    """Print the choice and what it gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--each", action="store_true", help="they count one by one")
    parser.add_argument("--parameters", nargs="+", help="those that count; all by default")
    given = parser.parse_args()
    _, a, _, sigma, _ = CASES[given.case]
    acq = pq.Acquisition(**{k: torch.as_tensor(v, dtype=torch.float32) for k, v in a.items()})
    y = measured(given.case, a, given.voxels, 1)[1]
    settings = {} if given.steps is None else {"training.steps": given.steps}
    fit = pq.fit(y, acq, signal=given.case, recipe="hierarchical", sigma=sigma, settings=settings)
    offered = candidates_of(given.case)
    begin = time.monotonic()
    found = plan(fit, offered, given.n, parameters=given.parameters, each=given.each)
    print(f"{given.case}: {time.monotonic() - begin:.1f} s", *found.sentences(), sep="\n  ")
    choices = {"chosen": found.index, "even": found.even, "classic": classic(given.case, offered, given.n)}
    more, everything = published(given.case), offered
    if more:
        everything = with_more(offered, more)
        choices["published"] = torch.arange(len(offered), len(everything))
    for which, setting in itertools.product(("chosen", "classic"), ("bval", "te", "ti", "flip")):
        if getattr(offered, setting) is not None:
            offer = getattr(offered, setting)[choices[which]].numpy()
            values, counts = np.unique(np.round(offer, 3), return_counts=True)
            print(f"  {which} {setting}", ", ".join(f"{v:g} x {c}" for v, c in zip(values, counts, strict=True)))
    for seed in range(given.seeds):
        tried = simulated(fit, everything, choices, given.voxels, seed)
        for name in tried["even"].variance:
            ratio = tried["chosen"].variance[name] / tried["even"].variance[name]
            error = tried["chosen"].rmse[name] / tried["even"].rmse[name]
            inside, even = tried["chosen"].coverage[name], tried["even"].coverage[name]
            others = ", ".join(
                f"{which} {tried['chosen'].variance[name] / one.variance[name]:.3f} and "
                f"{tried['chosen'].rmse[name] / one.rmse[name]:.3f}"
                for which, one in tried.items() if which not in ("chosen", "even")
            )  # fmt: skip
            print(f"  {name}: variance {ratio:.3f} of the even choice's, RMSE {error:.3f} (of {others}), "
                  f"90 % intervals contain {inside:.3f} (even {even:.3f})", flush=True)  # fmt: skip
    print("  check of the choice:", checked(fit, offered[found.index], given.voxels))


if __name__ == "__main__":
    main()
