"""Volumes kept aside: how often 90 % predictive intervals of a fit's posteriors contain what was measured in them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.comparison.held_out import volume_folds
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_signal
from pyroqmri.fitting.fit import Fit
from pyroqmri.laplace.measured_s0 import s0_error
from pyroqmri.measurements.arguments import as_inputs, as_tensor
from pyroqmri.measurements.own_protocol import WEIGHTS, kept_inputs
from pyroqmri.measurements.shells import alike
from pyroqmri.measurements.status import FINE
from pyroqmri.measurements.thinning import thin
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.misfit.causes import name_of
from pyroqmri.posterior import Posterior
from pyroqmri.voxel_model import VoxelModel

LEVEL = 0.9
LEAST = 0.8  # of the measurements inside; fewer are worth a warning
VOXELS = 400
_FEWEST = 20  # volumes beside those of S0; of fewer none can be spared
_FEWEST_OF_SHELL = 60  # volumes of a shell; means over fewer than 30 directions depend on which they are
_GROUP = 100  # measurements of a group that has a number of its own
_DRAWS = 199
_TENTHS = 10


@dataclass(frozen=True)
class Predicted:
    """How often predictive intervals contain measurements that the posteriors have not seen.

    Parameters
    ----------
    level, inside
        Nominal share of measurements inside the central intervals, and the share that was found.
    n_voxels, volumes
        Voxels looked at, and the volumes kept aside.
    by_setting, by_class, by_status
        The share in each setting, in voxels of each likeliest class of tissue, and with status fine and other ones.
    """

    level: float
    inside: float
    n_voxels: int
    volumes: list[int]
    by_setting: dict[str, float]
    by_class: dict[str, float]
    by_status: dict[str, float]

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def volumes_to_keep_aside(fit: Fit, acq: Acquisition, seed: int = 0) -> Tensor | None:
    """A tenth of each shell's volumes; half of them, spread evenly, where the model sees means over directions.

    None where there are fewer than 20 volumes beside those of S0, or 60 in a shell whose mean the model sees.
    """
    free = torch.nonzero(~fit.preparation.s0_volumes(acq)).squeeze(-1)
    if not fit.preparation.average:
        if len(free) < _FEWEST:
            return None
        fold = volume_folds(acq, _TENTHS, seed)[0]
        return fold[torch.isin(fold, free)]
    groups = [free[torch.from_numpy(group)] for group in alike(acq[free])]
    if min(len(group) for group in groups) < _FEWEST_OF_SHELL:
        return None
    seen = torch.cat([group[torch.from_numpy(thin(acq[group], 0.5))] for group in groups])
    return free[~torch.isin(free, seen)]


@torch.no_grad()
def predicted(
    fit: Fit,
    y: Any,
    sigma: Any = None,
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    volumes: Sequence[int] | None = None,
) -> Predicted | None:
    """Predict volumes from posteriors under the others, with the population that the fit has learned from all.

    Parameters
    ----------
    y
        Measurements ``(N, M)`` of the fit's protocol; 400 of the voxels are looked at.
    sigma
        Noise level, one number or ``(N,)``; the fit's when None.
    inputs
        Per-voxel inputs of the signal, each ``(N,)``.
    volumes
        Numbers of the volumes to keep aside; those of :func:`volumes_to_keep_aside` when None.

    Returns
    -------
    Predicted or None
        None where the fit has no posterior, its network wants every volume, or no volume can be spared.
    """
    y, acq = as_tensor(y), fit.acquisition
    if fit.model is None or fit.model.prior.looks_at_voxels:
        return None
    held = volumes_to_keep_aside(fit, acq, seed) if volumes is None else torch.tensor(list(volumes))
    if held is None or len(held) == 0:
        return None
    known = as_inputs(inputs)
    good = torch.isfinite(y).all(-1)
    if WEIGHTS in known:  # what is predicted has to be a measurement
        good &= (known[WEIGHTS][:, held] == 1).all(-1)
    whole = torch.nonzero(good).squeeze(-1)
    some = whole[torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(whole))[:VOXELS]))]
    level = torch.as_tensor(fit.noise.level if sigma is None else sigma, dtype=torch.float32)
    level = level[some] if level.dim() else level
    keep = ~torch.isin(torch.arange(len(acq)), held)
    try:
        reduced = fit.on(acq, keep)
    except InputError:  # the recipe's network takes all volumes
        return None
    known = {name: value[some] for name, value in known.items()}
    found = reduced.posterior(y[some][:, keep], sigma=level, inputs=kept_inputs(known, keep))
    assert isinstance(found, Posterior)
    if len(found.batch.index) == 0:
        return None
    share, part = _inside(fit, found, y[some], level, known, held, seed)
    return _counted(share, part, found, held)


def _inside(
    fit: Fit, found: Posterior, y: Tensor, level: Tensor, known: Mapping[str, Tensor], held: Tensor, seed: int
) -> tuple[Tensor, Acquisition]:
    """Whether each measurement of the fitted voxels lies inside its interval ``(n, K)``, and their settings."""
    acq = fit.acquisition
    columns = torch.cat([torch.nonzero(fit.preparation.s0_volumes(acq)).squeeze(-1), held])
    part = acq[columns]
    signal = build_signal(fit.signal_name, part, fit.preparation, fit.fixed, fit.tied, fit.recipe.ranges)
    likelihood = build_likelihood(fit.recipe, part, fit.preparation)
    likelihood.log_factor.data.copy_(fit.likelihood.log_factor.detach().cpu())
    batch = fit.preparation(y[:, columns], level, part, kept_inputs(known, columns))
    target = batch.voxels[torch.searchsorted(batch.index, found.batch.index)]
    inside, done = [], 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for voxels, q in found._chunks(_DRAWS * len(found.signal.acquisition)):
            here = target[done : done + len(voxels)]
            done += len(voxels)
            z = q.sample(torch.Size([_DRAWS]))
            theta = {k: v.cpu() for k, v in found.model.theta(z, voxels).items()}
            clean = signal(theta, here.inputs) * _scale(found.model, z, voxels)
            again = likelihood(clean, here.noise).sample()
            rank = ((again < here.y).sum(0) + 0.5) / (_DRAWS + 1)
            inside.append((rank - 0.5).abs() < LEVEL / 2)
    return torch.cat(inside).double(), signal.acquisition


def _scale(model: VoxelModel, z: Tensor, voxels: Voxels) -> Tensor:
    """Draws of S0 over the measured one ``(S, n, 1)``, given latents and the measurements that were seen."""
    likelihood = model.likelihood.of(voxels)
    variance = likelihood.s0_variance(voxels.noise)
    if variance is None:
        return torch.ones(())
    clean = model.simulate(z, voxels)
    seen = likelihood.information(clean, voxels.y, voxels.noise).weighted(voxels.weights)
    error = s0_error(clean, seen.score, seen.fisher, variance)
    drawn = 1 + error.shift + error.variance.sqrt() * torch.randn_like(error.shift)
    return drawn.clamp_min(0).unsqueeze(-1).cpu()  # where S0 is uncertain by its own size a normal one may be negative


def _counted(inside: Tensor, part: Acquisition, found: Posterior, held: Tensor) -> Predicted:
    by_setting = {name_of(part, group): inside[:, torch.from_numpy(group)] for group in alike(part)}
    fine = found.status[found.batch.index] == FINE
    by_status = {"fine": inside[fine], "other": inside[~fine]}
    by_class: dict[str, Tensor] = {}
    if found.responsibilities is not None:
        likeliest = found.responsibilities[found.batch.index].argmax(-1)
        by_class = {name: inside[likeliest == k] for k, name in enumerate(found.class_names)}
    shares = [
        {name: float(values.mean()) for name, values in group.items() if values.numel() >= _GROUP}
        for group in (by_setting, by_class, by_status)
    ]
    return Predicted(LEVEL, float(inside.mean()), len(inside), sorted(held.tolist()), *shares)
