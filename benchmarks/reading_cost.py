"""What reading a scan and judging it cost beside the least-squares fit: 100,000 voxels of 100 volumes.

    python -m benchmarks.reading_cost
    python -m benchmarks.reading_cost --signals t2_decay --voxels 20000

A scan of typical tissue is written as an image with its files and a mask, and every stage of ``pyroqmri fit`` is timed
with the stages' own functions, in processor time on one thread. Reading and judging have to take less than a tenth of
the fit, or 2 s; of reading, what nibabel alone needs for the image is stated, as every program pays that. Rows are
added to ``benchmarks/results/reading_cost.json`` (a row of the same signal and size is replaced).
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import ScanFiles
from pyroqmri.commands.inputs import training_voxels
from pyroqmri.commands.noise import given_noise
from pyroqmri.commands.outlier_volumes import outlier_note
from pyroqmri.commands.protocol_files import write_protocol
from pyroqmri.signals import SIGNALS
from pyroqmri.signals.shells import shells
from pyroqmri.simulate import simulate, tissue

RESULTS = Path(__file__).parent / "results" / "reading_cost.json"
PROTOCOLS = {
    "msdki": shells(10, 45, 1.0, 2.0),
    "dti": shells(10, 90, 1.0),
    "t2_decay": Acquisition(te=5.0 * np.arange(1, 101)),
}
LIMIT, SHARE = 2.0, 0.1  # seconds, or of the fit
SNR, SCALE = 30.0, 1000.0


def write_scan(folder: Path, name: str, n: int) -> Path:
    """An image of about ``n`` voxels of typical tissue with its settings and a mask."""
    acquisition = PROTOCOLS[name]
    kind = "ball_stick" if name == "dti" else name  # cells along axes, for a tensor has no typical elements
    side = round((n / 40) ** 0.5)
    shape = (side, side, 40)
    theta, _ = tissue(SIGNALS[kind], side * side * 40, 0)
    y = SCALE * simulate(SIGNALS[kind], acquisition, theta, snr=SNR, seed=1)
    image = folder / f"sub-01_{'MESE' if name == 't2_decay' else 'dwi'}.nii"
    nib.save(nib.Nifti1Image(y.numpy().reshape(*shape, -1).astype(np.float32), np.diag([-2.0, 2, 2, 1])), image)
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.diag([-2.0, 2, 2, 1])), folder / "mask.nii")
    write_protocol(folder / f"{image.stem}.nii.gz", acquisition, {})  # it strips the ending .nii.gz only
    return image


def measure(name: str, n: int) -> dict[str, Any]:
    """Seconds of each stage of a least-squares fit."""
    seconds: dict[str, float] = {}

    def timed(stage: str, call: Callable[[], Any]) -> Any:
        begin = time.process_time()
        found = call()
        seconds[stage] = round(time.process_time() - begin, 3)
        return found

    with tempfile.TemporaryDirectory() as temporary:
        image = write_scan(Path(temporary), name, n)
        timed("nibabel alone", lambda: np.asarray(nib.load(image).dataobj)[..., 0].sum())  # type: ignore[attr-defined]
        scan = timed("read", lambda: ScanFiles(image, mask=image.with_name("mask.nii")).read(name))
        level = timed("noise", lambda: given_noise(scan, "estimate"))
        timed("outlier volumes", lambda: outlier_note(scan, name))
        data = timed("voxels", lambda: training_voxels(scan, level, 0))
        fit = timed("fit, without the search", lambda: pq.fit(
            data.y, scan.acquisition, signal=name, recipe="least_squares", sigma=data.level, inputs=data.inputs
        ))  # fmt: skip
        known = level if isinstance(level, np.ndarray) and level.ndim else None  # else what the fit settled on
        found = timed("preparation and search", lambda: fit.posterior(scan.y, sigma=known).mean)
    judging = sum(v for k, v in seconds.items() if k not in ("nibabel alone", "preparation and search"))
    limit = max(LIMIT, SHARE * seconds["preparation and search"])
    return {
        "signal": name, "voxels": len(next(iter(found.values()))), "volumes": len(PROTOCOLS[name]), "seconds": seconds,
        "reading and judging": round(judging, 3), "limit": round(limit, 3), "kept": judging <= limit,
    }  # fmt: skip


def keep(row: dict[str, Any]) -> None:
    """Put a row in the place of that of the same signal and size."""
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = {(r["signal"], r["voxels"]): r for r in [*kept, row]}
    made = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    RESULTS.write_text(json.dumps({"made": made, "rows": list(rows.values())}, indent=0) + "\n")


def main() -> None:
    """Measure, print and keep; exit 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", nargs="+", default=list(PROTOCOLS), choices=list(PROTOCOLS))
    parser.add_argument("--voxels", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, args.voxels) for name in args.signals]
    for row in rows:
        keep(row)
        stages = ", ".join(f"{k} {v:.2f}" for k, v in row["seconds"].items())
        print(f"{row['signal']}, {row['voxels']} voxels x {row['volumes']}: {stages}")
        print(f"    reading and judging {row['reading and judging']:.2f} s of at most {row['limit']:.2f} s")
    raise SystemExit(int(not all(row["kept"] for row in rows)))


if __name__ == "__main__":
    main()
