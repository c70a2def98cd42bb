"""Ranks of simulated truths among the draws of a fit's posterior."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.calibration.ranks import Sample, randomised_ranks
from pyroqmri.calibration.simulated_voxels import SimulatedVoxels
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.measurements.status import FINE
from pyroqmri.posterior.summaries import mean_axis

MOST_AT_A_TIME = 2000  # voxels whose draws are in memory


def ranked_samples(
    found: Fit, simulated: SimulatedVoxels, seed: int, n_draws: int
) -> tuple[list[Sample], Tensor, Tensor | None, Tensor]:
    """Samples of every parameter, which voxels they are of, the likeliest class of each of these, which are fine."""
    rng = np.random.default_rng([seed, 5])
    parts: list[dict[str, Any]] = []
    told = {"sigma": simulated.sigma, "inputs": simulated.inputs, "voxels": simulated.position}
    nearby = found.nearby(simulated.y, **told) if found.is_field else None
    judged = torch.arange(len(simulated.y)) if simulated.judged is None else simulated.judged
    for where in judged.split(MOST_AT_A_TIME):
        inputs = {name: v[where] for name, v in simulated.inputs.items()}
        near = True if nearby is None else nearby.at(where)
        posterior = found.posterior(simulated.y[where], sigma=simulated.sigma, inputs=inputs, neighbours=near)
        if not posterior.has_sd:
            raise InputError(f"recipe {found.recipe.name} has no uncertainty, so there is nothing to check")
        parts.append(
            _ranked(posterior, {k: v[where] for k, v in simulated.truth.items()}, n_draws, seed + int(where[0]), rng)
        )
    kept = torch.cat([p["kept"] for p in parts])
    samples = []
    for name, unit in parts[0]["units"].items():
        columns = [np.concatenate([p[name][j][p["kept"].numpy()] for p in parts]) for j in range(4)]
        samples.append(Sample(name, unit, *columns))
    classes = None if parts[0]["classes"] is None else torch.cat([p["classes"] for p in parts])[kept]
    fine = torch.cat([p["fine"] for p in parts])[kept]
    return samples, kept, classes, fine


def _ranked(posterior: Any, truth: dict[str, Tensor], n_draws: int, seed: int, rng: Any) -> dict[str, Any]:
    """Truth, mean, sd and rank of each quantity of some voxels."""
    draws = _draws_of(posterior, n_draws, seed)
    axis = posterior.signal.direction
    angular = {n for n, p in posterior.parameters.items() if axis is not None and p.unit == "rad"}
    names = [n for n in posterior.names if n in truth and n in draws and n not in angular]
    mean, sd = posterior.mean, posterior.sd
    kept = torch.stack([torch.isfinite(mean[n]) & torch.isfinite(sd[n]) & truth[n].isfinite() for n in names]).all(0)
    out: dict[str, Any] = {"kept": kept, "units": {n: posterior.parameters[n].unit for n in names}}
    for n in names:
        columns = [v.double().numpy() for v in (truth[n], mean[n], sd[n])]
        out[n] = (*columns, randomised_ranks(draws[n].double().numpy(), columns[0], rng))
    for name in (p.name for p in posterior.signal.directions if p.name in draws):
        out[name] = _angles(draws[name], truth[name], rng)
        out["units"][name] = "degrees"
    out["fine"] = posterior.status == FINE
    classes = getattr(posterior, "responsibilities", None)
    out["classes"] = None if classes is None else classes.nan_to_num(0).argmax(-1)
    return out


def _draws_of(posterior: Any, n_draws: int, seed: int) -> dict[str, Tensor]:
    if hasattr(posterior, "draws"):
        return posterior.draws(n_draws, seed=seed)
    noise = torch.randn(n_draws, 1, generator=torch.Generator().manual_seed(seed))
    return {n: posterior.mean[n] + posterior.sd[n] * noise for n in posterior.names}


def _angles(draws: Tensor, truth: Tensor, rng: Any) -> tuple[np.ndarray, ...]:
    """An axis by its angle to the mean axis, whose rank is uniform as well; the estimate of the angle is zero."""
    axis = mean_axis(draws.nan_to_num(1.0))

    def angle(n: Tensor) -> np.ndarray:
        cosine = (torch.nn.functional.normalize(n, dim=-1) * axis).sum(-1).abs().clamp(max=1)
        return torch.rad2deg(torch.acos(cosine)).double().numpy()

    own, true = angle(draws), angle(truth)
    return true, own.mean(0), own.std(0), randomised_ranks(own, true, rng)
