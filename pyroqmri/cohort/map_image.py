"""One image of a cohort mapped with the cohort's fit."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyroqmri.cohort.attempt import Log, attempt, withdraw
from pyroqmri.cohort.image import CohortImage
from pyroqmri.cohort.record import DONE, STATE, WAITING, Record, input_record, is_done, read_record, write_record
from pyroqmri.cohort.task import Task
from pyroqmri.errors import InputError
from pyroqmri.io.names import suffix
from pyroqmri.whole_files import sync_tree

if TYPE_CHECKING:
    from pyroqmri.fitting.fit import Fit
    from pyroqmri.io import Scan

# what a folder of maps has besides, and what becomes of it in a folder of many subjects
_LEFT_OUT = {"dataset_description.json", ".bidsignore", ".pyroqmri.json", "fit/recipe.toml", "fit/weights.safetensors"}
FINE = "1"


def map_image(task: Task) -> Record:
    """Map an image and put its files in place; its record, written last, says that all of them are there."""
    return attempt(task, "mapping", _mapped, _done)


def _done(task: Task) -> Record | None:
    """The record of an image that a run which had it in hand until now has mapped."""
    return read_record(task.out, task.image.label) if is_done(task.out, task.image, task.key) else None


def _mapped(task: Task, log: Log) -> Record:
    from pyroqmri.commands.apply import apply_image

    image, record = task.image, Record.of(task.image, DONE)
    record.inputs = input_record(image)  # before they are read: a change meanwhile is noticed by the next run
    work = task.out / STATE / "work" / image.label
    assert task.fit is not None
    with one_image(task, log) as path:
        apply_image(
            task.fit, task.reading.files(path, image), out=work, sigma=task.reading.sigma, device="cpu",
            overwrite=True, pages=task.pages, rescale=True, adapt=_adapter(task, log),
        )  # fmt: skip
    fit = json.loads((work / "fit" / "fit.json").read_text())
    for note in (*fit["notes"], fit["sigma"]["note"]):
        log(f"note: {note}")
    record.warnings = list(fit["warnings"])
    for warning in record.warnings:
        log(f"warning: {warning}")
    record.n_voxels, record.n_fine = fit["n_mapped"], fit["status_counts"].get(FINE, 0)
    _publish(task, work, record)
    return record


def _adapter(task: Task, log: Log) -> "Callable[[Fit, Scan], Fit] | None":
    """What moves the cohort's population to the mean of this image's voxels, where that is asked for."""
    if not task.subject_level:
        return None
    from pyroqmri.cohort.subject_level import constrained, for_subject, population_of, read_levels
    from pyroqmri.io.fit_folder import fit_place

    assert task.fit is not None
    levels = read_levels(fit_place(task.fit))

    def adapt(fit: "Fit", scan: "Scan") -> "Fit":
        moved, _ = for_subject(fit, levels, scan.y, fit.noise.level, task.site, scan.inputs)
        known, own = constrained(fit, levels.of(task.site)), constrained(fit, population_of(moved)[0])
        words = ", ".join(f"{p.name} {own[p.name]:.4g} (cohort {known[p.name]:.4g})" for p in fit.signal.tissue)
        log(f"population of this subject, medians: {words}")
        return moved

    return adapt


@contextmanager
def one_image(task: Task, log: Log) -> Iterator[Path]:
    """The 4-D image of a task; a series is joined into one, in a folder that goes with the block."""
    paths = task.image.paths
    if len(paths) == 1:
        yield paths[0]
        return
    from pyroqmri.commands.join import join_series

    folder = task.out / STATE / "series" / task.image.label
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        joined = join_series(paths, out=folder / f"{task.image.label}_{suffix(paths[0])}.nii.gz")
        for line in (*joined.notes, *joined.warnings):
            log(f"series: {line}")
        yield joined.path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(task: Task, work: Path, record: Record) -> None:
    """Move the files of a finished folder to their places; whenever this is killed, the next run starts it again."""
    before = read_record(task.out, record.label)
    moves = dict(_moves(task.image, task.reading.signal, work))
    known = set() if before is None else set(before.files)
    for target in moves.values():
        if (task.out / target).exists() and target.as_posix() not in known:
            raise InputError(f"{task.out / target} was not written by this command; move it elsewhere")
    record.files = {target.as_posix(): (work / source).stat().st_size for source, target in moves.items()}
    withdraw(task.out, record.label)
    # until the record is final, all that may lie there is listed
    write_record(task.out, replace(Record.of(task.image, WAITING, "was being written"), files=record.files))
    for source, target in moves.items():
        (task.out / target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / source, task.out / target)
    sync_tree(task.out / task.image.folder)
    shutil.rmtree(work, ignore_errors=True)


def _moves(image: CohortImage, signal: str, work: Path) -> Iterator[tuple[str, Path]]:
    """Each file of a folder of maps and its name in the data set, all of which begin with the image's label."""
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.is_dir() or name in _LEFT_OUT or path.name.startswith("."):
            continue
        own = path.name if "_model-" in path.name else f"{image.label}_model-{signal}_{path.name}"
        yield name, image.folder / own
