"""Comparing recipes: trained on one half of the voxels and scored on the other, then without some of the volumes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.comparison.candidate import Candidate
from pyroqmri.comparison.held_out import held_out_shell, predict, volume_folds
from pyroqmri.comparison.ranking import Comparison
from pyroqmri.comparison.results import Arrays, Results
from pyroqmri.comparison.scores import voxel_scores
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.measurements.arguments import as_inputs, as_positions, as_seed, as_tensor
from pyroqmri.measurements.own_protocol import refuse_own_protocol
from pyroqmri.measurements.preparation import Batch
from pyroqmri.posterior import Posterior

TRAINING_VOXELS = 100_000
SCORED_VOXELS = 4000  # leaving out every measurement of more is slow, and standard errors are small by then


@dataclass(frozen=True)
class Plan:
    """What to do.

    Parameters
    ----------
    folds
        Parts in which volumes are left out; 0 leaves that out.
    shell
        Shell to leave out: ``highest``, a b-value in ms/um2, or None.
    scored
        Voxels that are scored by measurements left out; evidence is computed in all.
    seed
        Of halves, folds and draws.
    """

    folds: int = 5
    shell: str | float | None = "highest"
    scored: int = SCORED_VOXELS
    seed: int = 0


def compare(
    candidates: Mapping[str, Fit | Posterior],
    y: Any = None,
    *,
    sigma: Any = None,
    folds: int = 0,
    shell: str | float | None = None,
    scored: int = SCORED_VOXELS,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    averages: Any = None,
    voxels: Any = None,
) -> Comparison:
    """Rank posteriors of the same voxels by how well they predict; ``pq.compare({"one": fit, "three": other}, y)``.

    Scores are in nats of the measurements in the scan's own units, summed over voxels, with standard errors over
    voxels. PSIS-LOO leaves out one measurement at a time; evidence integrates over the parameters of each voxel and
    conditions on the population that was learned. A fit that learned from the very voxels it is scored on is favoured
    by about a nat for two learned numbers of its population, and a network by more: score other voxels, or let
    ``pyroqmri compare`` train on halves.

    Parameters
    ----------
    candidates
        By name: fits, or posteriors of the same voxels. Point estimators take part in held-out errors only.
    y
        Measurements ``(N, M)`` that fits are scored on; not for posteriors, which have their own.
    sigma
        Noise level of these voxels as in :meth:`pyroqmri.Fit.posterior`.
    folds, shell
        Also train every fit's recipe again without some volumes, and score those: in ``folds``
        parts, and without a shell (``highest``, or its b-value in ms/um2).
    scored
        Voxels whose measurements are left out; evidence is computed in all.
    seed
        Of the draws.
    inputs
        Per-voxel inputs of the signals, each ``(N,)``; every fit takes its own.
    averages
        How many magnitudes each measurement is the mean of; as in the training of each fit when None.
    voxels
        Integer indices ``(N, 3)`` of the rows of ``y``, for fits whose prior is a field. Evidence and PSIS-LOO of such
        a fit are of each voxel given all others; volumes left out (``folds``) compare it with others.

    Raises
    ------
    InputError
        When fewer than two are given, or they are of different voxels.
    """
    if len(candidates) < 2:
        raise InputError(f"a comparison needs two recipes or more, got {len(candidates)}")
    refuse_own_protocol(inputs, "compare")
    y, known = None if y is None else as_tensor(y), as_inputs(inputs)
    place = None if voxels is None or y is None else as_positions(voxels, None, len(y))
    candidates = {name: _averaged(given, averages) for name, given in candidates.items()}
    posteriors, seen = {}, {}
    for name, given in candidates.items():
        if isinstance(given, Fit):
            if y is None:
                raise InputError(f"{name} is a fit: give the measurements y that it is to be scored on")
            where = place if given.is_field else None
            found = given.posterior(y, sigma=sigma, inputs=Candidate.of(given).own(known), voxels=where)
            seen[name] = Candidate.of(given).data_seen(given.acquisition)
        else:
            found, seen[name] = given, repr(_settings(given))
        if isinstance(found, Posterior):
            posteriors[name] = found
    if len({len(p.batch.status) for p in posteriors.values()}) > 1:
        raise InputError("the posteriors are of different numbers of voxels; compare posteriors of the same voxels")
    plan = Plan(folds, shell, scored, as_seed(seed))
    results = Results()
    for name, posterior in posteriors.items():
        results.add(name, "scores", score(posterior, plan))
    for name, given in candidates.items():
        if isinstance(given, Fit) and y is not None:
            told = Candidate.of(given), y, given.acquisition, given.noise, plan, sigma, known, place
            for stage, work in left_out(*told):
                results.add(name, stage, work())
    return results.comparison(tuple(candidates), seen)


def _averaged(given: Fit | Posterior, averages: Any) -> Fit | Posterior:
    if averages is None or not isinstance(given, Fit):
        return given
    return given.on(given.acquisition.averaged(averages))


def _settings(posterior: Posterior) -> list[tuple[str, list]]:
    acq = posterior.signal.acquisition.settings()
    n = posterior.model.likelihood.n_average
    return [(k, v.tolist()) for k, v in acq.items() if k != "bvec"] + [("n", [] if n is None else n.tolist())]


def score(posterior: Posterior, plan: Plan) -> Arrays:
    """Scores of a posterior's voxels, NaN where there is none, ``(N,)`` each."""
    n = len(posterior.batch.status)
    wanted = torch.isin(posterior.batch.index, scored_voxels(n, plan))
    some, others = torch.nonzero(wanted).squeeze(-1), torch.nonzero(~wanted).squeeze(-1)
    parts = [voxel_scores(posterior, some, seed=plan.seed), voxel_scores(posterior, others, seed=plan.seed, loo=False)]
    found = {}
    for name in ("loo", "waic", "evidence", "khat", "bad_loo"):
        found[name] = torch.full((n,), torch.nan, dtype=torch.float64)
        for part in parts:
            found[name][part.index] = getattr(part, name)
    return found


def scored_voxels(n: int, plan: Plan) -> Tensor:
    """Which of ``n`` voxels have their measurements left out, spread over all."""
    return spread(n, plan.scored)


def spread(n: int, most: int) -> Tensor:
    """At most ``most`` of ``n`` indices, evenly spread."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).round().long()


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """All of ``n`` voxels in two random halves."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values


def cross_fitted(
    candidate: Candidate,
    y: Tensor,
    acq: Acquisition,
    noise: Any,
    plan: Plan,
    inputs: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Scores of every voxel under a population that was learned from the other half of them."""
    first, second = halves(len(y), plan.seed)
    known = candidate.own(inputs or {})
    for k, (learn, judged) in enumerate(((first, second), (second, first))):

        def work(learn: Tensor = learn, judged: Tensor = judged) -> Arrays:
            learn = learn[spread(len(learn), TRAINING_VOXELS)]
            found = candidate.train(y[learn], acq, _part(noise, learn), {k: v[learn] for k, v in known.items()})
            posterior = found.posterior(
                y[judged], sigma=_part(noise, judged) if isinstance(noise, Tensor) else None,
                inputs={k: v[judged] for k, v in known.items()},
            )  # fmt: skip
            assert isinstance(posterior, Posterior)
            wide = _spread(posterior, judged, len(y))
            return score(wide, plan)

        yield f"half {k + 1}", work


def _spread(posterior: Posterior, where: Tensor, n: int) -> Posterior:
    """The posterior with its voxels among ``n``."""
    old = posterior.batch
    status = torch.zeros(n, dtype=old.status.dtype)
    status[where] = old.status
    posterior.batch = Batch(old.voxels, where[old.index], status, old.reference)
    return posterior


def _part(sigma: Any, index: Tensor) -> Any:
    return sigma[index] if isinstance(sigma, Tensor) and sigma.dim() == 1 else sigma


def left_out(
    candidate: Candidate,
    y: Tensor,
    acq: Acquisition,
    noise: Any,
    plan: Plan,
    sigma: Any = None,
    inputs: Mapping[str, Tensor] | None = None,
    voxels: Tensor | None = None,
) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Scores of volumes that the recipe was trained without; a field is trained on the whole image."""
    some = torch.arange(len(y)) if candidate.is_field else scored_voxels(len(y), plan)
    place = None if voxels is None or not candidate.is_field else voxels[some]
    known = {name: value[some] for name, value in candidate.own(inputs or {}).items()}

    def work(held: Tensor) -> Arrays:
        keep = torch.ones(len(acq), dtype=torch.bool)
        keep[held] = False
        found = candidate.train(y[some][:, keep], acq[keep], _part(noise, some), known, place)
        level = noise if sigma is None and isinstance(noise, Tensor) else sigma
        predicted = predict(found, y[some], acq, held, _part(level, some), plan.seed, known, place)
        out = {}
        for name, values in (("elpd", predicted.elpd), ("square", predicted.square)):
            out[name] = torch.full((len(y),), torch.nan, dtype=torch.float64)
            out[name][some] = values
        return out

    if plan.folds:
        for k, held in enumerate(volume_folds(acq, plan.folds, plan.seed)):
            yield f"fold {k + 1}", lambda held=held: work(held)
    if plan.shell is not None:
        yield "shell", lambda: work(held_out_shell(acq, plan.shell))  # type: ignore[arg-type]
