"""Where the images are worked on: this machine, a Dask cluster, or a SLURM cluster through Dask."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyroqmri.commands.processes import Outcome, default_workers, run_here

Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Outcome]]
MEMORY_GB = 8.0


@dataclass(frozen=True)
class Workers:
    """How many workers, how much memory each may take, and whose they are.

    Attributes
    ----------
    n
        Processes on this machine, or jobs of SLURM; None takes as many as cores and memory allow, or 10 jobs.
    memory_gb
        Of data for each worker process; one worker on this machine runs in the calling process, unbounded.
    scheduler
        Address of a Dask scheduler, such as ``tcp://node:8786``.
    slurm
        Start workers as SLURM jobs, by dask-jobqueue and its configuration.
    """

    n: int | None = 1
    memory_gb: float = MEMORY_GB
    scheduler: str | None = None
    slurm: bool = False

    @contextmanager
    def running(self) -> Iterator[Run]:
        """What runs a function over tasks; clusters that it started end with the block.

        Raises
        ------
        InputError
            When Dask is asked for and not installed, or its scheduler cannot be reached.
        """
        if self.scheduler is None and not self.slurm:
            n = default_workers(self.memory_gb) if self.n is None else self.n
            yield partial(run_here, n_workers=n, memory_gb=self.memory_gb)
            return
        from pyroqmri.cohort.dask_engine import dask_client, run_dask

        with dask_client(self.scheduler, self.n, self.memory_gb) as client:
            yield partial(run_dask, client=client)
