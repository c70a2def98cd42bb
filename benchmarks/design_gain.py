"""Thirty of 120 candidates: posterior variance over the even choice's, on simulated voxels.

    python -m benchmarks.design_gain msdki --voxels 1000

The population is learned from voxels of :mod:`benchmarks.transfer` on its protocol A.
"""

import argparse
import time

import numpy as np
import torch

import pyroqmri as pq
from benchmarks.transfer import CASES, measured, sphere
from pyroqmri.planning.plan import plan
from pyroqmri.planning.simulated import simulated


def candidates_of(case: str) -> pq.Acquisition:
    """120 candidates over the range that a scanner has."""
    if case == "t2_decay":
        return pq.Acquisition(te=torch.linspace(5, 360, 120))
    if case == "t1_inversion":
        return pq.Acquisition(ti=torch.linspace(30, 4500, 120))
    if case == "ivim":
        return pq.Acquisition(bval=torch.tensor(np.repeat([0, *np.geomspace(0.005, 1.0, 19)], 6), dtype=torch.float32))
    b = np.repeat([0.0, *np.arange(0.5, 3.01, 0.5)], [12, *[18] * 6])
    if case == "msdki":
        return pq.Acquisition(bval=b)
    axes = np.concatenate([np.zeros((12, 3)), *[sphere(18, i) for i in range(6)]])
    return pq.Acquisition(bval=b, bvec=axes)


def main() -> None:
    """Print the choice and what it gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--voxels", type=int, default=1000)
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    _, a, _, sigma, _ = CASES[given.case]
    acq = pq.Acquisition(**{k: torch.as_tensor(v, dtype=torch.float32) for k, v in a.items()})
    y = measured(given.case, a, given.voxels, 1)[1]
    settings = {} if given.steps is None else {"training.steps": given.steps}
    fit = pq.fit(y, acq, signal=given.case, recipe="hierarchical", sigma=sigma, settings=settings)
    offered = candidates_of(given.case)
    begin = time.monotonic()
    found = plan(fit, offered, given.n)
    print(f"{given.case}: {time.monotonic() - begin:.1f} s", *found.sentences(), sep="\n  ")
    for name in ("bval", "te", "ti"):
        if getattr(offered, name) is not None:
            values, counts = np.unique(np.round(getattr(offered, name)[found.index].numpy(), 3), return_counts=True)
            print("  chosen", name, ", ".join(f"{v:g} x {c}" for v, c in zip(values, counts, strict=True)))
    for seed in range(given.seeds):
        tried = simulated(fit, offered, {"chosen": found.index, "even": found.even}, given.voxels, seed)
        for name in tried["even"].variance:
            ratio = tried["chosen"].variance[name] / tried["even"].variance[name]
            error = tried["chosen"].rmse[name] / tried["even"].rmse[name]
            inside, even = tried["chosen"].coverage[name], tried["even"].coverage[name]
            print(f"  {name}: variance {ratio:.3f} of the even choice's, RMSE {error:.3f}, 90 % intervals contain "
                  f"{inside:.3f} (even {even:.3f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
