"""The size of residuals: by noise level, by setting, and over the image."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.distributions import rice_moments
from pyroqmri.measurements.noise_groups import groups_of
from pyroqmri.measurements.shells import alike
from pyroqmri.misfit.residuals import Residuals

LEVEL = (0.85, 1.18)  # noise in the residuals over the noise level: what lies outside is worth a warning
BY_SETTING = 1.35  # times: between the settings with the smallest and the largest residuals
FIELD = 0.15  # relative sd of the noise level over the image
NEIGHBOURS = 0.1  # correlation
_SURE = 4.0
_LEFT = 0.6  # of a setting's measurements: the share that the parameters must leave
_FEWEST = 3.0  # degrees of freedom
_FEWEST_PAIRS = 30


def noise_ratio(found: Residuals, value: Tensor) -> tuple[float, float]:
    """Noise level that residuals ``value`` show, over the one that was used: in the quieter voxels, and in most.

    From the lower quartile over voxels and the median; a signal that fails in some voxels moves neither much.
    """
    freedom = found.freedom.numpy()
    ratio = value.square().sum(-1).numpy()
    each = [np.quantile(ratio / chi2.ppf(q, freedom), q) for q in (0.25, 0.5)]
    return float(np.sqrt(each[0])), float(np.sqrt(each[1]))


class SettingNoise(NamedTuple):
    """Measurements of a setting, their noise level over the one that was used, and the relative standard error."""

    group: np.ndarray
    level: float
    error: float


def by_setting(found: Residuals, value: Tensor, acq: Acquisition) -> tuple[SettingNoise, SettingNoise] | None:
    """The settings with the smallest and the largest residuals, by the median over voxels; None where all are alike.

    Magnitudes near their noise floor scatter less than others, which a Gaussian likelihood does not expect: settings
    are apart only where they are so with and without that.
    """
    plain = _by_setting(found, value, acq)
    if plain is None or (found.signal < 0).any() or (found.sd < 0.999 * found.noise).any():
        return plain  # the likelihood's own sd has it already
    scatter = rice_moments(found.signal, found.noise.expand_as(found.signal))[1].sqrt() / found.sd
    return plain if _by_setting(found, value / scatter, acq) is not None else None


def _by_setting(found: Residuals, value: Tensor, acq: Acquisition) -> tuple[SettingNoise, SettingNoise] | None:
    out = []
    for group in alike(acq):
        index, k = torch.from_numpy(group), len(group)
        left = (1 - found.leverage[:, index]).mean(-1)
        if float(left.median()) < _LEFT:
            continue
        middle = float(chi2.ppf(0.5, k))
        level = float(((value[:, index].square().sum(-1) / left).median() / middle).sqrt())
        out.append(SettingNoise(group, level, 0.25 / (float(chi2.pdf(middle, k)) * middle * len(found) ** 0.5)))
    if len(out) < 2:
        return None
    least, most = (choose(out, key=lambda one: one.level) for choose in (min, max))
    apart = np.log(max(most.level, 1e-12) / max(least.level, 1e-12))
    sure = apart > (_SURE + 1) * np.hypot(least.error, most.error)  # the farthest two of many
    return (least, most) if sure and apart > np.log(BY_SETTING) else None


class OverSpace(NamedTuple):
    """What neighbours share: the correlation of residuals, the relative sd of the noise level; zero where unsure."""

    correlation: float
    field: float


def over_space(found: Residuals, value: Tensor, pairs: Tensor, acq: Acquisition) -> OverSpace:
    """Compare pairs ``(K, 2)`` of neighbouring voxels, each an index into the n voxels."""
    if len(pairs) < _FEWEST_PAIRS:
        return OverSpace(0.0, 0.0)
    correlation, error = _shared(_without_signal(value - value.mean(0), acq), pairs)
    log = (value.square().sum(-1) / found.freedom).clamp_min(1e-12).log()
    log = (log - log.median()).clamp(-3, 3)
    shared = log[pairs[:, 0]] * log[pairs[:, 1]]
    mean, uncertain = float(shared.mean()), float(shared.std()) / len(pairs) ** 0.5
    return OverSpace(
        correlation if correlation > _SURE * error else 0.0,
        0.5 * max(mean, 0.0) ** 0.5 if mean > _SURE * uncertain and bool((found.freedom > _FEWEST).all()) else 0.0,
    )


def _shared(noise: Tensor, pairs: Tensor) -> tuple[float, float]:
    """Median correlation of pairs of voxels, and its standard error; zero without measurements."""
    if noise.shape[1] == 0:
        return 0.0, 1.0
    one, two = noise[pairs[:, 0]], noise[pairs[:, 1]]
    scale = (one.square().sum(-1) * two.square().sum(-1)).sqrt().clamp_min(1e-12)
    each = (one * two).sum(-1) / scale
    return float(each.median()), 1.25 * float(each.std()) / len(pairs) ** 0.5


def _without_signal(value: Tensor, acq: Acquisition) -> Tensor:
    """Residuals ``(n, M')`` of shells and repeats without what is smooth in them: neighbours share a misfit."""
    parts = [value[:, :0]]
    for group in groups_of(acq):
        part, basis = value[:, torch.from_numpy(group.volumes)], torch.from_numpy(group.basis).to(value)
        parts.append(part - part @ basis @ basis.mT)
    return torch.cat(parts, 1)
