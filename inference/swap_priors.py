"""Swap the prior and keep everything else: several recipes on the same voxels under the same likelihood.

    python inference/swap_priors.py
    python inference/swap_priors.py --snr 10 --s0 measured
    python inference/swap_priors.py --likelihood gaussian
    python inference/swap_priors.py --image dwi.nii.gz --mask mask.nii.gz

The ELBO a voxel, on the same voxels that no recipe was trained on, ranks the recipes: it bounds the log-evidence from
below. On simulated voxels the truth is known, so the error of the posterior mean and the share of 90 % intervals that
hold the truth stand beside it. Maximum likelihood has no prior and no ELBO: it shows what the others add. The entry
`with_free_water` is `hierarchical_mixture` with free water given as a class.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import pyroqmri as pq
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.io import read_scan
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import CLASSES, clusters, simulate

RECIPES = ("maximum_likelihood", "vae_unig", "vae_gmm", "hierarchical", "hierarchical_mixture", "with_free_water")
# a recipe may be told of a tissue beforehand: mean and sd of each parameter
FREE_WATER = {"D": (3.0, 0.1), "K": (0.0, 0.1)}
ANY_S0 = {"S0": (0.9, 0.2)}  # over the scan's bright voxels; a parameter like the others where it is inferred
PROTOCOL = np.repeat([0.0, 1.0, 2.0, 3.0], [6, 20, 20, 20])  # b in ms/um2


def simulated(n_voxels: int, snr: float, seed: int) -> tuple[Tensor, pq.Acquisition, dict[str, Tensor], Tensor]:
    """Voxels of three tissues: y (N, M), the protocol, true D and K, and each voxel's tissue."""
    acq = pq.Acquisition(bval=PROTOCOL)
    truth, tissue = clusters(n_voxels, seed=seed, weights=(0.5, 0.4, 0.1))
    return simulate(SIGNALS["msdki"], acq, truth, snr=snr, seed=seed + 1), acq, truth, tissue


def scores(fit: pq.Fit, y: Tensor, truth: dict[str, Tensor], tissue: Tensor) -> dict[str, float]:
    """RMSE of the mean, and coverage of 90 % intervals, by tissue and parameter."""
    posterior = fit.posterior(y)
    mean, interval = posterior.mean, posterior.interval(0.9)
    found = {}
    for k, name in enumerate(CLASSES):
        for p, value in truth.items():
            here = tissue == k
            low, high = interval[p][here].unbind(-1)
            found[f"{name}: rmse {p}"] = float((mean[p] - value)[here].square().mean().sqrt())
            found[f"{name}: coverage {p}"] = float(((low < value[here]) & (value[here] < high)).float().mean())
    return found


def compare(
    y: Tensor,
    acq: pq.Acquisition,
    recipes: Sequence[str],
    *,
    likelihood: str = "rician",
    s0: str = "inferred",
    steps: int | None = None,
    truth: Sequence | None = None,
) -> dict[str, dict[str, float]]:
    """Fit each recipe and print a line for it."""
    found = {}
    for name in recipes:
        recipe, given = name, {}
        if name == "with_free_water":
            recipe, given = "hierarchical_mixture", {"free_water": FREE_WATER | (ANY_S0 if s0 == "inferred" else {})}
        # a point estimator trains nothing, and would refuse the setting
        trains = load_recipe(recipe).estimator == "voxel_model"
        settings = {"training.steps": steps} if trains and steps is not None else {}
        fit = pq.fit(
            y, acq, signal="msdki", recipe=recipe, likelihood=likelihood, s0=s0, settings=settings, given=given
        )
        held_out = -fit.trace.held_out[-1] if fit.trace.held_out else float("nan")
        found[name] = {"elbo": held_out, **({} if truth is None else scores(fit, y, *truth))}
        seconds = sum(fit.seconds.values())
        print(f"{name:22} ELBO a held-out voxel {held_out:9.3f} nats   {seconds:6.1f} s", flush=True)
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """What :func:`compare` found of simulated voxels, as Markdown."""
    columns = [f"{name}: {{}} {p}" for name in CLASSES for p in ("D", "K")]
    head = ["recipe", "ELBO", *(column.replace(": {}", ",") for column in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for recipe, row in found.items():
        cells = [f"{row[c.format('rmse')]:.3f} ({row[c.format('coverage')]:.2f})" for c in columns]
        elbo = "none" if np.isnan(row["elbo"]) else f"{row['elbo']:.2f}"
        lines.append(f"| `{recipe}` | {elbo} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--voxels", type=int, default=3000)
    parser.add_argument("--snr", type=float, default=20)
    parser.add_argument("--likelihood", default="rician", choices=["rician", "gaussian"])
    parser.add_argument("--s0", default="inferred", choices=["inferred", "measured"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="training steps in place of each recipe's own")
    parser.add_argument("--image", help="a scan, in place of simulated voxels")
    parser.add_argument("--mask")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small batches run faster on one thread than on several
    if arguments.image is not None:
        scan = read_scan(arguments.image, mask=arguments.mask)
        y, acq, truth = torch.from_numpy(scan.y), scan.acquisition, None
    else:
        y, acq, *truth = simulated(arguments.voxels, arguments.snr, arguments.seed)
    kept = {"likelihood": arguments.likelihood, "s0": arguments.s0, "steps": arguments.steps}
    found = compare(y, acq, arguments.recipes, truth=truth, **kept)
    if truth is None:
        return
    print(f"\nRMSE (coverage of 90 % intervals), SNR {arguments.snr:g}, {arguments.voxels} voxels\n\n{table(found)}")


if __name__ == "__main__":
    main()
