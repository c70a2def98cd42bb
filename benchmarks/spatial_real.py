"""Recipe spatial on a slice of a real brain: volumes left out, coherence of neighbours, steps at borders.

    python -m benchmarks.spatial_real IMAGE.nii.gz --signal msdki --voxels 840 --parts 1 4

A sixth of each shell is left out; recipes learn from the rest, or from so small a part of it. Printed by recipe:

- ``density``: log density of the volumes left out, a voxel, less that of ``hierarchical``, with its standard error;
- ``error``: squared error of held-out shells over the variance of their noise (1 is noise), the mean over voxels below
  20;
- ``coherence``: correlation of the values of voxels that share a face;
- ``sharpness``: median step between neighbours where the mean of the volumes left out steps most (a tenth of the
  edges), over that of the other half of edges, where it steps least. No recipe has seen what tells them apart.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.comparison.held_out import predict, volume_folds
from pyroqmri.io import read_scan
from pyroqmri.markov.graph import graph_of

LARGE = 20.0
RECIPES = ("hierarchical", "hierarchical_mixture", "spatial")


def block(image: str, n: int, bmax: float) -> tuple[torch.Tensor, pq.Acquisition, np.ndarray]:
    """Measurements ``(N, M)``, settings, places ``(N, 3)`` of n voxels around the middle of the middle slice."""
    scan = read_scan(image, mask=str(Path(image).with_name("mask.nii.gz")), need=("bval",), optional=("bvec",))
    keep = scan.acquisition.bval * 1000 <= bmax * 1.02
    place = np.argwhere(np.asarray(scan.mask))
    layer = place[:, 2] == np.median(place[:, 2])
    middle = place[layer].mean(0)
    far = np.abs(place - middle).max(1) + 1e6 * ~layer
    rows = np.sort(np.argsort(far, kind="stable")[:n])
    return torch.as_tensor(scan.y[rows])[:, keep].float(), scan.acquisition[keep], place[rows]


def spatial_figures(value: np.ndarray, place: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Coherence and sharpness of a map ``(N,)``; ``seen`` ``(N,)`` shows the borders."""
    i, j = graph_of(place).pairs.T
    good = np.isfinite(value[i]) & np.isfinite(value[j])
    i, j = i[good], j[good]
    step, shown = np.abs(value[i] - value[j]), np.abs(seen[i] - seen[j])
    border, flat = shown > np.quantile(shown, 0.9), shown < np.quantile(shown, 0.5)
    return float(np.corrcoef(value[i], value[j])[0, 1]), float(np.median(step[border]) / np.median(step[flat]))


def one(recipe: str, data: tuple, rest: torch.Tensor, held: torch.Tensor, signal: str, steps: int) -> tuple:
    """Density of the held-out volumes ``(N,)``, and the row in words, of one recipe."""
    (y, acq, place), begin = data, time.perf_counter()
    where = {"voxels": place} if recipe == "spatial" else {}
    call: dict[str, Any] = {"signal": signal, "recipe": recipe, "settings": {"training.steps": steps}, **where}
    fit = pq.fit(y[:, rest], acq[rest], causes=False, **call)
    both, mine = torch.cat([rest, held]), torch.arange(len(rest), len(rest) + len(held))
    places = torch.from_numpy(place) if where else None
    found = predict(fit, y[:, both], acq[both], mine, None, voxels=places)
    post = fit.posterior(y[:, rest], **where)
    seen = (y[:, held].mean(1) / y[:, acq.bval < 0.01].mean(1)).numpy()
    words = [f"error {float(found.square[found.square < LARGE].mean()):.2f}, coherence and sharpness"]
    for p in fit.signal.tissue:
        coherence, sharpness = spatial_figures(post.mean[p.name].numpy(), place, seen)
        words.append(f"{p.name} {coherence:.3f} {sharpness:.2f}")
    if where:
        used = {name: round(float(share.nanmedian()), 2) for name, share in post.neighbours.items()}
        words += [f"neighbours {used}", f"alone {float(post.alone.nanmean()):.2f}"]
        words += [warning for warning in fit.warnings if "neigh" in warning]
    return found.elpd.numpy(), f"{', '.join(words)}; {time.perf_counter() - begin:.0f} s"


def run(image: str, signal: str, n: int, part: int, steps: int, bmax: float, recipes: Sequence[str]) -> None:
    """Print the rows of one scan from one ``part``-th of what is not left out."""
    y, acq, place = block(image, n, bmax)
    held = volume_folds(acq, 6)[0]
    rest = torch.tensor([i for i in range(len(acq)) if i not in set(held.tolist())])
    if part > 1:
        zero = torch.nonzero(acq.bval < 0.01).squeeze(-1)[:2]
        rest = torch.cat([zero, rest[volume_folds(acq[rest], part)[0]]]).unique()
    first = None
    for recipe in recipes:
        density, words = one(recipe, (y, acq, place), rest, held, signal, steps)
        first = density if first is None else first
        gain = (density - first)[np.isfinite(density - first)]
        mean, error = gain.mean(), gain.std() / len(gain) ** 0.5
        print(f"{len(rest)} volumes, {recipe}: density {mean:+.3f} +- {error:.3f}, {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--signal", default="msdki")
    parser.add_argument("--voxels", type=int, default=840)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--bmax", type=float, default=3000)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    given = parser.parse_args()
    for part in given.parts:
        run(given.image, given.signal, given.voxels, part, given.steps, given.bmax, given.recipes)


if __name__ == "__main__":
    main()
