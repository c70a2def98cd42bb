"""A fit of one multi-shell scan applied to the other, the same slices of one brain.

    python -m benchmarks.transfer_real A.nii.gz B.nii.gz --voxels 1500

Against a fit of B's own: medians, distances in posterior sd, and how often the intervals of a subset contain the
estimate of the whole scan.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.io import read_scan


def voxels_of(image: str, n: int, bmax: float) -> tuple[np.ndarray, pq.Acquisition]:
    """Measurements ``(n, M)`` of every so-manieth voxel with b up to ``bmax`` s/mm2, and their settings."""
    scan = read_scan(image, mask=str(Path(image).with_name("mask.nii.gz")), need=("bval",), optional=("bvec",))
    keep = scan.acquisition.bval * 1000 <= bmax * 1.02
    y = scan.y[:: max(1, len(scan.y) // n)][:, keep.numpy()]
    return y, scan.acquisition[keep]


def distances(one: Any, other: Any) -> str:
    """Medians of both and the difference in sd of the two together."""
    rows = []
    for name in ("D", "K"):
        a, b = (p.mean[name].numpy() for p in (one, other))
        sd = np.hypot(one.sd[name].numpy(), other.sd[name].numpy())
        z = (a - b) / sd
        rows.append(
            f"{name}: median {np.nanmedian(a):.3f} against {np.nanmedian(b):.3f}, "
            f"|difference| {np.nanmedian(np.abs(z)):.2f} sd (90 %: {np.nanquantile(np.abs(z), 0.9):.2f})"
        )
    return "; ".join(rows)


def main() -> None:
    """Print what the two fits make of each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs=2)
    parser.add_argument("--voxels", type=int, default=1500)
    parser.add_argument("--bmax", type=float, default=3000)
    given = parser.parse_args()
    data = [voxels_of(path, given.voxels, given.bmax) for path in given.scans]
    fits = [pq.fit(y, acq, signal="msdki", recipe="hierarchical") for y, acq in data]
    for i, j in ((0, 1), (1, 0)):
        y, acq = data[j]
        own, its = fits[j].posterior(y), fits[i].posterior(y, sigma=fits[j].noise.level, acquisition=acq)
        print(
            f"scan {j} ({len(acq)} volumes) by the fit of scan {i} against its own: {distances(its, own)}", flush=True
        )
        half = torch.arange(len(acq)) % 2 == 0
        for fit, name in ((fits[j], "own fit"), (fits[i], "other fit")):
            part = fit.posterior(y[:, half.numpy()], sigma=fits[j].noise.level, acquisition=acq[half])
            inside = []
            for p in ("D", "K"):
                low, high = part.interval(0.9)[p].numpy().T
                value = own.mean[p].numpy()
                inside.append(f"{p} {np.nanmean((low < value) & (value < high)):.2f}")
            print(
                f"  half of its volumes, {name}: 90 % intervals contain the whole scan's {', '.join(inside)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
