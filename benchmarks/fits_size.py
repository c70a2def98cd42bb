"""One IVIM fit of a given number of voxels: prints microseconds a voxel, and megabytes before and at most."""

import os
import resource
import sys
import time

import torch

import pyroqmri as pq
from benchmarks.fits import IVIM_B, Problem, magnitudes, truth
from pyroqmri.signals import IVIM, BoundSignal


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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = clock()
    problem()
    print(1e6 * (clock() - begin) / n, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


one(sys.argv[1], int(sys.argv[2]))
