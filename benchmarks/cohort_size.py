"""What a subject of a cohort costs as the cohort grows.

Simulated subjects of 576 voxels and 24 volumes (:mod:`benchmarks.cohort_data`), MS-DKI by `hierarchical`, 100 steps,
one process: CPU seconds of the whole run, of a run with its fit in which everything is done already, and the largest
memory of an image. Run: python -m benchmarks.cohort_size [sizes]
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cohort_data import simulated

RESULTS = Path(__file__).parent / "results" / "cohort_size.json"
OPTIONS = ["--signal", "msdki", "--recipe", "hierarchical", "--set", "training.steps=100", "--no-pages", "--quiet"]


def cpu(data: Path, out: Path) -> float:
    """CPU seconds of a run in a process of its own."""
    words = [sys.executable, "-m", "pyroqmri", "cohort", str(data), str(out), "participant", *OPTIONS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*words, "--n-workers", "1"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(run.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_utime + used.ru_stime


def size(n: int) -> dict[str, float]:
    """Cost of a cohort of ``n`` subjects, the second of which came twice."""
    with tempfile.TemporaryDirectory() as place:
        data, out = Path(place) / "bids", Path(place) / "out"
        simulated(data, n, broken=False)
        first, again = cpu(data, out), cpu(data, out)
        with (out / "participants_status.tsv").open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        files = [path for path in out.glob("sub-*/**/*") if path.is_file()]
        return {
            "subjects": n, "images": len(rows), "cpu_s": round(first, 1), "cpu_s_again": round(again, 1),
            "seconds_of_images": round(sum(float(row["seconds"]) for row in rows), 1),
            "peak_gb": max(float(row["peak_gb"]) for row in rows), "files_per_image": len(files) / len(rows),
            "kb_per_image": round(sum(path.stat().st_size for path in files) / len(rows) / 1000, 1),
        }  # fmt: skip


def main(*sizes: str) -> None:
    """Measure the sizes that are not in the results yet."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for n in map(int, sizes or ("5", "50")):
        if str(n) not in found:
            found[str(n)] = size(n)
            print(found[str(n)], flush=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
