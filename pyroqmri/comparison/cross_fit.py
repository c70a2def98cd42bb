"""Recipes compared from nothing: each is trained on halves of the voxels, and without some of the volumes."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.comparison.candidate import Candidate
from pyroqmri.comparison.held_out import held_out_shell, volume_folds
from pyroqmri.comparison.ranking import Comparison
from pyroqmri.comparison.results import Arrays, Results
from pyroqmri.comparison.run import Plan, cross_fitted, left_out
from pyroqmri.errors import InputError
from pyroqmri.progress import progress_bar

WHOLE = (
    "{} maps whole images, and halves of the voxels lack their neighbours: recipes are ranked by what was left out, "
    "without PSIS-LOO and evidence"
)
Stage = tuple[str, str, Callable[[], Arrays]]


def compare_recipes(
    candidates: Mapping[str, Candidate],
    y: Tensor,
    acq: Acquisition,
    noise: Any,
    plan: Plan,
    *,
    inputs: Mapping[str, Tensor] | None = None,
    voxels: Tensor | None = None,
    results: Results | None = None,
    keep: Callable[[Results], None] | None = None,
    progress: bool = False,
) -> Comparison:
    """Train every recipe as often as the plan asks, and rank them.

    No voxel is scored by a population that it taught: the scores of one half of the voxels
    are those of a fit to the other half. Volumes that are left out are left out of the training.

    Parameters
    ----------
    candidates
        By name.
    y, acq
        Measurements ``(N, M)`` and their settings.
    noise
        Noise level as :func:`pyroqmri.fit` takes it, the same for all; a tensor ``(N,)`` is one a voxel.
    plan
        What to leave out.
    inputs
        Per-voxel inputs of the signals, each ``(N,)``; every recipe takes those of its signal.
    voxels
        Integer indices ``(N, 3)`` in the image. A recipe whose prior is a field needs them; it is trained on all
        voxels, and all recipes are ranked by volumes left out alone, for halves of the voxels lack their neighbours.
    results, keep
        Stages that are done already, and what is called after each stage with all that are.
    progress
        Show a bar over the stages.

    Raises
    ------
    InputError
        When there are fewer than two recipes, none of them has a posterior and nothing is left out, or the
        plan asks for volumes that there are not.
    """
    check(candidates, acq, plan, voxels)
    results = Results() if results is None else results
    stages = stages_of(candidates, y, acq, noise, plan, inputs, voxels)
    with progress_bar("comparing", len(stages), progress) as report:
        for done, (name, stage, work) in enumerate(stages):
            report(done, f"{name}, {stage}")
            if not results.has(name, stage):
                results.add(name, stage, work())
                if keep is not None:
                    keep(results)
        report(len(stages))
    fields = " and ".join(name for name, candidate in candidates.items() if candidate.is_field)
    notes = (WHOLE.format(fields),) if fields else ()
    return results.comparison(tuple(candidates), {name: c.data_seen(acq) for name, c in candidates.items()}, notes)


def stages_of(
    candidates: Mapping[str, Candidate], y: Tensor, acq: Acquisition, noise: Any, plan: Plan,
    inputs: Mapping[str, Tensor] | None = None, voxels: Tensor | None = None,
) -> list[Stage]:  # fmt: skip
    """Every training that is to be done, those that rank most recipes first."""
    found: list[Stage] = []
    halved = not any(candidate.is_field for candidate in candidates.values())
    for name, candidate in candidates.items():
        if candidate.is_bayesian and halved:
            found += [(name, *stage) for stage in cross_fitted(candidate, y, acq, noise, plan, inputs)]
    for name, candidate in candidates.items():
        found += [(name, *stage) for stage in left_out(candidate, y, acq, noise, plan, inputs=inputs, voxels=voxels)]
    return found


def check(candidates: Mapping[str, Candidate], acq: Acquisition, plan: Plan, voxels: Tensor | None = None) -> None:
    """Refuse what cannot end well, before anything is trained."""
    if len(candidates) < 2:
        raise InputError(f"a comparison needs two recipes or more, got {len(candidates)}")
    fields = [name for name, candidate in candidates.items() if candidate.is_field]
    if fields and not plan.folds and plan.shell is None:
        raise InputError(
            f"recipe {fields[0]} maps whole images, so only measurements that are left out can compare it; give folds "
            "or a shell to leave out"
        )
    if fields and voxels is None:
        raise InputError(f"recipe {fields[0]} needs to know where the voxels lie: give voxels=, integer indices (N, 3)")
    if plan.folds:
        volume_folds(acq, plan.folds)
    if plan.shell is not None:
        held_out_shell(acq, plan.shell)
    if not any(c.is_bayesian for c in candidates.values()) and not plan.folds and plan.shell is None:
        raise InputError("none of these recipes has a posterior to weigh; compare their held-out errors with folds")
