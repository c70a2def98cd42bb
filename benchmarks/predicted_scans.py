"""How often 90 % predictive intervals contain volumes of a real scan that were left out, by status of the voxel.

    python -m benchmarks.predicted_scans IMAGE --signal ball_sticks --voxels 1500 [--recipe hierarchical] [--bmax 3000]

The voxels are the middle slice's, so that noise may be a field. Volumes are a tenth of each shell as in every `fit`;
of a scan of fewer than 20 volumes each is left out once, two at a time (``--each``).
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.calibration.predicted import VOXELS, Predicted, predicted
from pyroqmri.io import read_scan


def middle(image: str, n: int, bmax: float | None) -> tuple[np.ndarray, pq.Acquisition, np.ndarray]:
    """Measurements ``(n, M)`` of n voxels around the middle slice, their settings and places ``(n, 3)``."""
    mask = next(Path(image).parent.glob("mask*.nii.gz"), None)
    scan = read_scan(image, mask=None if mask is None else str(mask), need=("bval",), optional=("bvec",))
    place = np.argwhere(scan.mask)
    near = np.argsort(np.abs(place[:, 2] - np.median(place[:, 2])), kind="stable")[:n]
    keep = torch.ones(len(scan.acquisition), dtype=torch.bool)
    if bmax is not None:
        assert scan.acquisition.bval is not None
        keep = scan.acquisition.bval * 1000 <= bmax * 1.02
    pick = np.sort(near)
    return scan.y[pick][:, keep.numpy()], scan.acquisition[keep], place[pick]


def each(fit: pq.Fit, y: np.ndarray) -> list[Predicted]:
    """Every volume left out once, two at a time."""
    order = np.random.default_rng(0).permutation(len(fit.acquisition))
    found = [predicted(fit, y, volumes=sorted(pair.tolist())) for pair in np.array_split(order, len(order) // 2)]
    return [one for one in found if one is not None]


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--signal", required=True)
    parser.add_argument("--recipe", default="hierarchical")
    parser.add_argument("--voxels", type=int, default=1500)
    parser.add_argument("--bmax", type=float, default=None)
    parser.add_argument("--sigma", default=None)
    parser.add_argument("--each", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    y, acq, place = middle(args.image, args.voxels, args.bmax)
    fit = pq.fit(y, acq, signal=args.signal, recipe=args.recipe, sigma=args.sigma, voxels=place)
    found = each(fit, y) if args.each else [predicted(fit, y)]
    level = np.broadcast_to(np.asarray(fit.noise.level), len(y))
    codes = fit.posterior(y[:VOXELS], sigma=level[:VOXELS]).status.numpy()
    shares = {int(code): round(float((codes == code).mean()), 3) for code in np.unique(codes)}
    for one in found:
        assert one is not None, "no volume of this scan can be spared"
        print(one.record(), flush=True)
    print(
        args,
        "inside",
        np.mean([one.inside for one in found]),
        "by status",
        {k: np.mean([one.by_status[k] for one in found if k in one.by_status]) for k in ("fine", "other")},
        "status",
        shares,
        fit.warnings,
        flush=True,
    )


if __name__ == "__main__":
    main()
