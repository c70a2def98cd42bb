"""The number of coils behind a sum of squares: as given, or learned where the data determine it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError, brief
from pyroqmri.fitting.build import build_signal
from pyroqmri.fitting.noise_level import noise_level
from pyroqmri.fitting.parts import part_of
from pyroqmri.fitting.residual import bright
from pyroqmri.fitting.schema import with_settings
from pyroqmri.likelihoods import NCChiLikelihood
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS
from pyroqmri.voxelwise.search import Search, search

LEARN = "learn"
_TRIED = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_VOXELS = 200
_FEWEST = 50


def coils_of(plan: Recipe) -> float:
    """Coils whose sum of squares a recipe's likelihood is of; one for every likelihood but ``ncchi``."""
    return float(getattr(part_of(plan, "likelihood"), "coils_of", lambda _: 1.0)(plan.table("likelihood")))


def with_coils(plan: Recipe, coils: Any) -> Recipe:
    """The recipe with likelihood ``ncchi`` of ``coils`` channels; as it is when None, and to be learned: one coil.

    Raises
    ------
    InputError
        When it is no number from 1 to 256, or the likelihood was chosen otherwise.
    """
    if coils is None:
        return plan
    number = 1.0 if isinstance(coils, str) and coils == LEARN else coils
    if isinstance(number, bool) or not isinstance(number, int | float | np.number) or not 1 <= number <= 256:
        raise InputError(f"coils must be a number from 1 to 256, or 'learn', got {brief(coils)}")
    return with_settings(plan, {"likelihood.kind": "ncchi", "likelihood.coils": float(number)})


def learn_coils(
    plan: Recipe,
    signal: str,
    y: Tensor,
    acq: Acquisition,
    sigma: Any,
    held: tuple[Mapping[str, float], Mapping[str, str]],
    inputs: Mapping[str, Tensor],
) -> tuple[Recipe, str]:
    """The recipe with the number of coils under which some bright voxels are likeliest, and a sentence on it.

    Every voxel is fitted by maximum likelihood under 1 to 64 coils, each with its own estimate of the noise level. It
    is the floor of the weakest measurements that tells them apart, so the signal has to describe those.

    Raises
    ------
    InputError
        When numbers of coils that differ more than twofold describe the data alike.
    """
    some = torch.nonzero(bright(y)).squeeze(-1)
    some = some[torch.linspace(0, len(some) - 1, min(len(some), _VOXELS)).round().long()]
    if len(some) < _FEWEST:
        raise InputError(f"coils cannot be learned from {len(some)} voxels; give their number")
    level = sigma[some.numpy()] if np.ndim(sigma) == 1 else sigma
    given = {name: value[some] for name, value in inputs.items()}

    def score(coils: float) -> np.ndarray:
        return _score(plan, signal, y[some], acq, level, held, given, coils)

    scores = np.stack([score(coils) for coils in _TRIED])
    total = scores.sum(1)
    best = int(total.argmax())
    behind = scores - scores[best]
    alike = behind.sum(1) >= -2 * behind.std(1) * np.sqrt(behind.shape[1])
    low, high = (_TRIED[int(i)] for i in np.flatnonzero(alike)[[0, -1]])
    if high > 2 * low or best == len(_TRIED) - 1:
        raise InputError(
            f"the number of coils is not determined ({low:g} to {high:g} of at most {_TRIED[-1]:g} describe these data "
            "alike): the weakest signals are far above the noise, or the signal does not describe them; give --coils N"
        )
    found = (
        1.0 if best == 0 else round(_TRIED[best] * _peak([score(_TRIED[best] * x) for x in (0.5**0.5, 1, 2**0.5)]), 1)
    )
    other = 0 if best else 1
    less = f"under {_TRIED[other]:g} the data are {total[best] - total[other]:.0f} nats less likely"
    words = f"number of coils {found:g}, learned from {len(some)} voxels: {less}"
    return with_coils(plan, found), words


def _peak(scores: Sequence[np.ndarray]) -> float:
    """The factor at the top of a parabola through the totals at factors of 0.7, 1 and 1.4."""
    below, top, above = (score.sum() for score in scores)
    bend = 2 * top - below - above
    return float(2 ** (np.clip((above - below) / (2 * bend), -1, 1) / 2)) if bend > 0 else 1.0


def _score(
    plan: Recipe, signal: str, y: Tensor, acq: Acquisition, sigma: Any,
    held: tuple[Mapping[str, float], Mapping[str, str]], inputs: Mapping[str, Tensor], coils: float,
) -> np.ndarray:  # fmt: skip
    """Largest log-likelihood of each voxel ``(N,)``, NaN where it cannot be fitted, counted as zero."""
    average = plan.table("data").get("average", "auto")
    prepared = prepare_for(SIGNALS[signal], acq, y, s0="inferred", average=average, magnitude=True, coils=coils)
    bound = build_signal(signal, acq, prepared, *held, plan.ranges)
    noise = noise_level(y, acq, sigma, prepared, bound, inputs)
    batch = prepared(y, torch.as_tensor(noise.level, dtype=y.dtype), acq, inputs)
    likelihood = NCChiLikelihood(prepared.seen(acq).n_average, coils=coils)
    found = search(bound, likelihood, batch, Search("levenberg_marquardt"))
    with torch.no_grad():
        fitted = bound(found.theta, batch.voxels.inputs)
        found_at = likelihood.of(batch.voxels).information(fitted, batch.voxels.y, batch.voxels.noise)
        each = found_at.weighted(batch.voxels.weights).log_prob.sum(-1).double()
    score = torch.zeros(len(y), dtype=torch.float64)
    score[batch.index] = each
    return score.numpy()
