"""Seconds to fit 10,000 voxels of MS-DKI, A288, with each generative recipe; on CUDA, a million voxels as well.

    python -m benchmarks.recipes_time
    python -m benchmarks.recipes_time --device cuda --recipes hierarchical vae_gmm

Without CUDA each recipe is fitted on one thread; exit 1 when one takes over a minute of the processor. With
``--device cuda`` a million simulated voxels are fitted and mapped, and the same weights map some of them on the
CPU: how far the two lie apart is kept beside time and memory. ``--voxels`` makes either smaller. Rows are added to
``benchmarks/results/recipes_time.json``; a row of the same recipe, device and size is replaced.
"""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import pyroqmri as pq
from benchmarks.protocols import protocol
from pyroqmri.fitting.schema import list_recipes
from pyroqmri.measurements.arguments import pick_device
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import clusters, simulate

RESULTS = Path(__file__).parent / "results" / "recipes_time.json"
SNR = 20.0
LIMIT = 60.0  # seconds of one processor
N_CPU, N_CUDA, N_AGREE = 10_000, 1_000_000, 10_000
PIECE = 100_000  # voxels simulated at a time
BATCH_CUDA = 32_768  # small batches leave a GPU waiting for the next launch


def generative() -> list[str]:
    """Names of the recipes that are Pyro programs."""
    return [r.name for r in list_recipes() if r.estimator == "voxel_model"]


def measurements(n: int, seed: int) -> tuple[torch.Tensor, pq.Acquisition]:
    """Measurements ``(n, 288)`` of the three tissue clusters, simulated piece by piece."""
    acq = protocol("A288")
    y = torch.empty(n, len(acq))
    for i in range(0, n, PIECE):
        piece = min(PIECE, n - i)
        theta, _ = clusters(piece, seed + i)
        y[i : i + piece] = simulate(MSDKI, acq, theta, snr=SNR, seed=seed + i + 1)
    return y, acq


def peak_gb(device: str) -> float:
    """Largest memory so far in GB (1e9 bytes): allocated on the GPU, or resident in this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def agreement(fit: pq.Fit, y: torch.Tensor, there: Any) -> dict[str, float]:
    """How far the maps of the same weights on the CPU lie from ``there``, over the posterior sd.

    Median and largest over voxels and parameters, and the largest change of an sd over the sd.
    """
    assert fit.model is not None
    assert fit.guide is not None
    fit.model.cpu()
    fit.guide.cpu()
    here = fit.posterior(y)
    off = torch.stack([(here.mean[k] - there.mean[k][: len(y)]).abs() / here.sd[k] for k in here.mean])
    sd = torch.stack([(here.sd[k] - there.sd[k][: len(y)]).abs() / here.sd[k] for k in here.sd])
    return {"mean_off_median": float(off.median()), "mean_off_max": float(off.max()), "sd_off_max": float(sd.max())}


def measure(
    recipe: str, y: torch.Tensor, acq: pq.Acquisition, device: str, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Fit and map all voxels; wall and processor seconds of both, peak memory, and agreement with the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    fit = pq.fit(
        y, acq, signal="msdki", recipe=recipe, sigma=1 / SNR, s0=1.0, seed=seed, device=device, settings=settings
    )
    fit_wall, fit_cpu = time.perf_counter() - wall, time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    posterior = fit.posterior(y)
    finite = all(bool(torch.isfinite(posterior.mean[k]).all()) for k in posterior.mean)
    row = {
        "recipe": recipe,
        "device": device,
        "voxels": len(y),
        "seed": seed,
        "settings": settings,
        "fit_seconds": fit_wall,
        "fit_cpu_seconds": fit_cpu,
        "apply_seconds": time.perf_counter() - wall,
        "apply_cpu_seconds": time.process_time() - cpu,
        "peak_gb": peak_gb(device),
        "finite": finite,
        "elbo": fit.elbo[-1],
    }
    if device == "cuda":
        row |= agreement(fit, y[:N_AGREE], posterior)
    return row


def keep(rows: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Add rows to the results, each with the machine it was measured on."""
    made = {
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": version("torch"),
        "pyro": version("pyro-ppl"),
        "threads": torch.get_num_threads(),
        "snr": SNR,
    }
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {(r["recipe"], r["device"], r["voxels"]): r for r in [*kept, *(row | {"made": made} for row in rows)]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"rows": list(new.values())}, indent=1) + "\n")


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    said = (
        f"{row['recipe']:22} {row['device']:4} {row['voxels']:>9,} voxels   fit {row['fit_cpu_seconds']:6.1f} s of the "
        f"processor ({row['fit_seconds']:.1f} s)   apply {row['apply_seconds']:6.1f} s   {row['peak_gb']:.2f} GB"
    )
    if "mean_off_max" in row:
        said += f"   off the CPU's by {row['mean_off_median']:.1e} sd, {row['mean_off_max']:.1e} at most"
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 1 when a recipe took too long or left a hole in a map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=generative())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--voxels", type=int, help=f"{N_CPU:,} on the CPU and {N_CUDA:,} on CUDA by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", help="recipe entries to change, as JSON")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pick_device(given.device)  # says at once when there is no CUDA
    n = (N_CUDA if given.device == "cuda" else N_CPU) if given.voxels is None else given.voxels
    settings = {"training.batch_size": BATCH_CUDA} if given.device == "cuda" else {}
    settings |= json.loads(given.settings) if given.settings else {}
    y, acq = measurements(n, given.seed)
    held = True
    for recipe in given.recipes:
        if given.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row = measure(recipe, y, acq, given.device, given.seed, settings)
        keep([row], given.results)
        print(line(row), flush=True)
        # a fit of another size than the promise's has another limit
        held &= row["finite"] and (n != N_CPU or given.device != "cpu" or row["fit_cpu_seconds"] <= LIMIT)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
