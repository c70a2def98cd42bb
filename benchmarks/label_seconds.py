"""Seconds for 100,000 maximum-likelihood labels of IVIM at SNR 15 on one thread.

Run ``python -m benchmarks.label_seconds``; written to ``benchmarks/results/label_seconds.json``. CPU seconds are what
an idle machine takes; the wall clock says how busy this one was.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch

import pyroqmri as pq
from benchmarks.protocols import protocol
from benchmarks.training_labels import truth
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate

RESULTS = Path(__file__).parent / "results" / "label_seconds.json"


def main() -> None:
    """Time both likelihoods and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    y = simulate(SIGNALS["ivim"], protocol("epstein"), truth(0, args.voxels), snr=15, seed=1).float()
    rows = {}
    for recipe, noise in (("maximum_likelihood", "rician"), ("least_squares", "gaussian")):
        fit = pq.fit(y, protocol("epstein"), signal="ivim", recipe=recipe, sigma=1 / 15, s0="inferred")
        wall, cpu = time.perf_counter(), time.process_time()
        found = fit.posterior(y).mean["D_slow"]
        rows[noise] = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(noise, args.voxels, rows[noise], "voxels with an estimate:", int(torch.isfinite(found).sum()), flush=True)
    made = {"machine": platform.machine(), "torch": torch.__version__, "voxels": args.voxels}
    RESULTS.write_text(json.dumps(made | {"seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
