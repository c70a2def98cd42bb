"""The search that guides start from, set to the job of the classical one: maximum likelihood inside the bounds.

Run ``python -m benchmarks.two_searches``; kept in ``benchmarks/results/two_searches.json``. 5,000 voxels of tissue, SNR
20, Rician noise: CPU seconds, and how far below the better of the two each one's log-likelihood ends.
"""

import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

import pyroqmri as pq
from benchmarks.fits import magnitudes, truth
from benchmarks.protocols import protocol
from pyroqmri.laplace.start import mode_under_prior
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.voxelwise.search import Search, search

RESULTS = Path(__file__).parent / "results" / "two_searches.json"
CASES = {"msdki": "A4", "ivim": "epstein", "ball_stick": "demo"}
N, SNR, STEPS = 5000, 20.0, 100


@torch.no_grad()
def row(name: str) -> dict[str, Any]:
    """Both searches over the same voxels."""
    acq = protocol(CASES[name])
    y = magnitudes(BoundSignal(SIGNALS[name], acq)(truth(name, N)), 1 / SNR, 1)
    fit = pq.fit(y, acq, signal=name, recipe="maximum_likelihood", sigma=1 / SNR, s0=1.0)
    batch = fit.preparation(y, torch.tensor(1 / SNR), acq)
    voxels = batch.voxels
    begin = time.process_time()
    found = search(fit.signal, fit.likelihood, batch, Search())
    seconds = time.process_time() - begin
    flat = 1e-6 * torch.eye(fit.signal.n_latents)
    begin = time.process_time()
    mode, frame = mode_under_prior(voxels, fit.signal, fit.likelihood, flat, STEPS)
    other = time.process_time() - begin

    def value(theta: Any) -> torch.Tensor:
        return fit.likelihood.information(fit.signal(theta), voxels.y, voxels.noise).log_prob.sum(-1)

    ours = value(found.theta)
    theirs = value(fit.signal.constrain(mode.z, frame))
    best = torch.maximum(ours, theirs)
    return {
        "voxels": N,
        "voxelwise, CPU s": round(seconds, 2), "laplace, CPU s": round(other, 2),
        "voxelwise, 0.01 nats or more below the better": float((best - ours > 0.01).float().mean()),
        "laplace, 0.01 nats or more below the better": float((best - theirs > 0.01).float().mean()),
        "laplace, converged": float(mode.converged.float().mean()),
    }  # fmt: skip


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    rows = {name: row(name) for name in CASES}
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1, "snr": SNR}
    RESULTS.write_text(json.dumps({"made": made, "rows": rows}, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
