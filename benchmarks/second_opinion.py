"""The same posteriors judged by another package: ranks, uniformity tests and TARP coverage of `sbi` 0.27.

Run ``PYTHONPATH=FOLDER python -m benchmarks.second_opinion`` with `sbi` installed into FOLDER; it is no dependency of
this package. Kept in ``benchmarks/results/second_opinion.json``. Four posteriors of one MS-DKI fit: as it is,
recalibrated, made 20 % too narrow, and shifted by 0.2 sd.
"""

import json
from pathlib import Path
from typing import Any

import torch
from sbi.diagnostics.sbc import _run_sbc, check_uniformity_c2st, check_uniformity_frequentist  # pyright: ignore
from sbi.diagnostics.tarp import _run_tarp, check_tarp, get_tarp_references  # pyright: ignore

from benchmarks.protocols import protocol
from pyroqmri.calibration.check import check, fit_protocol, recalibrate
from pyroqmri.calibration.simulated_voxels import SimulatedVoxels, own_voxels
from pyroqmri.fitting.fit import Fit

RESULTS = Path(__file__).parent / "results" / "second_opinion.json"
SNR, VOXELS, DRAWS = 10.0, 2000, 499
LEVEL = 0.01  # of a p-value that calls ranks not uniform


class Tampered:
    """A fit whose posterior draws are pulled to their mean, or shifted, in units of their sd."""

    def __init__(self, fit: Fit, scale: float, shift: float) -> None:
        self.fit, self.scale, self.shift = fit, scale, shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fit, name)

    def posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The fit's, its draws changed."""
        post = self.fit.posterior(*args, **kwargs)
        plain = post.draws

        def draws(n: int, seed: int = 0) -> dict[str, torch.Tensor]:
            found = plain(n, seed)
            return {k: v.mean(0) + self.shift * v.std(0) + self.scale * (v - v.mean(0)) for k, v in found.items()}

        post.draws = draws
        return post


def their_view(fit: Any, simulated: SimulatedVoxels) -> dict[str, Any]:
    """What `sbi` says of a fit: p-values of its uniformity test, accuracy of its classifier, TARP."""
    post = fit.posterior(simulated.y, sigma=simulated.sigma)
    draws = post.draws(DRAWS, seed=3)
    names = list(post.names)
    samples = torch.stack([draws[n] for n in names], -1)
    truth = torch.stack([simulated.truth[n] for n in names], -1)
    kept = samples.isfinite().all(0).all(-1)
    samples, truth = samples[:, kept], truth[kept]
    ranks = _run_sbc(truth, truth, samples, "marginals", False)
    torch.manual_seed(0)
    ks = check_uniformity_frequentist(ranks, DRAWS)
    c2st = check_uniformity_c2st(ranks, DRAWS)
    ecp, alpha = _run_tarp(samples, truth, get_tarp_references(truth), num_bins=30, z_score_theta=True)
    atc, tarp_p = check_tarp(ecp, alpha)
    return {"parameters": names, "ks_p": [float(p) for p in ks], "c2st": [float(c) for c in c2st],
            "tarp_area": float(atc), "tarp_p": float(tarp_p), "tarp_largest_gap": float((ecp - alpha).abs().max()),
            "uniform": bool((torch.as_tensor(ks) > LEVEL).all())}  # fmt: skip


def main() -> None:
    """Judge twice, print and keep."""
    torch.set_num_threads(1)
    fit = fit_protocol(protocol("A288"), signal="msdki", recipe="hierarchical", snr=SNR, s0="inferred", n_train=5000)
    simulated = own_voxels(fit, VOXELS, 17)
    mended = recalibrate(fit)
    cases = {
        "as shipped": fit,
        "recalibrated": mended,
        "recalibrated, then 20 % too narrow": Tampered(mended, 0.8, 0.0),
        "recalibrated, then 0.2 sd off": Tampered(mended, 1.0, 0.2),
    }
    rows = []
    for name, one in cases.items():
        ours = check(one, truth=simulated, seed=3)  # type: ignore[arg-type]
        cells = {c.parameter: {"holds": c.holds, "exact": c.exact, "distance": c.distance} for c in ours.cells}
        rows.append({"case": name, "n": VOXELS, "ours": {"holds": ours.holds, "cells": cells},
                     "sbi": their_view(one, simulated)})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    RESULTS.write_text(json.dumps({"sbi": "0.27.0", "snr": SNR, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
