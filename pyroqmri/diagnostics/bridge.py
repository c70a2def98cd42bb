"""From posteriors of voxels to ArviZ."""

from typing import Any

import numpy as np
import torch

from pyroqmri.diagnostics.arviz_adapter import from_groups
from pyroqmri.posterior import Posterior


@torch.no_grad()
def posterior_to_arviz(posterior: Posterior, voxels: slice = slice(0, 100), n_draws: int = 200, seed: int = 0) -> Any:
    """Posterior, predictive, log-likelihood, observed and constant data of some voxels.

    Measurements whose likelihood does not depend on the parameters are left out.

    Parameters
    ----------
    posterior
        A Bayesian fit's posterior.
    voxels
        Which of the fitted voxels.
    n_draws
        Independent draws of each.
    seed
        Of the draws.
    """
    model, guide = posterior.model, posterior.guide
    chosen = posterior.batch.voxels[voxels].to(model.sigma.device)
    prepared = guide.prepare(chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        q = guide.z_dist(prepared)
        z = q.sample(torch.Size([n_draws]))
        replicated = model.y_dist(z, prepared).sample()
    theta = posterior.rescale(model.theta(z, prepared))
    theta = theta | model.signal.signal.derived(theta)
    signal = model.simulate(z, prepared)
    log_likelihood = model.likelihood.information(signal, prepared.y, prepared.noise).log_prob
    # a b0 under a known S0 has the same likelihood whatever the tissue, and PSIS chokes on it
    told = log_likelihood.std(0).amax(0) > 0
    stats = {"log_p": log_likelihood.sum(-1), "log_q": q.log_prob(z)}
    groups = {
        "posterior": {k: _draws(v) for k, v in theta.items() if v.dim() > 1},
        "posterior_predictive": {"y": _draws(replicated[..., told])},
        "log_likelihood": {"y": _draws(log_likelihood[..., told])},
        "sample_stats": {k: _draws(v) for k, v in stats.items()},
        "observed_data": {"y": _plain(prepared.y[:, told])},
        "constant_data": {"sigma": _plain(prepared.noise.squeeze(-1)), **_acquisition(posterior, told)},
    }
    direction = model.signal.direction
    dims = {"y": ["voxel", "measurement"], "sigma": ["voxel"], "bvec": ["measurement", "axis"]}
    dims |= {k: ["measurement"] for k in ("bval", "te", "ti", "tr", "flip")}
    dims |= {k: ["voxel"] for k in (*groups["posterior"], *stats)}
    if direction is not None:
        dims[direction.name] = ["voxel", "axis"]
    coords = {"voxel": _plain(posterior.batch.index[voxels]), "axis": ["x", "y", "z"]}
    return from_groups(groups, dims, coords, {"signal": model.signal.signal.__name__})


def _acquisition(posterior: Posterior, told: torch.Tensor) -> dict[str, np.ndarray]:
    return {k: _plain(v[told]) for k, v in posterior.signal.acquisition.settings().items()}


def _draws(values: torch.Tensor) -> np.ndarray:
    return values[None].cpu().numpy()


def _plain(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()
