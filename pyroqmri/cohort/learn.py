"""The fit of a cohort, trained on voxels of all its images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.cohort.levels import FEWEST
from pyroqmri.cohort.protocols import by_protocol
from pyroqmri.cohort.sample import Sample
from pyroqmri.cohort.subject_level import cohort_levels, has_level, write_levels
from pyroqmri.commands.fit import plan_of
from pyroqmri.commands.manifest import CHECKPOINT
from pyroqmri.commands.output_folder import output_folder, remember_call
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.save import save_fit
from pyroqmri.fitting.train import fit
from pyroqmri.io.fit_folder import MAX_RECORD, RECORD
from pyroqmri.measurements.s0 import settled_s0
from pyroqmri.signals import SIGNALS

FIT = "fit"  # folder below the output folder


@dataclass(frozen=True)
class Training:
    """How the cohort's fit is trained: as the options of `pyroqmri fit` of these names."""

    signal: str
    recipe: str
    likelihood: str | None = None
    s0: str | float = "measured"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As plain values, the recipe in full: what two trainings have to agree in to be the same."""
        plan = plan_of(self.signal, self.recipe, self.likelihood, None, self.settings)
        return {
            "signal": self.signal, "recipe": plan.to_toml(), "s0": self.s0, "seed": self.seed,
            "fixed": dict(self.fixed), "tied": dict(self.tied),
        }  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Voxels of several images of one protocol: ``y`` ``(N, M)``, their noise level ``sigma`` ``(N,)``.

    ``owner`` ``(N,)`` is the place of each voxel's image in ``labels`` and ``subjects``. ``left_out`` are images of
    other protocols, which are mapped where the fit allows it. ``inputs`` are as in
    :class:`pyroqmri.cohort.sample.Sample`, of all N voxels.
    """

    y: np.ndarray
    sigma: np.ndarray
    owner: np.ndarray
    labels: list[str]
    subjects: list[str]
    acquisition: Acquisition
    left_out: list[str]
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)


def pooled(samples: Sequence[Sample], signal: str, s0: str | float = "measured") -> Pool:
    """Voxels of the images that have the protocol of most."""
    largest = by_protocol([one.acquisition for one in samples], signal)[0]
    chosen = [samples[i] for i in largest]
    acquisition = chosen[0].acquisition
    inferred = settled_s0(SIGNALS[signal], s0, acquisition) == "inferred"
    units = [one.scale if inferred else 1.0 for one in chosen]
    return Pool(
        y=np.concatenate([one.y / unit for one, unit in zip(chosen, units, strict=True)]).astype(np.float32),
        sigma=np.concatenate([one.sigma / unit for one, unit in zip(chosen, units, strict=True)]).astype(np.float32),
        owner=np.repeat(np.arange(len(chosen)), [len(one.y) for one in chosen]),
        labels=[one.label for one in chosen],
        subjects=[one.subject for one in chosen],
        acquisition=acquisition,
        left_out=sorted({one.label for one in samples} - {one.label for one in chosen}),
        inputs={name: np.concatenate([one.inputs[name] for one in chosen]) for name in chosen[0].inputs},
    )


def is_trained(out: Path, training: Mapping[str, Any]) -> bool:
    """Whether ``out / "fit"`` is there and was trained by the same call, whatever voxels there were then."""
    try:
        before = read_table(out / FIT / RECORD, "record", MAX_RECORD).get("cohort")
    except InputError:
        return False
    return isinstance(before, dict) and before.get("training") == json.loads(json.dumps(training))


def learn(
    pool: Pool,
    plan: Training,
    reading: Mapping[str, Any],
    out: Path,
    sites: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Fit:
    """Train on a pool and write the fit into ``out / "fit"``; a training that was interrupted goes on.

    Parameters
    ----------
    pool, plan
        Voxels, and how to train on them.
    reading
        How the images were read, which goes into the fit's record.
    out, progress
        The output folder of the cohort; show bars.
    sites
        The site of each subject, for the level of subjects, which is written where the recipe can have one.

    Raises
    ------
    InputError
        When the pool has too few voxels for the recipe.
    TrainingError
        When training diverges.
    """
    training = {**plan.record(), "reading": dict(reading)}
    sums = [float(values.sum(dtype=np.float64)) for values in (pool.y, *pool.inputs.values())]
    call = {**training, "labels": pool.labels, "n": len(pool.y), "sum": sums}
    with output_folder(out / FIT, overwrite=True, resume=True) as folder:
        resume = _same_call(folder, call)
        found = fit(
            pool.y, pool.acquisition, signal=plan.signal, recipe=plan.recipe, likelihood=plan.likelihood,
            sigma=pool.sigma, s0=plan.s0, seed=plan.seed, settings=plan.settings, fixed=plan.fixed, tied=plan.tied,
            device="cpu", progress=progress, checkpoint=folder / CHECKPOINT, resume=resume, inputs=pool.inputs,
        )  # fmt: skip
        notes = [f"trained on {len(pool.y)} voxels of {len(pool.labels)} images: {', '.join(pool.labels)}"]
        if pool.left_out:
            notes.append(f"not trained on, as their protocol is another: {', '.join(pool.left_out)}")
        # the noise of these voxels means nothing to others
        cohort = {"labels": pool.labels, "left_out": pool.left_out, "training": training}
        kept = replace(found, noise=replace(found.noise, level=found.noise.sigma, field=None))
        save_fit(kept, folder, {"notes": notes, "cohort": cohort})
        if has_level(found) and len(set(pool.subjects)) >= FEWEST:
            levels = cohort_levels(found, pool.y, pool.sigma, pool.owner, pool.subjects, sites or {}, pool.inputs)
            write_levels(folder, found, levels)
    return found


def _same_call(folder: Path, call: Mapping[str, Any]) -> bool:
    """Whether there is a checkpoint of this very training to go on from."""
    there = (folder / CHECKPOINT).exists()
    try:
        remember_call(folder, call, resume=True)
    except InputError:
        remember_call(folder, call, resume=False)
        return False
    return there
