"""Why a signal does not fit a scan, in words: the causes that its residuals show."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.misfit.means import means_in_words, name_of
from pyroqmri.misfit.patterns import DRIFT, FLOOR, SETTING, WIDTH, Seen, patterns_in, patterns_of
from pyroqmri.misfit.residuals import Residuals
from pyroqmri.misfit.spread import FIELD, LEVEL, NEIGHBOURS, by_setting, noise_ratio, over_space

DIRECTION = "direction"
NOISE_LEVEL, NOISE_BY_SETTING, NOISE_FIELD, INTERPOLATION = "noise level", "noise by setting", "noise field", "blur"
NOISE_KINDS = (NOISE_LEVEL, NOISE_BY_SETTING, NOISE_FIELD)
_SHARE = 0.05  # of voxels
_FEWEST_VOXELS = 50
_FREEDOM = 2.0  # of a voxel; with fewer nothing is left to look at
_FIELD_FREEDOM = 8.0


@dataclass(frozen=True)
class Cause:
    """One thing that residuals show.

    Attributes
    ----------
    kind
        ``direction``, ``noise floor``, ``width``, ``setting``, ``drift``, ``noise level``, ``noise by setting``,
        ``noise field`` or ``blur``.
    size
        How much: a share of voxels, standard deviations of the noise, a ratio or a correlation, as the sentence states.
    sentence
        The cause in words, and what to do.
    """

    kind: str
    size: float
    sentence: str

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ResidualNoise:
    """The noise that a scan's residuals show.

    Parameters
    ----------
    ratio
        Over the noise level that the fit used, in the quieter voxels.
    magnitude
        Whether the data have no sign.
    """

    ratio: float
    magnitude: bool


@dataclass(frozen=True)
class Looked:
    """A sample of voxels and what is known of it.

    Parameters
    ----------
    residuals
        Of n voxels and the M measurements that the model sees.
    acquisition
        Their settings.
    likelihood
        Of the measurements.
    signal
        The signal's name.
    sigma
        The noise level that was used, in the scan's units.
    directional
        Voxels whose residuals vary with direction ``(n,)`` bool.
    pairs
        Neighbouring voxels ``(K, 2)``, each an index into the n.
    averaged
        Whether measurements are means over directions, whose scatter is more than noise.
    learned
        Whether the fit learned its noise level, which counts what the signal misses in other voxels.
    widening
        What a variance of the diffusivity within a voxel would add to its signal ``(n, M)``, where that is left out.
    """

    residuals: Residuals
    acquisition: Acquisition
    likelihood: Any
    signal: str
    sigma: float
    directional: Tensor
    pairs: Tensor
    averaged: bool = False
    learned: bool = False
    widening: Tensor | None = None


def causes_in(seen: Looked) -> list[Cause]:
    """The causes that residuals show, those of most consequence first; at most 1 clean scan in 50 shows any."""
    found, pairs = seen.residuals, seen.pairs
    if len(found) < _FEWEST_VOXELS or float(found.freedom.median()) < _FREEDOM:
        return []
    causes, plain, widening = [], ~seen.directional, seen.widening
    share = float(seen.directional.double().mean())
    if share > _SHARE:
        causes.append(_direction(share, seen.signal))
        if int(plain.sum()) >= _FEWEST_VOXELS:
            found, pairs = found[plain], _renumbered(pairs, plain)
            widening = None if widening is None else widening[plain]
    patterns = patterns_of(found, seen.acquisition, seen.likelihood, not seen.averaged, widening)
    shown: list[Seen] = []
    value = patterns_in(found, patterns, shown.append)
    means = means_in_words(shown, seen.acquisition, seen.likelihood, seen.signal)
    causes += [Cause(*each) for each in means]
    if seen.averaged:
        return causes
    level = _level(found, value, seen)
    by_set = _by_setting(found, value, seen.acquisition)
    over = over_space(found, value, pairs, seen.acquisition)
    causes += [*by_set, *level, *_over_space(over.correlation, over.field, found)]
    return causes


def residual_noise(seen: Looked, magnitude: bool) -> ResidualNoise | None:
    """The noise level that residuals show over the one that was used; None where they are not noise alone."""
    found = seen.residuals
    if seen.averaged or len(found) < _FEWEST_VOXELS or float(found.freedom.median()) < _FREEDOM:
        return None
    return ResidualNoise(noise_ratio(found, found.value)[0], magnitude)


def _renumbered(pairs: Tensor, kept: Tensor) -> Tensor:
    place = torch.cumsum(kept.long(), 0) - 1
    return place[pairs[kept[pairs].all(1)]]


def _direction(share: float, signal: str) -> Cause:
    return Cause(
        DIRECTION, share,
        f"in {100 * share:.2g} % of voxels what {signal} leaves varies with the direction of the gradient (status 11): "
        "a second fibre crosses there, or diffusion is not what the signal describes; do not interpret the maps in "
        "these voxels, or fit a signal with several fibres",
    )  # fmt: skip


def _level(found: Residuals, value: Tensor, scan: Looked) -> list[Cause]:
    quiet, median = noise_ratio(found, value)
    low, high = LEVEL
    if quiet > high:
        words = (
            f"the residuals are {median:.2f} times the noise level that was used ({scan.sigma:.4g}), in quiet voxels "
            f"{quiet:.2f} times: the noise level is too low, or {scan.signal} misses something in every voxel; give "
            f"--sigma {quiet * scan.sigma:.3g} or --sigma learn"
        )
    elif median < low and not scan.learned:
        words = (
            f"the residuals are only {median:.2f} times the noise level that was used ({scan.sigma:.4g}): it is too "
            f"high, or these images were smoothed or denoised; give --sigma {median * scan.sigma:.3g}, or fit the "
            "images as they were acquired"
        )
    else:
        return []
    return [Cause(NOISE_LEVEL, quiet if quiet > high else median, words)]


def _by_setting(found: Residuals, value: Tensor, acq: Acquisition) -> list[Cause]:
    apart = by_setting(found, value, acq)
    if apart is None:
        return []
    least, most = apart
    words = (
        f"the residuals are {most.level:.2f} times the noise level at {name_of(acq, most.group)} and "
        f"{least.level:.2f} times at {name_of(acq, least.group)}: averages or noise that differ between settings, or a "
        "signal that fails at the first; one noise level serves all of them, so fit settings of equal noise"
    )
    return [Cause(NOISE_BY_SETTING, most.level / least.level, words)]


def _over_space(correlation: float, field: float, found: Residuals) -> list[Cause]:
    causes = []
    if field > FIELD and float(found.freedom.median()) > _FIELD_FREEDOM:
        words = (
            f"the size of the residuals varies by {100 * field:.2g} % (sd) over the image, and neighbouring voxels "
            "share it: noise that grows towards the centre (parallel imaging), or tissue that the signal does not "
            "describe; take a noise field with --sigma field, or a map with --sigma FILE"
        )
        causes.append(Cause(NOISE_FIELD, field, words))
    if correlation > NEIGHBOURS:
        words = (
            f"residuals of neighbouring voxels correlate by {correlation:.2f}: the images were interpolated, smoothed "
            "or denoised, so their noise is not independent and errors of regional means are larger than stated; "
            "fit the images on their acquired grid where you can"
        )
        causes.append(Cause(INTERPOLATION, correlation, words))
    return causes


def neighbours(position: np.ndarray, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """About ``n`` of N voxels at integer ``position`` ``(N, 3)``, in pairs of neighbours where they have any.

    Returns
    -------
    ndarray
        Indices of the chosen voxels in rising order.
    ndarray
        Pairs ``(K, 2)`` of neighbours among them, each an index into the chosen.
    """
    position = np.asarray(position) - np.min(position, 0)
    size = position.max(0) + 2  # a gap behind the last voxel of each row
    key = (position[:, 0] * size[1] + position[:, 1]) * size[2] + position[:, 2]
    order = np.argsort(key, kind="stable")
    some = np.random.default_rng(seed).permutation(len(key))[: max(1, n // 2)]
    pairs = [np.zeros((0, 2), dtype=int)]
    for step in (size[1] * size[2], size[2]):  # along x, and along y
        place = np.searchsorted(key, key[some] + step, sorter=order).clip(max=len(key) - 1)
        other = order[place]
        there = key[other] == key[some] + step
        pairs.append(np.stack([some[there], other[there]], 1))
        some = some[~there]
    both = np.concatenate(pairs)
    chosen = np.unique(np.concatenate([some, both.reshape(-1)]))
    return chosen, np.searchsorted(chosen, both)


def in_brief(kinds: Sequence[str], noun: str) -> str:
    """A headline for data with a misfit of these kinds, the one of most consequence first."""
    if kinds and all(kind in NOISE_KINDS for kind in kinds):
        return "The noise level does not look right."
    because = {
        DIRECTION: ": what it leaves varies with direction",
        FLOOR: " where the signal is low",
        SETTING: " at every setting",
        WIDTH: ": they decay by more than one diffusivity",
        DRIFT: ", which drift over the scan",
    }
    return f"The {noun} signal does not describe these data{because.get(kinds[0], '') if kinds else ''}."
