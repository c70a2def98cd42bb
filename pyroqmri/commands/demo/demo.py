"""The command demo: real data, several recipes, and what a quarter of the volumes says."""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pyroqmri import __version__
from pyroqmri.commands.demo.headline import draw_headline
from pyroqmri.commands.demo.index import BEST, HEADLINE, INDEX, write_demo_index
from pyroqmri.commands.demo.quarter import Quarter, compare_quarter
from pyroqmri.commands.demo.signals import (
    FOLDER,
    BestSignal,
    can_compare,
    compare_signals,
    draw_best_signal,
    fullest_slice,
)
from pyroqmri.commands.fit import plan_of
from pyroqmri.commands.fit_outputs import write_results
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.noise import given_noise
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.commands.summary import Summary
from pyroqmri.datasets import Dataset, fetch
from pyroqmri.errors import TrainingError
from pyroqmri.fitting.train import fit
from pyroqmri.io import Scan
from pyroqmri.whole_files import write_bytes


@dataclass(frozen=True)
class Run:
    """One fit of the demo; ``name`` is its folder, and ``one_slice`` says that it takes too long for all."""

    name: str
    signal: str
    recipe: str
    sigma: str = "estimate"
    fixed: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    one_slice: bool = False


_SHORT = {"training.steps": 300}
# ball-stick does not fit everywhere, and its intervals are honest only when the noise may grow to cover it
_QUARTER = {"ball_stick": {**_SHORT, "likelihood.learn": True}}
RUNS = (
    Run("msdki_least_squares", "msdki", "least_squares"),
    Run("msdki_vae_unig", "msdki", "vae_unig", settings=_SHORT),
    Run("msdki_hierarchical", "msdki", "hierarchical"),
    Run("ball_stick_least_squares", "ball_stick", "least_squares"),
    Run("ball_stick_hierarchical", "ball_stick", "hierarchical", "learn", settings=_SHORT),
    Run("dki_least_squares", "dki", "least_squares", one_slice=True),
)
REFERENCES = {
    signal: {"least squares": f"{signal}_least_squares", "posterior mean": f"{signal}_hierarchical"}
    for signal in ("msdki", "ball_stick")
}


def run_demo(
    out: PathLike = "out/demo", dataset: str = "b1k_b2k", *, overwrite: bool = False, progress: bool = False
) -> Path:
    """Fit a real scan in several ways, compare them on a quarter of its volumes, and write an index over all.

    Parameters
    ----------
    dataset
        A name that :func:`pyroqmri.datasets.fetch` knows.
    overwrite
        Replace ``out``, if pyroqmri wrote it.
    progress
        Show bars.

    Raises
    ------
    InputError
        When the data cannot be had, or ``out`` holds something else.
    """
    with output_folder(out, overwrite=overwrite) as folder:
        begin = time.monotonic()
        data = fetch(dataset, progress)
        say(f"{data.description}\nfrom {data.source}; licence {data.licence}", progress)
        files = ScanFiles(data.image, bval=data.bval, bvec=data.bvec, mask=data.mask)
        scan = files.read("ball_stick")
        references, failed = {signal: {} for signal in REFERENCES}, {}
        runs = [run for run in RUNS if not run.one_slice or can_compare(scan)]
        for number, run in enumerate(runs, 1):
            say(f"[{number}/{len(runs) + 2}] {run.name}", progress)
            try:
                summary = write_run(run, scan, folder / run.name, progress)
            except TrainingError as error:  # the others are worth seeing all the same
                failed[run.name] = str(error)
                continue
            for estimator, name in REFERENCES.get(run.signal, {}).items():
                if name == run.name:
                    references[run.signal][estimator] = summary
        say(f"[{len(runs) + 1}/{len(runs) + 2}] a quarter of the volumes", progress)
        quarter = compare_quarter(scan, references, _QUARTER, progress)
        write_bytes(folder / HEADLINE, draw_headline(scan, references, quarter))
        say(f"[{len(runs) + 2}/{len(runs) + 2}] which signal describes this brain", progress)
        best = _best_signal(scan, folder, progress)
        done = [run.name for run in runs if run.name not in failed]
        record = demo_record(data, scan, quarter, done, failed, best) | {"seconds": time.monotonic() - begin}
        write_bytes(folder / INDEX, json.dumps(record, indent=1).encode())
        write_demo_index(folder)
    return Path(out)


def _best_signal(scan: Scan, folder: Path, progress: bool) -> BestSignal | None:
    """Where each signal is ahead, with its figure; None where the scan has no two shells to tell signals by."""
    if not can_compare(scan):
        return None
    best = compare_signals(scan, folder / FOLDER, progress)
    write_bytes(folder / BEST, draw_best_signal(folder / FOLDER))
    return best


def write_run(run: Run, scan: Scan, folder: Path, progress: bool) -> Summary:
    """Train one recipe and write its folder."""
    scan = fullest_slice(scan) if run.one_slice else scan
    level = given_noise(scan, run.sigma)
    plan = plan_of(run.signal, run.recipe, None, run.sigma, run.settings)
    found = fit(
        scan.y,
        scan.acquisition,
        signal=run.signal,
        recipe=plan,
        sigma=level,
        fixed=run.fixed,
        progress=progress,
        causes=False,
    )
    return write_results(found, scan, folder, level=level, predictive=True, progress=progress)


def demo_record(
    data: Dataset, scan: Scan, quarter: Quarter, done: list[str], failed: dict[str, str], best: BestSignal | None
) -> dict[str, Any]:
    """What the index is written from."""
    return {
        "GeneratedBy": "pyroqmri",
        "version": __version__,
        "dataset": {"source": data.source, "licence": data.licence, "description": data.description},
        "threads": torch.get_num_threads(),
        "n_voxels": len(scan.y),
        "runs": done,
        "failed": failed,
        "volumes": {"all": scan.y.shape[1], "kept": quarter.volumes.tolist()},
        "sigma": quarter.sigma,
        "differences": [asdict(d) for d in quarter.differences],
        "signals": None if best is None else asdict(best),
    }


def say(line: str, show: bool) -> None:
    """A line on standard error."""
    if show:
        print(line, file=sys.stderr, flush=True)
