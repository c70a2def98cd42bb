"""A cohort on a Dask cluster of two worker processes, in which a worker, the scheduler and the client are killed.

The data set of :mod:`benchmarks.cohort_data`: 20 simulated subjects, five of them broken, and the real scans of
`../shared/data` where they are. MS-DKI by `hierarchical`, trained by the undisturbed run, whose fit the
disturbed ones map by; then T2 and T1 of the real relaxometry by least squares.
Each disturbed run is given again where it ended early; its maps are compared, byte for byte, with those of a run in
one process without a cluster. Needs the extra `dask`. Runs that are in the results already are left out.
Run: python -m benchmarks.cohort_cluster [folder of real scans] [folder to work in]
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cohort_data import real, simulated

RESULTS = Path(__file__).parent / "results" / "cohort_cluster.json"
MSDKI = ["--signal", "msdki", "--recipe", "hierarchical", "--set", "training.steps=100", "--site-column", "site"]
GIVEN = ["--site-column", "site", "--fit"]
REST = ["--no-pages", "--quiet"]


def start(data: Path, out: Path, options: list[str], *more: str) -> subprocess.Popen:
    """A run of the command."""
    words = [sys.executable, "-m", "pyroqmri", "cohort", str(data), str(out), "participant", *options, *REST, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Cluster:
    """A scheduler and two workers, each a process with a nanny that starts it again."""

    def __init__(self, folder: Path) -> None:
        dask, quiet = [sys.executable, "-m", "dask"], {"stdout": subprocess.DEVNULL}
        self.log = (folder / "scheduler.txt").open("a+")
        options = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
        self.scheduler = subprocess.Popen([*dask, "scheduler", *options], stderr=self.log, **quiet)
        self.address = self._address(folder / "scheduler.txt", self.log.tell())
        worker = [*dask, "worker", self.address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.nannies = [
            subprocess.Popen([*worker, "--nworkers", "1"], env=environment, stderr=subprocess.DEVNULL, **quiet)
            for _ in range(2)
        ]

    def _address(self, log: Path, begin: int) -> str:
        for _ in range(1200):
            found = re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text()[begin:])
            if found:
                return found[1]
            time.sleep(0.1)
        raise TimeoutError("the Dask scheduler does not start")

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def workers(self) -> list[int]:
        """Process numbers of the workers, without their nannies."""
        from distributed import Client

        with Client(self.address, timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
            return list(client.run(os.getpid).values())

    def end(self) -> None:
        """Take it down; what is dead already is."""
        for process in (*self.nannies, self.scheduler):
            process.terminate()
        for process in (*self.nannies, self.scheduler):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # a nanny whose scheduler is gone
                process.kill()
                process.wait()
        self.log.close()


def cluster(folder: Path) -> Cluster:
    """A cluster whose workers are there, which ends with a ``with`` block."""
    folder.mkdir(exist_ok=True)
    found = Cluster(folder)
    found.workers()
    return found


def n_done(out: Path) -> int:
    """How many images have a record that is done."""
    return sum('"status": "done"' in path.read_text() for path in out.glob(".cohort/records/*.json"))


def maps(out: Path) -> dict[str, bytes]:
    """Every map by its name."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*_dwimap.nii.gz"))}


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and the last line on standard error."""
    _, said = process.communicate()
    return process.returncode, (said.strip().splitlines() or [""])[-1]


def disturbed(
    data: Path, out: Path, where: Path, disturb: Callable[[Cluster, subprocess.Popen], bool]
) -> dict[str, object]:
    """A run that is disturbed once three images are done; given again, on a new cluster where the old one is dead."""
    begin, options = time.monotonic(), [*GIVEN, str(out.parent / "alone" / "fit")]
    with cluster(where) as first:
        process = start(data, out, options, "--scheduler", first.address)
        while process.poll() is None and n_done(out) < 3:
            time.sleep(0.05)
        alive = disturb(first, process)
        codes = [ended(process)]
        before = n_done(out)
        if alive and codes[0][0] not in (0, 1):
            codes.append(ended(start(data, out, options, "--scheduler", first.address)))
    if not alive:
        with cluster(where) as second:
            codes.append(ended(start(data, out, options, "--scheduler", second.address)))
    seconds = round(time.monotonic() - begin, 1)
    return {"ends": codes, "done when it ended": before, "seconds": seconds}


def kill_worker(found: Cluster, client: subprocess.Popen) -> bool:
    """SIGKILL to one worker."""
    os.kill(found.workers()[0], signal.SIGKILL)
    return True


def kill_scheduler(found: Cluster, client: subprocess.Popen) -> bool:
    """SIGKILL to the scheduler."""
    found.scheduler.kill()
    return False


def kill_client(found: Cluster, client: subprocess.Popen) -> bool:
    """SIGKILL to the command."""
    client.kill()
    return True


def relaxometry(data: Path, work: Path, address: str) -> dict[str, object]:
    """T2 and T1 of the real series."""
    found: dict[str, object] = {}
    for signal_name, people in (("t2_decay", ["prostate", "t2"]), ("t1_inversion", ["t1"])):
        options = ["--signal", signal_name, "--recipe", "least_squares", "--participant-label", " ".join(people)]
        begin = time.monotonic()
        code = ended(start(data, work / signal_name, options, "--scheduler", address))
        found[signal_name] = {"ends": code, "seconds": round(time.monotonic() - begin, 1)}
    return found


def alone(data: Path, work: Path) -> dict[str, object]:
    """The run that the others are compared with: one process, no cluster."""
    begin = time.monotonic()
    code = ended(start(data, work / "alone", MSDKI, "--n-workers", "1"))
    table = (work / "alone" / "participants_status.tsv").read_text().splitlines()
    seconds = round(time.monotonic() - begin, 1)
    return {"ends": code, "seconds": seconds, "maps": len(maps(work / "alone")), "statuses": table}


def again(data: Path, work: Path) -> dict[str, object]:
    """The second run of one that was disturbed, and the relaxometry."""
    out = work / "kill_client"
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_dwimap.nii.gz")}
    with cluster(work / "dask") as last:
        begin = time.monotonic()
        code = ended(start(data, out, [*GIVEN, str(work / "alone" / "fit")], "--scheduler", last.address))
        idle = all(path.stat().st_mtime_ns == then for path, then in times.items())
        seconds = round(time.monotonic() - begin, 1)
        more = relaxometry(data, work, last.address) if (data / "sub-t1").exists() else {}
    return {"ends": code, "no map written": idle, "seconds": seconds, "relaxometry": more}


def main(scans: str = "../shared/data", folder: str = "out/cohort_cluster") -> None:
    """Run what is not in the results yet; print and keep what came of each."""
    work, data = Path(folder).resolve(), Path(folder).resolve() / "bids"
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() and data.exists() else {}
    if not data.exists():
        simulated(data)
        if Path(scans).is_dir():
            real(data, Path(scans))
    jobs: dict[str, Callable[[], dict[str, object]]] = {"undisturbed": lambda: alone(data, work)}
    for disturb in (kill_scheduler, kill_client, kill_worker):
        jobs[disturb.__name__] = lambda disturb=disturb: compared(data, work, disturb)
    jobs["second run"] = lambda: again(data, work)
    for name, job in jobs.items():
        if name not in found:
            found[name] = job()
            print(name, json.dumps(found[name]), flush=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def compared(data: Path, work: Path, disturb: Callable[[Cluster, subprocess.Popen], bool]) -> dict[str, object]:
    """A disturbed run, and whether its maps are those of the undisturbed one, byte for byte."""
    out = work / disturb.__name__
    shutil.rmtree(out, ignore_errors=True)
    result = disturbed(data, out, work / "dask", disturb)
    return {**result, "maps identical": maps(out) == maps(work / "alone")}


if __name__ == "__main__":
    main(*sys.argv[1:])
