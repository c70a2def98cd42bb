"""How two images of one setting agree: in level, from voxel to voxel, and in place."""

from dataclasses import dataclass

import numpy as np

LEVEL = 1.15  # times: levels further apart are two levels
# differences over the noise, and over the level: in most voxels; in a tenth
UNLIKE, FAR_UNLIKE = (3.0, 0.12), (4.0, 0.2)
LOST = 1.5, 0.3  # differences over the noise where this much is missing from the correlation that the noise leaves
MOST_SHIFT = 3  # voxels
SLICES = 12  # in the middle, that are looked at for displacements
BETTER, BETTER_IN_PART = 0.5, 0.35  # of what differs must be gone once one image is moved, or warped along an axis


@dataclass(frozen=True)
class Likeness:
    """An image against another.

    Attributes
    ----------
    scale
        Its level over the other's: the median over voxels.
    low, high
        10 % and 90 % quantiles of that ratio.
    scatter, tail, rms
        Difference from voxel to voxel once levels are the same, over the level: of most voxels, of the
        worst tenth and of all; as standard deviations of one image.
    correlation, spread
        Over voxels: of both, and the standard deviation of the other over its level.
    """

    scale: float
    low: float
    high: float
    scatter: float
    tail: float
    rms: float
    correlation: float
    spread: float

    @property
    def same_level(self) -> bool:
        """Whether the levels agree."""
        return 1 / LEVEL < self.scale < LEVEL

    def unlike(self, noise: float) -> bool:
        """Whether the images differ by more than noise of this level, over the other image's, and by much."""
        due = 1 - (noise / self.spread) ** 2 if self.spread > noise else 0.0
        return (
            (self.scatter > UNLIKE[0] * noise and self.scatter > UNLIKE[1])
            or (self.tail > FAR_UNLIKE[0] * noise and self.tail > FAR_UNLIKE[1])
            or (self.rms > LOST[0] * noise and self.correlation < due - LOST[1])
        )


def likeness(other: np.ndarray, image: np.ndarray) -> Likeness:
    """What ``image`` ``(N,)`` is against ``other`` ``(N,)``, in voxels that are bright in the other."""
    good = np.isfinite(other) & np.isfinite(image) & (other > 0)
    a, b = other[good].astype(float), image[good].astype(float)
    if len(a) < 20 or not np.median(np.abs(b)) > 0:
        return Likeness(0.0, 0.0, 0.0, np.inf, np.inf, np.inf, 0.0, 0.0)
    low, scale, high = np.quantile(b / a, (0.1, 0.5, 0.9))
    a, b = a / np.median(a), b / np.median(np.abs(b))
    away = np.abs(b / max(np.median(b / a), 1e-9) - a) / np.sqrt(2)
    scatter, tail = 1.4826 * np.median(away), np.quantile(away, 0.9) / 1.645
    rms = float(np.sqrt(np.square(_clipped(away)).mean()))
    return Likeness(scale, low, high, scatter, tail, rms, correlation(a, b), float(_clipped(a).std()))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two images ``(N,)`` without their extreme percentiles."""
    a, b = _clipped(a), _clipped(b)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _clipped(x: np.ndarray) -> np.ndarray:
    return np.clip(x, *np.quantile(x, (0.01, 0.99)))


def displacement(other: np.ndarray, image: np.ndarray, inside: np.ndarray) -> tuple[int, float] | None:
    """The axis along which two volumes ``(X, Y, Z)`` are displaced, and by about how many voxels, or None.

    One image as a whole is moved by whole voxels, and warped along one axis as opposite phase encodings do it: where
    that takes away a good share of what differs, the images are displaced.
    """
    middle = slice(max(0, inside.shape[2] // 2 - SLICES // 2), inside.shape[2] // 2 + SLICES // 2 + 1)
    other, image, inside = (x[:, :, middle] for x in (other, image, inside))
    if inside.sum() < 20:
        return None
    a, b = (np.where(inside, x, 0.0) / np.median(x[inside]) for x in (other, image))
    start = correlation(a[inside], b[inside])
    best = (0, 0.0, start)
    for axis in range(3):
        for step in (s for n in range(1, MOST_SHIFT + 1) for s in (-n, n) if inside.shape[axis] > 2 * n):
            both = inside & np.roll(inside, step, axis)
            edge = [slice(None)] * 3
            edge[axis] = slice(0, step) if step > 0 else slice(step, None)
            both[tuple(edge)] = False
            if both.sum() > 0.3 * inside.sum():
                found = correlation(np.roll(a, step, axis)[both], b[both])
                best = max(best, (axis, float(step), found), key=lambda x: x[2])
    if 1 - best[2] < BETTER * (1 - start) and best[2] > 0.5:
        return best[0], abs(best[1])
    return _warp(a, b, inside)


def _warp(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> tuple[int, float] | None:
    """The one axis along which a smooth field of displacements explains the difference of two images, if any does."""
    from scipy import ndimage

    difference = np.where(inside, b - a, 0.0)
    shares, sizes = [], []
    for axis in range(3):
        if inside.shape[axis] < 5:
            shares.append(0.0)
            sizes.append(0.0)
            continue
        slope = np.where(inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis),
                         np.gradient((a + b) / 2, axis=axis), 0.0)  # fmt: skip
        mean = [ndimage.uniform_filter(x, 5) for x in (slope * difference, slope * slope)]
        move = mean[0] / np.maximum(mean[1], 1e-6 * mean[1].max() + 1e-12)
        shares.append(1 - np.square(difference - move * slope).sum() / max(np.square(difference).sum(), 1e-12))
        firm = inside & (mean[1] > np.median(mean[1][inside]))  # where there is an edge to see it by
        sizes.append(float(np.quantile(np.abs(move[firm]), 0.9)) if firm.any() else 0.0)
    order = np.argsort(shares)
    if shares[order[-1]] > BETTER_IN_PART and shares[order[-1]] > 1.5 * shares[order[-2]]:
        return int(order[-1]), sizes[order[-1]]
    return None
