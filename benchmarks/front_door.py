"""What a caller waits for: ``pq.fit`` and maps from raw measurements, beside the same calls of dipy and scipy.

Noise level, preparation, checks of the protocol and of the scan's misfit are all in it; the inner fits alone are in
:mod:`benchmarks.fits`. Both programs run in one process on one thread, in turns, in CPU seconds. Run
``python -m benchmarks.front_door [msdki dti ivim size ball_stick]``; results are kept in
``benchmarks/results/front_door.json``.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its threads spin, which counts as CPU time

import json
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pyroqmri as pq
from benchmarks import scipy_fits
from benchmarks.fits import IVIM_B, in_turns, magnitudes, seconds, shells, truth
from pyroqmri.signals import DTI, IVIM, MSDKI, BallStick, BoundSignal

N, SCALE = 20_000, 1000.0
IVIM_BOUNDS = np.array([[0, 4, 0.01], [1.0, 1000, 4.0]])


def scan(signal: str, n: int) -> tuple[pq.Acquisition, NDArray]:
    """Measurements of ``n`` voxels in a scanner's units: 288 volumes, or ten of IVIM."""
    model, acq, sigma = {
        "msdki": (MSDKI, shells(18, 90, 1.0, 2.0, 3.0), 0.04),
        "dti": (DTI, shells(18, 270, 1.0), 0.04),
        "ivim": (IVIM, pq.Acquisition(bval=IVIM_B), 1 / 30),
    }[signal]
    y = magnitudes(BoundSignal(model, acq)(truth(signal, n)), sigma, 1)
    return acq, (SCALE * y).numpy()


def ours(signal: str, acq: pq.Acquisition, y: NDArray) -> dict[str, torch.Tensor]:
    """Maps from raw measurements."""
    return pq.fit(y, acq, signal=signal, recipe="least_squares").posterior(y).mean


def dipy_fit(signal: str, acq: pq.Acquisition, y: NDArray) -> list[NDArray]:
    """The same of dipy."""
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel
    from dipy.reconst.msdki import MeanDiffusionKurtosisModel

    assert acq.bval is not None
    assert acq.bvec is not None
    table = gradient_table(1000 * acq.bval.double().numpy(), bvecs=acq.bvec.double().numpy())
    if signal == "msdki":
        fit = MeanDiffusionKurtosisModel(table).fit(y)
        return [fit.msd, fit.msk]
    fit = TensorModel(table).fit(y)
    return [fit.md, fit.fa, fit.ad, fit.rd]


def against_dipy(signal: str) -> dict[str, Any]:
    """MS-DKI or DTI of 20,000 voxels by both."""
    acq, y = scan(signal, N)
    row: dict[str, Any] = in_turns(lambda: ours(signal, acq, y), N, lambda: dipy_fit(signal, acq, y), N)
    theirs, found = dipy_fit(signal, acq, y)[0] * 1000, ours(signal, acq, y)
    first = found["D" if signal == "msdki" else "MD"].numpy()
    row["median difference of the first map"] = float(np.nanmedian(np.abs(first - theirs)))
    return row | _parts(signal, acq, y)


def _parts(signal: str, acq: pq.Acquisition, y: NDArray) -> dict[str, float]:
    """Microseconds a voxel of the two calls and of what they contain."""
    fit = pq.fit(y, acq, signal=signal, recipe="least_squares")
    level, measured = torch.tensor(fit.sigma), torch.from_numpy(y)
    found = fit.posterior(y)
    calls: dict[str, Callable[[], Any]] = {
        "fit": lambda: pq.fit(y, acq, signal=signal, recipe="least_squares"),
        "fit with sigma given": lambda: pq.fit(y, acq, signal=signal, recipe="least_squares", sigma=fit.sigma),
        "posterior and mean": lambda: fit.posterior(y).mean,
        "preparation": lambda: fit.preparation(measured, level, acq),
        "sd, status and interval besides": lambda: (found.sd, found.status, found.interval(0.9)),
    }
    return {f"{name}, us a voxel": _us(call, len(y)) for name, call in calls.items()}


def _us(call: Callable[[], Any], n: int) -> float:
    return round(1e6 * float(np.median([seconds(call)[0] for _ in range(5)])) / n, 3)


def ivim() -> dict[str, Any]:
    """IVIM against one start of scipy in each voxel."""
    acq, y = scan("ivim", N)
    signal, each = scipy_fits.ivim(IVIM_B), y[:100] / y[:100, :1]
    row: dict[str, Any] = in_turns(
        lambda: ours("ivim", acq, y),
        N,
        lambda: [scipy_fits.least_squares(signal, v, [(0.1, 20.0, 1.0)], IVIM_BOUNDS) for v in each.astype(float)],
        100,
    )
    return row | _parts("ivim", acq, y)


def size() -> dict[str, Any]:
    """Microseconds a voxel of MS-DKI by the number of voxels."""
    found = {}
    for n in (1000, 10_000, 100_000):
        acq, y = scan("msdki", n)
        ours("msdki", acq, y)
        found[f"{n} voxels"] = _us(lambda acq=acq, y=y: ours("msdki", acq, y), n)
    return found


def ball_stick() -> dict[str, Any]:
    """Microseconds a voxel of a posterior by `hierarchical`, from raw measurements, 288 of each of 1,000 voxels."""
    acq, settings = shells(18, 90, 1.0, 2.0, 3.0), {"training.steps": 20}  # the time does not depend on the training
    y = SCALE * magnitudes(BoundSignal(BallStick, acq)(truth("ball_stick", 1000)), 0.05, 1)
    fit = pq.fit(y[:600], acq, signal="ball_stick", recipe="hierarchical", settings=settings)
    return {"posterior and mean, us a voxel": _us(lambda: fit.posterior(y).mean, len(y))}


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "msdki": lambda: against_dipy("msdki"),
    "dti": lambda: against_dipy("dti"),
    "ivim": ivim,
    "size": size,
    "ball_stick": ball_stick,
}


def main() -> None:
    """Measure, print and keep."""
    import dipy
    import scipy

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    path = Path(__file__).parent / "results" / "front_door.json"
    versions = {"torch": torch.__version__, "scipy": scipy.__version__, "dipy": dipy.__version__}
    made = versions | {"numpy": np.__version__, "machine": platform.machine(), "threads": 1, "time": "CPU"}
    for name in sys.argv[1:] or SECTIONS:
        kept = json.loads(path.read_text()) if path.is_file() else {}
        kept |= {name: SECTIONS[name](), "made": made}
        path.write_text(json.dumps(kept, indent=1) + "\n")
        print(name, json.dumps(kept[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
