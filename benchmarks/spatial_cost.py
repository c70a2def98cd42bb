"""CPU seconds and memory of recipe spatial over hierarchical: MS-DKI phantoms of 20 volumes, fit and maps.

    python -m benchmarks.spatial_cost spatial 100        # 100 x 100 voxels; hierarchical for the other one

One recipe a process: peak memory is that of the process. Fits have the recipe's own 300 steps unless ``--steps`` is
given.
"""

import argparse
import time

import numpy as np

import pyroqmri as pq
from benchmarks.fits_size import peak
from benchmarks.spatial import msdki

SNR = 12
PART = 20_000  # voxels that are mapped at once, as the commands do


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=("hierarchical", "spatial"))
    parser.add_argument("size", type=int)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    _, clean, acq = msdki(given.size, 0, 0.6)
    noise = np.random.default_rng(0).standard_normal((2, *clean.shape)) / SNR
    y, n = (1000 * np.hypot(clean + noise[0], noise[1])).astype(np.float32), given.size**2
    place = np.argwhere(np.ones((given.size, given.size, 1)))
    is_field = given.recipe == "spatial"
    where = {"voxels": place} if is_field else {}
    before, begin = peak(), time.process_time()
    fit = pq.fit(y, acq, signal="msdki", recipe=given.recipe, sigma=1000 / SNR, causes=False,
                 settings={"training.steps": given.steps}, **where)  # fmt: skip
    fitted = time.process_time()
    nearby = fit.nearby(y, **where) if is_field else None
    placed = time.process_time()
    for i in range(0, n, PART):
        near = {} if nearby is None else {"neighbours": nearby.at(slice(i, i + PART))}
        post = fit.posterior(y[i : i + PART], **near)
        _ = post.mean, post.sd
    done = time.process_time()
    seconds = {"fit": fitted - begin, "placed": placed - fitted, "maps": done - placed, "all": done - begin}
    words = ", ".join(f"{what} {t:.1f} s" for what, t in seconds.items())
    print(f"{given.recipe} {n} voxels, {given.steps} steps: {words}; {before:.0f} MB before, {peak():.0f} at most")


if __name__ == "__main__":
    main()
