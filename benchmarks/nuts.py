"""Our posteriors against long runs of Pyro's NUTS on the same model: 20 voxels, the population as it was learned.

Run ``python -m benchmarks.nuts``; kept in ``benchmarks/results/nuts.json``. The aim: means within 0.1 sd and sds
within 10 % of NUTS. Chains move in coordinates whitened by our own posterior, an affine change that NUTS corrects for.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin

from benchmarks.protocols import protocol
from pyroqmri.calibration.check import fit_protocol
from pyroqmri.calibration.simulated_voxels import own_voxels
from pyroqmri.distributions import GaussianMixture
from pyroqmri.fitting.fit import Fit

RESULTS = Path(__file__).parent / "results" / "nuts.json"
CASES = {"msdki": "A288", "ball_stick": "demo", "ivim": "epstein"}


def long_run(fit: Fit, post: Any, warmup: int, n: int, seed: int) -> tuple[dict[str, Any], float, float]:
    """Draws of each parameter ``(S, N)`` by NUTS, the smallest effective number of them, and the largest R-hat."""
    model, guide = fit.model, fit.guide
    assert model is not None
    assert guide is not None
    with torch.no_grad():
        voxels = guide.prepare(post.batch.voxels)
        q = guide.z_dist(voxels)
        z = q.sample(torch.Size([2000]))
        loc, centred = z.mean(0), z - z.mean(0)
        cov = torch.einsum("sni,snj->nij", centred, centred) / len(z)
        tril = torch.linalg.cholesky(cov + 1e-8 * torch.eye(cov.shape[-1]))
        prior = GaussianMixture(*(t.detach() for t in model.prior.classes()))

    def potential(at: dict[str, torch.Tensor]) -> torch.Tensor:
        z = loc + (tril @ at["e"].unsqueeze(-1)).squeeze(-1)
        return -(prior.log_prob(z) + model.y_dist(z, voxels).log_prob(voxels.y)).sum()

    chains = []
    for chain in range(2):
        torch.manual_seed(seed + chain)
        kernel = NUTS(potential_fn=potential, adapt_mass_matrix=True, max_tree_depth=7)
        run = MCMC(kernel, n, warmup_steps=warmup, initial_params={"e": torch.randn_like(loc)}, disable_progbar=True)
        run.run()
        chains.append(run.get_samples()["e"])
    e = torch.stack(chains)
    ess, rhat = effective_sample_size(e, 0, 1).min(), split_gelman_rubin(e, 0, 1).max()
    with torch.no_grad():
        z = loc + (tril @ e.flatten(0, 1).unsqueeze(-1)).squeeze(-1)
        theta = model.theta(z, voxels)
    return {p.name: theta[p.name].numpy() for p in fit.signal.tissue}, float(ess), float(rhat)


def run(signal: str, recipe: str, snr: float, args: argparse.Namespace) -> dict[str, Any]:
    """One signal: distances of our means and sds from those of NUTS, in each parameter."""
    fit = fit_protocol(protocol(CASES[signal]), signal=signal, recipe=recipe, snr=snr, s0=1.0, n_train=5000)
    simulated = own_voxels(fit, args.voxels, 11)
    post = fit.posterior(simulated.y, sigma=simulated.sigma, n_draws=4096, reweight=False)
    begin = time.perf_counter()
    theirs, ess, rhat = long_run(fit, post, args.warmup, args.draws, 0)
    row: dict[str, Any] = {"signal": signal, "recipe": recipe, "snr": snr, "n_voxels": args.voxels,
                           "draws": 2 * args.draws, "ess": ess, "rhat": rhat,
                           "seconds": time.perf_counter() - begin}  # fmt: skip
    shipped = fit.posterior(simulated.y, sigma=simulated.sigma, n_draws=4096)
    reweighted = fit.posterior(simulated.y, sigma=simulated.sigma, n_draws=4096, reweight=True)
    for name, ours in (("guide", post), ("parameters", shipped), ("reweighted", reweighted)):
        row[name] = {k: apart(ours, k, v) for k, v in theirs.items()}
    return row


def apart(ours: Any, name: str, draws: np.ndarray) -> dict[str, Any]:
    """How far our means and sds of a parameter lie from those of draws ``(S, N)``."""
    sd = draws.std(0)
    off = np.abs(ours.mean[name].numpy() - draws.mean(0)) / sd
    ratio = ours.sd[name].numpy() / sd
    return {
        "mean_off_median": float(np.median(off)), "mean_off_largest": float(off.max()),
        "mean_within_0.1_sd": float((off < 0.1).mean()), "sd_ratio_median": float(np.median(ratio)),
        "sd_ratio_range": [float(ratio.min()), float(ratio.max())],
        "sd_within_10%": float((np.abs(ratio - 1) < 0.1).mean()),
    }  # fmt: skip


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", nargs="+", default=list(CASES))
    parser.add_argument("--recipe", default="hierarchical")
    parser.add_argument("--snr", type=float, default=20.0)
    parser.add_argument("--voxels", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for signal in args.signals:
        row = run(signal, args.recipe, args.snr, args)
        kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
        key = ("signal", "recipe", "snr")
        new = {tuple(r[k] for k in key): r for r in [*kept, row]}
        made = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
        RESULTS.write_text(json.dumps({"made": made, "rows": list(new.values())}, indent=1) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
