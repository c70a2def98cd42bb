"""Batched fits beside dipy and scipy: equal answers, and how many voxels a second.

Both programs run in one process on one thread, in turns; what is counted is CPU seconds, so that other work on the
machine does not. Run ``python -m benchmarks.fits [linear ivim ball_stick rician relaxation scaling threads]``; results
are kept in ``benchmarks/results/fits.json``, a section at a time.
"""

import json
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pyroqmri as pq
from benchmarks import scipy_fits
from pyroqmri.measurements.preparation import Batch
from pyroqmri.signals import DTI, IVIM, MSDKI, BallStick, BoundSignal
from pyroqmri.signals.tensor import ELEMENTS, elements_of
from pyroqmri.simulate import add_noise
from pyroqmri.voxelwise.search import Search, search

IVIM_B = np.array([0, 10, 20, 30, 50, 80, 100, 200, 400, 800]) / 1000
REPEATS = 5


def shells(n_b0: int, n: int, *bvals: float) -> pq.Acquisition:
    """Volumes at b = 0, then ``n`` directions spread over the sphere a shell."""
    k = np.arange(n) + 0.5
    z, phi = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    axes = np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z], -1)
    bvec = np.concatenate([np.zeros((n_b0, 3)), *[axes for _ in bvals]])
    return pq.Acquisition(bval=np.concatenate([np.zeros(n_b0), np.repeat(bvals, n)]), bvec=bvec)


def magnitudes(signal: Tensor, sigma: float, seed: int) -> Tensor:
    """Rician measurements."""
    return add_noise(signal, sigma, "rician", torch.Generator().manual_seed(seed))


def truth(signal: str, n: int, seed: int = 0) -> dict[str, Tensor]:
    """Parameters of ``n`` voxels, spread over what tissue has."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(3, n, generator=g)
    if signal == "ivim":
        return {"f": 0.05 + 0.35 * u[0], "D_fast": 8 + 60 * u[1], "D_slow": 0.5 + 1.5 * u[2]}
    if signal == "msdki":
        return {"D": 0.7 + 0.8 * u[0], "K": 0.3 + 0.9 * u[1]}
    axes = torch.linalg.qr(torch.randn(n, 3, 3, generator=g))[0]
    if signal == "ball_stick":
        return {"f": 0.3 + 0.5 * u[0], "D_par": 1.2 + 1.2 * u[1], "D_iso": 0.5 + 1.5 * u[2], "n": axes[:, 0]}
    D = (axes * (0.3 + u.mT * torch.tensor([1.5, 0.6, 0.6]))[:, None]) @ axes.mT
    return {name: element.contiguous() for name, element in zip(ELEMENTS, elements_of(D), strict=True)}


class Problem:
    """Voxels of a signal, ready for a fit."""

    def __init__(self, signal: str, acq: pq.Acquisition, y: Tensor, sigma: float, recipe: str, s0: Any = 1.0) -> None:
        self.y, self.sigma = y, sigma
        self.fit = pq.fit(y, acq, signal=signal, recipe=recipe, sigma=sigma, s0=s0)
        self.batch = self.fit.preparation(y, torch.tensor(sigma), acq)

    def __call__(self, n: int | None = None, **settings: Any) -> Any:
        b, n = self.batch, len(self.batch.voxels) if n is None else n
        part = Batch(b.voxels[:n], b.index[:n], b.status[:n], b.reference[:n])
        return search(self.fit.signal, self.fit.likelihood, part, Search(**settings))


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and what came of it."""
    begin = time.process_time()
    found = function()
    return time.process_time() - begin, found


def in_turns(ours: Callable, n_ours: int, theirs: Callable, n_theirs: int, turns: int = REPEATS) -> dict[str, float]:
    """Voxels a second of both, each the median of several turns, and the median of their ratios."""
    ours()
    pairs = np.array([(n_ours / seconds(ours)[0], n_theirs / seconds(theirs)[0]) for _ in range(turns)])
    ratio = float(np.median(pairs[:, 0] / pairs[:, 1]))
    a, b = np.median(pairs, 0).tolist()
    return {"ours voxels/s": round(a), "theirs voxels/s": round(b, 1), "ratio": round(ratio, 1)}


def linear() -> dict[str, Any]:
    """MS-DKI and DTI by weighted linear least squares against dipy."""
    found = {}
    for name, model, acq, n_dipy in (
        ("msdki", MSDKI, shells(18, 90, 1.0, 2.0, 3.0), 1000),
        ("dti", DTI, shells(6, 64, 1.0), 20_000),
    ):
        y = magnitudes(BoundSignal(model, acq)(truth(name, 100_000)), 0.04, 1)
        problem = Problem(name, acq, y, 0.04, "least_squares", "inferred")
        row: dict[str, Any] = in_turns(
            problem,
            len(y),
            lambda p=problem, n=n_dipy: p(n, engine="dipy"),
            n_dipy,
            3 * REPEATS,  # ours are tenths of a second
        )
        a, b = problem(n_dipy, method="closed_form").theta, problem(n_dipy, engine="dipy").theta
        row["largest difference"] = max(float((a[k] - b[k]).abs().max()) for k in b)
        row["preparation, us a voxel"] = (
            1e6 * seconds(lambda p=problem, q=acq: p.fit.preparation(p.y, torch.tensor(0.04), q))[0] / len(y)
        )
        row["maps with derived ones and sd, us a voxel"] = 1e6 * seconds(lambda p=problem: p().sd)[0] / len(y)
        found[name] = row
    return found


def _chi2(signal: Callable, theta: NDArray, y: NDArray) -> NDArray:
    return np.array([((signal(t) - v) ** 2).sum() for t, v in zip(theta, y, strict=True)])


def _columns(theta: dict[str, Tensor], *names: str) -> NDArray:
    return torch.stack([theta[n] for n in names], -1).double().numpy()


def starts_needed(each: NDArray, best: NDArray) -> int:
    """How many of the starts of a search ``(N, S)`` reach the best sum of squares ``(N,)`` in 99.5 % of voxels."""
    reached = np.minimum.accumulate(each, 1) <= best[:, None] * 1.001
    enough = np.flatnonzero(reached.mean(0) >= 0.995)
    return int(enough[0]) + 1 if len(enough) else each.shape[1]


def ivim() -> dict[str, Any]:
    """IVIM against scipy and dipy."""
    acq, found, n = pq.Acquisition(bval=IVIM_B), {}, 2000
    bounds = np.array([[0, 4, 0.01], [1.0, 1000, 4.0]])
    starts = [(0.1, 20.0, 1.0), (0.3, 60.0, 0.5), (0.5, 6.0, 0.3), (0.05, 150.0, 1.5)]
    signal = scipy_fits.ivim(IVIM_B)
    for snr in (15, 30):
        y = magnitudes(BoundSignal(IVIM, acq)(truth("ivim", 100_000)), 1 / snr, 1)
        problem = Problem("ivim", acq, y, 1 / snr, "least_squares")
        v = y.double().numpy()
        row: dict[str, Any] = in_turns(
            problem,
            len(y),
            lambda v=v: [scipy_fits.least_squares(signal, one, starts[:1], bounds) for one in v[:100]],
            100,
        )
        fitted = problem(n)
        ours = _chi2(signal, _columns(fitted.theta, "f", "D_fast", "D_slow"), v[:n])
        each = np.array([[scipy_fits.least_squares(signal, one, [s], bounds)[1] for s in starts] for one in v[:n]])
        row["objective within 1e-3 of scipy's best of 4 starts"] = float((ours <= each.min(1) * 1.001).mean())
        row["objective within 1e-3 of scipy's first start"] = float((ours <= each[:, 0] * 1.001).mean())
        row["scipy's first start within 1e-3 of the best of all"] = float(
            (each[:, 0] <= np.minimum(each.min(1), ours) * 1.001).mean()
        )
        k = starts_needed(each, np.minimum(each.min(1), ours))
        equal = in_turns(
            problem,
            len(y),
            lambda v=v, k=k: [scipy_fits.least_squares(signal, one, starts[:k], bounds) for one in v[:100]],
            100,
        )
        row |= {"scipy starts for 99.5 % of the best": k, "ratio at that quality": equal["ratio"]}
        row["converged"] = float(fitted.converged.float().mean())
        row |= _dipy_ivim(acq, y, 1 / snr, signal)
        found[f"SNR {snr}"] = row
    return found


def _dipy_ivim(acq: pq.Acquisition, y: Tensor, sigma: float, signal: Callable) -> dict[str, Any]:
    n = 100
    problem = Problem("ivim", acq, y, sigma, "least_squares", "inferred")
    truths = truth("ivim", len(y))
    spent, theirs = seconds(lambda: problem(n, engine="dipy"))
    ours, v = problem(n), problem.batch.voxels.y[:n].double().numpy()
    names = ("f", "D_fast", "D_slow", "S0")
    a, b = (_chi2(lambda t: t[3] * signal(t), _columns(p.theta, *names), v) for p in (ours, theirs))
    rmse = {
        f"RMSE of {k}, ours and dipy's": [
            float((p.theta[k] - truths[k][:n]).square().mean().sqrt()) for p in (ours, theirs)
        ]
        for k in names[:3]
    }
    return {
        "dipy voxels/s": round(n / spent, 1),
        "dipy's sum of squares over ours, median": float(np.median(b / a)),
    } | rmse


def ball_stick() -> dict[str, Any]:
    """Ball-stick against scipy."""
    acq, n, snr = shells(6, 30, 1.0, 2.0, 3.0), 500, 20
    assert acq.bval is not None
    assert acq.bvec is not None
    y = magnitudes(BoundSignal(BallStick, acq)(truth("ball_stick", 8000)), 1 / snr, 1)
    problem = Problem("ball_stick", acq, y, 1 / snr, "least_squares")
    signal = scipy_fits.ball_stick(acq.bval.double().numpy(), acq.bvec.double().numpy())
    bounds = np.array([[0, 0.01, 0.01, -10, -20], [1, 3.5, 3.5, 10, 20]])
    v = y.double().numpy()
    fitted = problem()
    axis = fitted.theta["n"].double().numpy()
    angles = np.stack([np.arccos(axis[:, 2].clip(-1, 1)), np.arctan2(axis[:, 1], axis[:, 0])], -1)
    found = np.concatenate([_columns(fitted.theta, "f", "D_par", "D_iso"), angles], -1)

    def starts(i: int) -> list:
        return [(0.5, 1.5, 1.0, *angles[i]), (0.3, 2.5, 1.5, *angles[i]), (0.5, 1.5, 1.0, 1.0, 1.0)]

    def loop() -> None:
        for i in range(100):
            scipy_fits.least_squares(signal, v[i], starts(i)[:1], bounds)

    row: dict[str, Any] = in_turns(problem, len(y), loop, 100)
    ours = _chi2(signal, found[:n], v[:n])
    theirs = np.array([scipy_fits.least_squares(signal, v[i], starts(i), bounds)[1] for i in range(n)])
    row["objective within 1e-3 of scipy's best of 3 starts"] = float((ours <= theirs * 1.001).mean())
    row |= {"scipy starts at": "the axis that was found", "converged": float(fitted.converged.float().mean())}
    # nobody tells scipy the axis: it has to look along some
    blind = [
        (0.5, 1.5, 1.0, a, b) for a, b in ((1.57, 0.0), (1.57, 1.57), (0.01, 0.0), (0.8, 0.8), (0.8, 2.4), (0.8, 4.0))
    ]
    some = v[:200]
    each = np.array([[scipy_fits.least_squares(signal, one, [s], bounds)[1] for s in blind] for one in some])
    k = starts_needed(each, np.minimum(each.min(1), ours[:200]))
    equal = in_turns(
        problem, len(y), lambda: [scipy_fits.least_squares(signal, one, blind[:k], bounds) for one in v[:50]], 50
    )
    reached = float((each[:, :k].min(1) <= np.minimum(each.min(1), ours[:200]) * 1.001).mean())
    return row | {"scipy's own starts": k, "which reach the best in": reached, "ratio to those": equal["ratio"]}


def main() -> None:
    """Measure, print and keep."""
    from benchmarks.fits_more import SECTIONS

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    sections = {"linear": linear, "ivim": ivim, "ball_stick": ball_stick} | SECTIONS
    path = Path(__file__).parent / "results" / "fits.json"
    for name in sys.argv[1:] if len(sys.argv) > 1 else sections:
        kept = json.loads(path.read_text()) if path.is_file() else {}
        kept[name] = sections[name]()
        import dipy
        import scipy

        versions = {"torch": torch.__version__, "scipy": scipy.__version__, "dipy": dipy.__version__}
        kept["made"] = versions | {"numpy": np.__version__, "machine": platform.machine(), "threads": 1, "time": "CPU"}
        path.write_text(json.dumps(kept, indent=1) + "\n")
        print(name, json.dumps(kept[name], indent=1), flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
