"""Work on many images on a Dask cluster; results are files, so nothing that a worker held is needed again."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyroqmri.commands.processes import ATTEMPTS, Outcome
from pyroqmri.errors import InputError

_INSTALL = "install it with: pip install 'pyroqmri[dask]'"
N_JOBS = 10
ASKED_EVERY = 30  # seconds; Dask takes 15 to miss a worker
_PATIENCE = 20  # seconds until a scheduler is taken for unreachable


@contextmanager
def dask_client(scheduler: str | None, n_jobs: int | None, memory_gb: float) -> Iterator[Any]:
    """A client of the scheduler at an address, or of one whose workers are SLURM jobs that it starts.

    Raises
    ------
    InputError
        When Dask is not installed, or the scheduler cannot be reached.
    """
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"Dask was asked for, and dask.distributed is not installed; {_INSTALL}") from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"the Dask scheduler {scheduler} cannot be reached ({error}); check --scheduler"
            ) from error
        with client:
            yield client
        return
    n = N_JOBS if n_jobs is None else n_jobs
    with slurm_cluster(memory_gb) as cluster, _kept(cluster, n), Client(cluster) as client:
        yield client


@contextmanager
def _kept(cluster: Any, n: int) -> Iterator[None]:
    """Ask for ``n`` jobs, and again for those that end: SLURM ends a job at its walltime, and Dask replaces none."""
    over = threading.Event()

    def ask() -> None:
        cluster.scale(jobs=n)
        while not over.wait(ASKED_EVERY):
            cluster.scale(jobs=n)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def slurm_cluster(memory_gb: float) -> Any:
    """A Dask cluster whose workers are SLURM jobs of one core; none is started yet.

    Queue, account and walltime come from the configuration of dask-jobqueue, ``~/.config/dask/jobqueue.yaml``.

    Raises
    ------
    InputError
        When dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"--slurm was asked for, and dask-jobqueue is not installed; {_INSTALL}") from error
    return SLURMCluster(
        cores=1, processes=1, memory=f"{memory_gb:g}GB", python=sys.executable,
        job_script_prologue=["export OMP_NUM_THREADS=1"],
    )  # fmt: skip


def run_dask(function: Callable[[Any], Any], tasks: Sequence[Any], client: Any) -> Iterator[Outcome]:
    """Call ``function`` on each task on a cluster; outcomes come as they are there.

    A task whose worker is lost is tried on another, twice in all, unless the scheduler itself restarts it; a task
    that some worker has finished finds its files and its record.

    Raises
    ------
    InputError
        When the scheduler is lost; what is done is kept.
    """
    from distributed import as_completed  # pyright: ignore[reportMissingImports]

    futures = {client.submit(function, task, pure=False, retries=ATTEMPTS - 1): i for i, task in enumerate(tasks)}
    try:
        for future in as_completed(list(futures)):
            index = futures[future]
            if future.status == "finished":
                yield Outcome(index, future.result())
            elif future.status == "cancelled":  # not by us: the client does so with all of them when it gives up
                raise OSError("no connection to it")
            else:
                error = future.exception()
                yield Outcome(index, lost=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            future.release()
    except OSError as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"the Dask scheduler was lost ({why}); what is done is kept: give the same command again"
        ) from error
