"""One IVIM fit of a given number of voxels: prints microseconds a voxel, and megabytes before and at most."""

import os
import sys
import time
from pathlib import Path

import torch

import pyroqmri as pq
from benchmarks.fits import IVIM_B, Problem, magnitudes, truth
from pyroqmri.signals import IVIM, BoundSignal


def peak() -> float:
    """Most memory this process held, in MB; getrusage would tell of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def one(recipe: str, n: int) -> None:
    """Fit and print."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    clock = time.perf_counter if "FITS_WALL" in os.environ else time.process_time
    acq = pq.Acquisition(bval=IVIM_B)
    y = torch.cat(
        [
            magnitudes(BoundSignal(IVIM, acq)(truth("ivim", min(n, 10_000), i)), 1 / 30, i)
            for i in range(max(1, n // 10_000))
        ]
    )
    problem = Problem("ivim", acq, y, 1 / 30, recipe)
    problem(100)
    before = peak()
    begin = clock()
    problem()
    print(1e6 * (clock() - begin) / n, before, peak())


if __name__ == "__main__":
    one(sys.argv[1], int(sys.argv[2]))
