"""Does `compare` find the prior that voxels were drawn from: one cluster, three, or none?

Run ``python -m benchmarks.compare_truth``; rankings are kept in ``benchmarks/results/compare_truth.json``.

IVIM voxels are drawn in the unconstrained coordinates, where a standard normal is a uniform distribution inside the
bounds: from one correlated normal, from three, and from the standard normal. The candidates are the same three
families, with everything that they do not know learned: `uniform` learns nothing, `hierarchical` a mean and a
covariance (9 numbers), `hierarchical_mixture` three of each and the weights (29 numbers). The families are nested, so
the larger one can imitate the smaller: it loses only by what it learned wrongly.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyroqmri as pq
from benchmarks.protocols import protocol
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.simulate import simulate

RESULTS = Path(__file__).parent / "results" / "compare_truth.json"
SNR = 30.0

# means, sds and correlation in the unconstrained coordinates f, D_fast, D_slow
ONE = (((-0.9, -0.8, -0.7), (0.35, 0.35, 0.25), 0.4),)
THREE = (
    ((-1.4, -1.2, -0.9), (0.12, 0.15, 0.06), 0.0),
    ((-0.5, -0.3, -0.4), (0.12, 0.15, 0.06), 0.0),
    ((-1.0, 0.4, 0.6), (0.12, 0.15, 0.06), 0.0),
)
NONE = (((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.0),)
TRUTHS = {
    "one cluster": (ONE, "hierarchical"),
    "three clusters": (THREE, "mixture"),
    "no clustering": (NONE, "uniform"),
}


def candidates(steps: int) -> dict[str, Recipe]:
    """The three families on one likelihood."""
    settings = {"training.steps": steps}
    return {
        "uniform": load_recipe("uniform", settings),
        "hierarchical": load_recipe("hierarchical", settings),
        "mixture": load_recipe("hierarchical_mixture", settings | {"prior.classes": 3}),
    }


def draw(classes: Any, n: int, seed: int) -> Tensor:
    """Rician measurements ``(n, M)`` of voxels from classes of equal weight."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(classes), (n,), generator=generator)
    loc, sd, correlation = (torch.tensor([c[i] for c in classes])[which] for i in range(3))
    normal = torch.randn(n, 3, generator=generator)
    rest = (1 - correlation**2).sqrt()
    normal[:, 1] = correlation * normal[:, 0] + rest * normal[:, 1]
    acq = protocol("epstein")
    theta = BoundSignal(SIGNALS["ivim"], acq).constrain(loc + sd * normal)
    return simulate(SIGNALS["ivim"], acq, theta, snr=SNR, seed=seed + 1)


def main() -> None:
    """Compare on every truth; write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1000, help="voxels that the families learn from")
    parser.add_argument("--voxels", type=int, default=5000, help="others, which they are scored on")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=list(TRUTHS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    acq, told = protocol("epstein"), {k: getattr(given, k) for k in ("train", "voxels", "steps", "seed")}
    found: dict[str, Any] = {"signal": "ivim", "snr": SNR, **told, "machine": platform.machine(), "truths": {}}
    if RESULTS.exists():  # of the same settings; others are replaced
        kept = json.loads(RESULTS.read_text())
        found["truths"] = kept["truths"] if all(kept.get(k) == v for k, v in told.items()) else {}
    for truth in given.truths:
        classes, right = TRUTHS[truth]
        begin = time.monotonic()
        y = draw(classes, given.train + given.voxels, given.seed)
        fits = {
            name: pq.fit(y[: given.train], acq, signal="ivim", recipe=recipe, sigma=1 / SNR, s0=1.0, seed=given.seed)
            for name, recipe in candidates(given.steps).items()
        }
        result = pq.compare(fits, y[given.train :], seed=given.seed)
        found["truths"][truth] = {"right": right, "seconds": time.monotonic() - begin, **result.record()}
        print(f"\n{truth}: {right} is right\n{result}", flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
