"""Work on many images, or blocks of one, in processes of this machine."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

ATTEMPTS = 2  # a worker that was killed may have been unlucky; one that is killed twice was not
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True)
class Outcome:
    """What became of the task at ``index``: the result, or why there is none."""

    index: int
    result: Any = None
    lost: str = ""


def run_here(
    function: Callable[[Any], Any], tasks: Sequence[Any], n_workers: int = 1, memory_gb: float | None = None
) -> Iterator[Outcome]:
    """Call ``function`` on each task; outcomes come as they are there.

    Parameters
    ----------
    function
        Of a module, so that a worker can import it. What it raises ends the task, not the run.
    n_workers
        Processes, started afresh (spawn). One works in this process, where nothing bounds its memory.
    memory_gb
        Of data for each worker, where the system can bound it (Linux).

    Notes
    -----
    A worker that is killed loses the task in hand, which is tried once more by a new one.
    """
    if n_workers <= 1:
        for index, task in enumerate(tasks):
            yield _called(function, index, task)
        return
    waiting = deque((index, 1) for index in range(len(tasks)))
    workers = [_Worker(memory_gb) for _ in range(min(n_workers, len(tasks)))]
    try:
        while waiting or any(worker.job is not None for worker in workers):
            for worker in workers:
                if worker.job is None and waiting:
                    worker.give(function, tasks, *waiting.popleft())
            ready = wait([worker.connection for worker in workers if worker.job is not None])
            for worker in [one for one in workers if one.connection in ready]:
                yield from _collected(worker, waiting)
    finally:
        for worker in workers:
            worker.stop()


def _called(function: Callable[[Any], Any], index: int, task: Any) -> Outcome:
    try:
        return Outcome(index, function(task))
    except Exception as error:
        return Outcome(index, lost=f"{type(error).__name__}: {error}")


def _collected(worker: "_Worker", waiting: "deque[tuple[int, int]]") -> Iterator[Outcome]:
    """The outcome of a worker that has one; a job whose worker was killed waits again, or is lost."""
    assert worker.job is not None
    (index, attempt), worker.job = worker.job, None
    try:
        yield worker.connection.recv()
        return
    except (EOFError, OSError):
        pass
    cause = worker.renew()
    if attempt < ATTEMPTS:
        waiting.appendleft((index, attempt + 1))
    else:
        yield Outcome(index, lost=f"its worker {cause}, {ATTEMPTS} times; is the memory too small?")


class _Worker:
    """A process and the job in its hand: the index of a task and how often it has been tried."""

    def __init__(self, memory_gb: float | None) -> None:
        self.memory_gb = memory_gb
        self.job: tuple[int, int] | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.memory_gb), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection

    def give(self, function: Callable[[Any], Any], tasks: Sequence[Any], index: int, attempt: int) -> None:
        """Hand over a task; a process that is gone is found out where its outcome is awaited."""
        self.job = (index, attempt)
        with suppress(OSError):
            self.connection.send((function, index, tasks[index]))

    def renew(self) -> str:
        """Start another process in place of one that is gone; how that one ended, in words."""
        self.process.join()
        code = self.process.exitcode or 0
        self.connection.close()
        self._start()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def stop(self) -> None:
        """End the process; what it has not finished is done by the next run."""
        if self.job is not None:
            self.process.terminate()
        with suppress(OSError):
            self.connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, memory_gb: float | None) -> None:
    """Work on what comes until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one ends the others
    _end_with_parent()
    bound_memory(memory_gb)
    while True:
        try:
            function, index, task = connection.recv()
        except (EOFError, OSError):
            return
        outcome = _called(function, index, task)
        with suppress(OSError):
            connection.send(outcome)


def bound_memory(gigabytes: float | None) -> None:
    """Bound the data of this process, where the system can; what needs more raises MemoryError."""
    if gigabytes is None or not sys.platform.startswith("linux"):
        return
    import resource

    size = int(gigabytes * 1e9)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _end_with_parent() -> None:
    """Have this process terminated when the one that started it is killed (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def default_workers(memory_gb: float) -> int:
    """As many workers as there are cores for this process and memory for each, one at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return cores
    return max(1, min(cores, int(memory // memory_gb)))
