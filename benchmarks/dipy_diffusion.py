"""DKI and free-water DTI beside dipy: error and time of both on the same voxels, in one process.

    python -m benchmarks.dipy_diffusion dki|fwdti [--voxels N] [--snr 30] [--seed S] [--hierarchical]

Truth and noise are those of `benchmarks.diffusion_calibration`. Ours is `least_squares`, the whole call from
measurements to maps; dipy's is its default weighted fit with the same maps, b-values and directions given.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from benchmarks.diffusion_calibration import CONDITIONS

RESULTS = Path(__file__).parent / "results" / "dipy_diffusion.json"
MAPS = {"dki": ("MD", "FA", "MK", "AK", "RK"), "fwdti": ("FWF", "MD", "FA")}
Maps = dict[str, np.ndarray]


def by_dipy(signal: str, y: np.ndarray, acq: pq.Acquisition) -> Maps:
    """dipy's maps; kurtosis is cut at -3/7 and 10, as ours."""
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import DiffusionKurtosisModel
    from dipy.reconst.fwdti import FreeWaterTensorModel

    assert acq.bval is not None
    assert acq.bvec is not None
    table = gradient_table(1000 * acq.bval.double().numpy(), bvecs=acq.bvec.double().numpy(), b0_threshold=10)
    if signal == "dki":
        fit = DiffusionKurtosisModel(table, fit_method="WLS").fit(y)
        cut = {"min_kurtosis": -3 / 7, "max_kurtosis": 10}
        found = {"MD": 1000 * fit.md, "FA": fit.fa, "MK": fit.mk(**cut), "AK": fit.ak(**cut), "RK": fit.rk(**cut)}
    else:
        fit = FreeWaterTensorModel(table).fit(y)
        found = {"FWF": fit.f, "MD": 1000 * fit.md, "FA": fit.fa}
    return {name: np.asarray(value) for name, value in found.items()}


def by_recipe(signal: str, y: np.ndarray, acq: pq.Acquisition, sigma: float, recipe: str) -> Maps:
    """Our maps."""
    fit = pq.fit(y, acq, signal=signal, recipe=recipe, sigma=sigma, causes=False)
    mean = fit.posterior(y).mean
    return {name: mean[name].numpy() for name in MAPS[signal]}


def timed(work: Callable[[], Maps]) -> tuple[Maps, float]:
    """What a call returns, and the CPU seconds that it took."""
    begin = time.process_time()
    return work(), time.process_time() - begin


def run(signal: str, n: int, snr: float, seed: int, recipes: list[str]) -> dict[str, Any]:
    """A row of results."""
    scan = CONDITIONS[signal](n, snr, np.random.default_rng(seed))
    y, acq = scan.y, scan.acquisition
    found = {name: timed(lambda name=name: by_recipe(signal, y, acq, scan.sigma, name)) for name in recipes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["dipy"] = timed(lambda: by_dipy(signal, y.astype(float), acq))
    rmse = {
        who: {name: round(float(np.sqrt(np.nanmean((maps[name] - scan.truth[name]) ** 2))), 4) for name in MAPS[signal]}
        for who, (maps, _) in found.items()
    }
    each = {who: round(1e6 * seconds / n, 1) for who, (_, seconds) in found.items()}
    return {"signal": signal, "voxels": n, "snr": snr, "seed": seed, "rmse": rmse, "us of CPU per voxel": each}


def main() -> None:
    """Run one signal and add its row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signal", choices=MAPS)
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--snr", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hierarchical", action="store_true", help="also the posterior mean")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipes = ["least_squares", *(["hierarchical"] if args.hierarchical else [])]
    row = run(args.signal, args.voxels, args.snr, args.seed, recipes)
    print(json.dumps(row, indent=1))
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
