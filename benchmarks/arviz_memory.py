"""Peak memory of `log_likelihood`, `to_arviz` and the scores of `compare` on 100,000 voxels with 288 measurements.

Run ``python -m benchmarks.arviz_memory``; figures are kept in ``benchmarks/results/arviz_memory.json``. Each is the
peak of a process of its own, interpreter, torch and data included; `data` is one that stops before it computes.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.protocols import protocol
from pyroqmri.comparison.scores import voxel_scores
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.diagnostics.arviz_adapter import import_arviz
from pyroqmri.guides import MapStarted
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior import Posterior
from pyroqmri.priors import StandardNormal
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.voxel_model import VoxelModel

RESULTS = Path(__file__).parent / "results" / "arviz_memory.json"
SIGMA = 0.05
TASKS = ("data", "log_likelihood", "to_arviz", "to_arviz_whole", "scores")


def posterior_of(n: int) -> Posterior:
    """A posterior of ``n`` simulated MS-DKI voxels under an untrained guide that starts at their modes."""
    acq = protocol("A288")
    signal = BoundSignal(MSDKI, acq)
    model = VoxelModel(signal, StandardNormal(2), IdentityDecoder(2), RicianLikelihood(), SIGMA)
    y = torch.empty(n, len(acq))
    for i in range(0, n, 10_000):
        k = len(y[i : i + 10_000])
        clean = signal({"D": 0.8 + 0.8 * torch.rand(k), "K": 0.5 + 0.7 * torch.rand(k)})
        y[i : i + k] = (clean + SIGMA * torch.randn_like(clean)).abs()
    batch = Batch(
        Voxels(y, torch.full((n, 1), SIGMA)), torch.arange(n), torch.ones(n, dtype=torch.uint8), torch.ones(n)
    )
    return Posterior(model, MapStarted(model, len(acq)), batch)


def work(task: str, n: int) -> str:
    """Do one task; what came out, in words."""
    posterior = posterior_of(n)
    if task == "log_likelihood":
        return f"{tuple(posterior.log_likelihood().shape)}"
    if task.startswith("to_arviz"):
        import_arviz()
        data = posterior.to_arviz(slice(None)) if task == "to_arviz_whole" else posterior.to_arviz()
        kept = {g: tuple(data[g][v].shape) for g, v in (("posterior", "D"), ("log_likelihood", "y"))}
        return f"posterior {kept['posterior']}, log_likelihood {kept['log_likelihood']}"
    if task == "scores":
        # leaving out every measurement of more takes hours and no more memory
        scores = voxel_scores(posterior, torch.arange(0, n, max(1, n // 1000)))
        return f"{len(scores.loo)} of {n} voxels, 500 draws"
    return f"{tuple(posterior.batch.voxels.y.shape)}"


def main() -> None:
    """Run every task in a process of its own; write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--task", choices=TASKS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.task is not None:
        begin = time.monotonic()
        said = work(given.task, given.voxels)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(json.dumps({"peak_GiB": round(peak, 2), "seconds": round(time.monotonic() - begin, 1), "what": said}))
        return
    found = {"voxels": given.voxels, "measurements": 288, "machine": platform.machine(), "tasks": {}}
    for task in TASKS:
        command = [sys.executable, "-m", "benchmarks.arviz_memory", "--task", task, "--voxels", str(given.voxels)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found["tasks"][task] = json.loads(done.stdout.splitlines()[-1])
        print(task, found["tasks"][task], flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
