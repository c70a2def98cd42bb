"""One attempt at one image: its log, its time, its memory, and an error as the reason in its record."""

import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TextIO

from pyroqmri.cohort.record import DONE, FAILED, STATE, WAITING, Record, read_record, record_path, write_record
from pyroqmri.cohort.task import Task
from pyroqmri.commands.folder_lock import locked
from pyroqmri.errors import InputError, TrainingError

Log = Callable[[str], None]
PATIENCE, _LOOK = 60.0, 0.5  # seconds
_ONE = threading.Lock()  # a Dask worker may have several threads, and torch's random numbers are the process's


def attempt(
    task: Task, what: str, work: Callable[[Task, Log], Record], done: Callable[[Task], Record | None] | None = None
) -> Record:
    """Run ``work`` on a task; its record where it succeeds, else one that failed and states why, which is written.

    A signal to stop goes through; everything else that can be wrong with one image ends that image only. An image
    that another run has in hand, such as a Dask worker whose client was killed, is waited for, and left to it;
    ``done`` finds what that has made.
    """
    lock = task.out / STATE / "locks" / f"{task.image.label}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(lock, task.out / task.image.folder))
                break
            except InputError as error:
                if time.monotonic() > end:
                    return Record.of(task.image, WAITING, _reason(error))
                time.sleep(_LOOK)
        with _ONE:
            before = None if done is None else done(task)
            return _attempt(task, what, work) if before is None else before


def _attempt(task: Task, what: str, work: Callable[[Task, Log], Record]) -> Record:
    import torch

    torch.set_num_threads(1)  # one process per core
    begin, reset = time.monotonic(), _reset_peak()
    path = task.out / "logs" / f"{task.image.label}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = _logger(file)
        log(f"{what} {', '.join(str(one) for one in task.image.paths)}")
        try:
            record = work(task, log)
        except Exception as error:
            record = Record.of(task.image, FAILED, _reason(error))
            log(f"failed: {record.why}")
            if not isinstance(error, InputError | TrainingError):
                file.write(traceback.format_exc())
        record.key = task.key
        record.seconds = round(time.monotonic() - begin, 3)
        record.peak_gb = round(peak_gb(), 3) if reset else 0.0
        log(f"{record.status} after {record.seconds:.1f} s, at most {record.peak_gb:.2f} GB of memory")
        if record.status == FAILED:
            withdraw(task.out, task.image.label)
        if record.status in (DONE, FAILED):
            write_record(task.out, record)
    return record


def withdraw(out: Path, label: str) -> None:
    """Remove the record of an image, then the files that it lists, so that no maps stand without their record."""
    before = read_record(out, label)
    for name in () if before is None else before.files:
        (out / name).unlink(missing_ok=True)
    record_path(out, label).unlink(missing_ok=True)


def peak_gb() -> float:
    """The most memory that this process had resident since the count was set back, in GB; 0 where that is unknown."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1e6
    return 0.0


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, InputError | TrainingError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "the memory of one worker is too small for this image; give --memory-gb a larger number"
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    return f"{type(error).__name__}: {error}; this is a defect of pyroqmri, the log shows where"


def _logger(file: TextIO) -> Log:
    def log(line: str) -> None:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        file.flush()

    return log
