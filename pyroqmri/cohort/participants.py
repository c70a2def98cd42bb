"""The participant level: every image of a data set mapped with one fit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyroqmri.cohort.data_set import only_run, open_data_set, same_call
from pyroqmri.cohort.image import CohortImage
from pyroqmri.cohort.index import find_images
from pyroqmri.cohort.map_image import map_image
from pyroqmri.cohort.record import (
    DONE,
    FAILED,
    SKIPPED,
    STATE,
    WAITING,
    Record,
    folder_digest,
    is_done,
    key_of,
    read_record,
    sha256_of,
    write_record,
)  # fmt: skip
from pyroqmri.cohort.sample import is_sampled, read_sample, sample_image
from pyroqmri.cohort.status_table import write_status
from pyroqmri.cohort.subject_level import LEVELS
from pyroqmri.cohort.task import Reading, Task
from pyroqmri.cohort.workers import Workers
from pyroqmri.errors import InputError
from pyroqmri.io.fit_folder import RECIPE, RECORD, WEIGHTS, fit_place
from pyroqmri.progress import progress_bar, say_phase

FEWEST, MOST = 200, 5000  # voxels of an image to train on
N_VOXELS = 20_000
_ROUNDS = 2  # images that another run had in hand are tried again after all others


@dataclass(frozen=True)
class Selection:
    """Which images of the data set: labels of participants and sessions (all when empty), entities to ask for."""

    participants: Sequence[str] = ()
    sessions: Sequence[str] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """A data set, where its maps go, how images are read, and how the fit is trained or which one is given.

    Attributes
    ----------
    bids_dir, out_dir
        Folders.
    reading, training, fit
        Exactly one of ``training`` (a :class:`pyroqmri.cohort.learn.Training`) and ``fit`` (a folder) is there.
    selection
        Of images.
    subject_level
        Move the population, for each image, to where its own voxels put it; where the fit has such a level when None.
    sites
        The site of each subject, by label.
    n_voxels
        To train on, over all images.
    pages
        Write each image's ``report.html`` and ``posterior.nc``.
    """

    bids_dir: Path
    out_dir: Path
    reading: Reading
    training: Any = None
    fit: Path | None = None
    selection: Selection = field(default_factory=Selection)
    subject_level: bool | None = None
    sites: Mapping[str, str] = field(default_factory=dict)
    n_voxels: int = N_VOXELS
    pages: bool = True

    def images(self) -> list[CohortImage]:
        """Images of the selection."""
        chosen = self.selection
        found = find_images(
            self.bids_dir, self.reading.signal, participants=chosen.participants, sessions=chosen.sessions,
            filters=chosen.filters,
        )  # fmt: skip
        return [self.reading.with_own(image) for image in found]

    def call(self) -> dict[str, Any]:
        """What all images of the folder have in common; another call needs another folder."""
        fit = _digest(self.fit) if self.fit is not None else None
        training = None if self.training is None else self.training.record()
        read, level = self.reading.record(), self.subject_level
        if level is None:
            level = "where it is learned" if self.fit is None else self.has_level(self.fit)
        return {"reading": read, "training": training, "fit": fit, "subject level": level}

    def has_level(self, fit: Path) -> bool:
        """Whether images are mapped under populations of their own with this fit."""
        return (fit_place(fit) / LEVELS).is_file() if self.subject_level is None else self.subject_level


def run_participants(
    cohort: Cohort, workers: Workers | None = None, *, relearn: bool = False, overwrite: bool = False,
    progress: bool = False,
) -> list[Record]:  # fmt: skip
    """Map every image of a cohort that is not mapped yet, and write ``participants_status.tsv``.

    Parameters
    ----------
    cohort
        What is to be done.
    workers
        Where; in this process when None.
    relearn
        Train the cohort's fit again, also where there is one; all images are then mapped again.
    overwrite
        Replace the results of another call in the same folder.
    progress
        Show bars.

    Returns
    -------
    list of Record
        What became of each image, and of participants without one.

    Raises
    ------
    InputError
        When the call is wrong: no image is found, another run writes the folder, or it belongs to another call.
    TrainingError
        When the training of the fit diverges.
    """
    workers = Workers() if workers is None else workers
    images, out = cohort.images(), cohort.out_dir
    call = cohort.call()
    open_data_set(out, cohort.bids_dir)
    shared = cohort.fit is not None and bool(cohort.selection.participants)
    with only_run(out, shared):
        same_call(out, call, overwrite)
        records = {image.label: Record.of(image, WAITING, "the run ended before") for image in images}
        try:
            with workers.running() as run:
                fit = _fit_of(cohort, images, run, records, relearn, progress)
                if fit is not None:
                    _map_all(cohort, images, fit, run, records, progress)
        finally:
            every = [*records.values(), *_without_image(cohort, images)]
            with suppress(OSError):  # a full disk; the reason is under way already
                write_status(out, _with_others(out, every))
    return every


def planned(cohort: Cohort) -> list[Record]:
    """What a run would do, image by image, where the fit is there; nothing is written."""
    images, place = cohort.images(), cohort.fit if cohort.fit is not None else cohort.out_dir / "fit"
    keys = _keys(cohort, images, place) if (fit_place(place) / RECORD).is_file() else {}
    done = [Record.of(image, DONE) for image in images if keys and is_done(cohort.out_dir, image, keys[image.label])]
    known = {record.label for record in done}
    words = "would be mapped" if keys else "would be mapped, after the fit is trained"
    todo = [Record.of(image, WAITING, words) for image in images if image.label not in known]
    return [*done, *todo, *_without_image(cohort, images)]


def _fit_of(
    cohort: Cohort, images: Sequence[CohortImage], run: Any, records: dict[str, Record], again: bool, progress: bool
) -> Path | None:
    """The folder of the fit, trained where there is none; None where no image could be read."""
    from pyroqmri.cohort.learn import FIT, is_trained, learn, pooled

    if cohort.fit is not None:
        return cohort.fit
    place, reading = cohort.out_dir / FIT, cohort.reading.record()
    if not again and is_trained(cohort.out_dir, {**cohort.training.record(), "reading": reading}):
        return place
    share = min(MOST, max(FEWEST, cohort.n_voxels // len(images)))
    key = key_of("sample", share, reading)
    tasks = [Task(image, cohort.out_dir, cohort.reading, key, n_voxels=share) for image in images]
    todo = [task for task in tasks if not is_sampled(task)]
    for record in _run("sampling voxels", sample_image, todo, run, cohort.out_dir, progress):
        if record.status == FAILED:
            records[record.label] = record
    good = [image for image in images if records[image.label].status != FAILED]
    if not good:
        return None
    samples = [read_sample(cohort.out_dir, image.label, image.subject) for image in good]
    say_phase("training the cohort's fit", progress)
    pool = pooled(samples, cohort.reading.signal, cohort.training.s0)
    learn(pool, cohort.training, reading, cohort.out_dir, cohort.sites, progress)
    return place


def _map_all(
    cohort: Cohort, images: Sequence[CohortImage], fit: Path, run: Any, records: dict[str, Record], progress: bool
) -> None:
    keys, out = _keys(cohort, images, fit), cohort.out_dir
    todo = []
    for image in images:
        if records[image.label].status == FAILED:
            continue
        if is_done(out, image, keys[image.label]):
            records[image.label] = read_record(out, image.label) or records[image.label]
        else:
            site, level = cohort.sites.get(image.subject, ""), cohort.has_level(fit)
            task = Task(image, out, cohort.reading, keys[image.label], fit=fit, subject_level=level, site=site)
            todo.append(replace(task, pages=cohort.pages))
    for _ in range(_ROUNDS):
        for record in _run("mapping images", map_image, todo, run, out, progress):
            records[record.label] = record
        todo = [task for task in todo if records[task.image.label].status == WAITING]


def _run(title: str, function: Any, tasks: Sequence[Task], run: Any, out: Path, progress: bool) -> Iterator[Record]:
    """Records of tasks as they end; one whose worker was lost is written here."""
    if not tasks:
        return
    with progress_bar(title, len(tasks), progress) as report:
        for done, outcome in enumerate(run(function, tasks), 1):
            record = outcome.result
            if record is None:
                record = Record.of(tasks[outcome.index].image, FAILED, outcome.lost)
                with suppress(OSError):
                    write_record(out, record)
            report(done, f"{record.label} {record.status}")
            yield record


def _keys(cohort: Cohort, images: Sequence[CohortImage], fit: Path) -> dict[str, str]:
    """What determines each image's result beside its inputs, by label."""
    common = key_of("map", _digest(fit), cohort.reading.record())
    if not cohort.has_level(fit):
        return dict.fromkeys((image.label for image in images), common)
    level = _level(fit)
    return {image.label: key_of(common, level, cohort.sites.get(image.subject, "")) for image in images}


def _level(fit: Path) -> str:
    """SHA-256 of the level of subjects beside a fit."""
    path = fit_place(fit) / LEVELS
    if not path.is_file():
        raise InputError(
            f"{fit} has no level of subjects ({LEVELS}): it is learned with recipe hierarchical from three subjects "
            "or more; leave out --subject-level"
        )
    return sha256_of(path)


def _digest(fit: Path) -> str:
    place = fit_place(fit)
    try:
        return folder_digest(place, (RECIPE, WEIGHTS, RECORD))
    except OSError as error:
        raise InputError(f"{fit} contains no readable fit ({error.strerror}: {error.filename}); check --fit") from error


def _without_image(cohort: Cohort, images: Sequence[CohortImage]) -> list[Record]:
    """Participants of the selection in whose folders no image was found."""
    chosen = {label.removeprefix("sub-") for label in cohort.selection.participants}
    there = {path.name.removeprefix("sub-") for path in cohort.bids_dir.glob("sub-*") if path.is_dir()}
    lacking = (chosen or there) - {image.subject for image in images}
    why = "no image of the kind that was asked for"
    return [Record(f"sub-{one}", one, "", "", SKIPPED, why) for one in sorted(lacking)]


def _with_others(out: Path, records: Sequence[Record]) -> list[Record]:
    """The records of this run, and those of other runs in the same folder."""
    known = {record.label for record in records}
    labels = sorted(path.stem for path in (out / STATE / "records").glob("*.json"))
    others = (read_record(out, label) for label in labels if label not in known)
    return sorted([*records, *(one for one in others if one is not None)], key=lambda record: record.label)
