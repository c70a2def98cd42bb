"""Images of a scan in its bright voxels, to be compared with one another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pyroqmri.acquisition import FAR_OFFSET, WEIGHTED_ABOVE, Acquisition
from pyroqmri.commands.left_out import number_ranges
from pyroqmri.errors import InputError
from pyroqmri.io import Scan
from pyroqmri.measurements.likeness import likeness
from pyroqmri.measurements.noise import estimate_sigma

VOXELS = 4000  # that images are compared in
SAME_B = 0.008  # ms/um2
UNKNOWN_NOISE = 0.1  # over S0, where nothing tells it


@dataclass(frozen=True)
class Images:
    """Bright voxels of a scan: ``y`` (n, M), where they lie, and the scan itself."""

    scan: Scan
    bright: np.ndarray
    y: np.ndarray

    def mean(self, volumes: Sequence[int]) -> np.ndarray:
        """The mean of some volumes ``(n,)``."""
        return self.y[:, list(volumes)].mean(1)

    def grid(self, volumes: Sequence[int]) -> np.ndarray:
        """The mean of some volumes in all voxels of the mask, on the grid of the scan."""
        found = np.zeros(self.scan.mask.shape)
        found[self.scan.mask] = np.nan_to_num(self.scan.y[:, list(volumes)].mean(1))
        return found

    def names(self, volumes: Sequence[int]) -> str:
        """Numbers of volumes as the file counts them."""
        return number_ranges(self.scan.numbers[list(volumes)])

    def are(self, volumes: Sequence[int]) -> str:
        """The same and the verb."""
        return f"{self.names(volumes)} {'is' if len(volumes) == 1 else 'are'}"


def bright_images(scan: Scan) -> Images | None:
    """Some of a scan's bright voxels; None where there are too few to compare images in."""
    some = np.sort(np.random.default_rng(0).permutation(len(scan.y))[:VOXELS])
    y = np.nan_to_num(np.asarray(scan.y[some], float), posinf=0.0, neginf=0.0)
    level = np.median(np.abs(y), 1)
    bright = level > 0.3 * np.quantile(level, 0.9) if len(level) else np.zeros(0, bool)
    if bright.sum() < 20 or y.shape[1] < 2:
        return None
    return Images(scan, some[bright], y[bright])


def image_noise(images: Images, volumes: list[int]) -> float:
    """Noise over the level of S0: from volumes that follow one another, unless each part of the scan has far less."""
    settings = replace(images.scan.acquisition, averages=None)  # the noise of what is there, of means as well
    pairs = sorted(likeness(images.y[:, i], images.y[:, j]).scatter for i, j in pairwise(volumes))
    found = []
    edges = [0, *volumes[1:3], images.y.shape[1]]
    for first, last in pairwise(edges):
        try:
            part = settings[slice(first, last)]
            sigma = estimate_sigma(images.y[:, first:last], part, method="shells").sigma
        except InputError:
            continue
        found.append(sigma / _level(images.y[:, volumes[0]]))
    # as many volumes are alike as not, or the parts of the scan say that none are
    usual = pairs[(len(pairs) - 1) // 2] if len(volumes) > 2 else np.inf
    if found or np.isfinite(usual):
        return min(found) if usual > 2 * min(found, default=np.inf) else usual
    try:
        sigma = estimate_sigma(images.y, settings, method="background", background=images.scan.background)
    except InputError:
        return UNKNOWN_NOISE
    return max(0.01, sigma.sigma / _level(images.y[:, volumes[0]]))


def _level(image: np.ndarray) -> float:
    """The usual size of the values ``(N,)``, above zero for whatever numbers overflowed to negative ones."""
    return max(float(np.median(np.abs(image))), float(np.finfo(np.float32).tiny))


def matched(images: Images, first: list[int], second: list[int]) -> list[tuple[list[int], list[int]]]:
    """Volumes of two lists at the same settings but for directions."""
    keys = settings_of(images.scan, ("bvec",))
    shared = {keys[m] for m in first} & {keys[m] for m in second}
    return [([m for m in first if keys[m] == k], [m for m in second if keys[m] == k]) for k in sorted(shared)]


def without_encoding(acquisition: Acquisition) -> np.ndarray:
    """Whether each measurement is at the lowest b-value, if that is 50 s/mm2 or less, or saturated far off ``(M,)``.

    These are compared with one another; which of them a signal takes for S0 is another question.
    """
    if acquisition.bval is not None:
        bval = acquisition.bval.numpy()
        return (bval <= WEIGHTED_ABOVE) & (bval <= bval.min() + SAME_B)
    if acquisition.offset is not None:
        return np.abs(acquisition.offset.numpy()) > FAR_OFFSET
    return np.zeros(len(acquisition), bool)


def base_groups(scan: Scan) -> list[list[int]]:
    """Volumes without encoding, in groups of equal settings."""
    keys = settings_of(scan, ("bval", "bvec", "offset"))
    found: dict[tuple[float, ...], list[int]] = {}
    for m in np.flatnonzero(without_encoding(scan.acquisition)).tolist():
        found.setdefault(keys[m], []).append(m)
    return list(found.values())


def settings_of(scan: Scan, but: Sequence[str] = ()) -> list[tuple[float, ...]]:
    """All settings of each volume but some, rounded; of a direction and its opposite the same."""
    columns: list[np.ndarray] = [np.zeros((len(scan.acquisition), 0))]
    for name, value in scan.acquisition.settings().items():
        if name in but:
            continue
        table = value.double().numpy().reshape(len(value), -1)
        if name == "bvec":
            sign = np.sign(np.where(np.abs(table) > 5e-3, table, 0.0))
            first = sign[np.arange(len(sign)), np.argmax(sign != 0, 1)]
            table = table * np.where(first < 0, -1.0, 1.0)[:, None]
        columns.append(np.round(table, 2) + 0.0)
    return [tuple(row) for row in np.concatenate(columns, 1).tolist()]
