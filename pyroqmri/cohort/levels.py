r"""A population with a level of subjects: voxels scatter within a subject, subjects around the cohort.

.. math::
    z_{jn} = m_{s(j)} + d_j + e_{jn}, \qquad d_j \sim \mathcal N(0, T), \qquad e_{jn} \sim \mathcal N(0, W)

over the latents of the tissue, with a mean :math:`m_s` for each site. What a voxel's measurements state of its latent
is a Gaussian in information form, :math:`\exp(-z' \Lambda z / 2 + \eta' z)`, whose precision may be zero where nothing
is known; with these the model is linear and its EM has closed steps. Source: Laird and Ware 1982, doi:10.2307/2529876.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyroqmri.errors import InputError

FEWEST = 3  # subjects from which a scatter between subjects can be learned
_ROUNDS, _CLOSE = 100, 1e-3


@dataclass(frozen=True)
class Information:
    """What measurements state of the latents of n voxels: ``precision`` ``(n, P, P)`` and ``pull`` ``(n, P)``."""

    precision: NDArray
    pull: NDArray


@dataclass(frozen=True)
class Levels:
    """The two levels.

    Attributes
    ----------
    sites
        Labels of the S sites.
    mean
        Of each site over its subjects ``(S, P)``.
    mean_covariance
        Uncertainty of the means ``(S, P, P)``.
    between, within
        Covariance of subjects around their site's mean and of voxels around their subject's, ``(P, P)``.
    """

    sites: tuple[str, ...]
    mean: NDArray
    mean_covariance: NDArray
    between: NDArray
    within: NDArray

    def of(self, site: str) -> NDArray:
        """The mean of a site ``(P,)``; that over sites for one that is not known."""
        return self.mean[self.sites.index(site)] if site in self.sites else self.mean.mean(0)


@dataclass(frozen=True)
class SubjectMean:
    """What is known of the mean of one subject: ``mean`` ``(P,)`` and its ``covariance`` ``(P, P)``."""

    mean: NDArray
    covariance: NDArray


def subject_mean(info: Information, levels: Levels, site: str = "") -> SubjectMean:
    """The mean of a subject: its own voxels' as far as they are many and certain, else its site's."""
    precision, pull = _evidence(info, levels.within)
    return _shrunk(precision, pull, levels.of(site), levels.between)


def learn_levels(subjects: Sequence[Information], sites: Sequence[str], start: NDArray, spread: NDArray) -> Levels:
    """Levels from the voxels of several subjects.

    Parameters
    ----------
    subjects, sites
        Information on the voxels of each subject, and the site of each.
    start, spread
        Mean ``(P,)`` and covariance ``(P, P)`` of all voxels together, to start from.

    Raises
    ------
    InputError
        With fewer than three subjects.
    """
    if len(subjects) < FEWEST:
        raise InputError(f"a level of subjects is learned from {FEWEST} subjects or more, there are {len(subjects)}")
    names = tuple(sorted(set(sites)))
    home = np.array([names.index(site) for site in sites])
    mean = np.repeat(start[None], len(names), 0)
    between, within = 0.1 * spread, 0.9 * spread
    for _ in range(_ROUNDS):
        found, scatter, count = [], np.zeros_like(spread), 0
        for info, i in zip(subjects, home, strict=True):
            one = _shrunk(*_evidence(info, within), mean[i], between)
            found.append(one)
            scatter += _within_scatter(info, within, one)
            count += len(info.pull)
        means = np.stack([one.mean for one in found])
        mean = np.stack([means[home == i].mean(0) for i in range(len(names))])
        off = means - mean[home]
        # each site's mean was estimated from the same subjects
        free = max(len(subjects) - len(names), 1)
        # what an off-set may be beside its estimate, counted as often as there are free ones
        unsure = sum(one.covariance for one in found) * free / len(subjects)
        new_between, new_within = (off.T @ off + unsure) / free, scatter / count
        change = max(_relative(new_between, between), _relative(new_within, within))
        between, within = new_between, new_within
        if change < _CLOSE:
            break
    counts = np.bincount(home, minlength=len(names))
    sure = np.stack([_mean_covariance(subjects, home == i, within, between) for i in range(len(counts))])
    return Levels(names, mean, sure, between, within)


def _evidence(info: Information, within: NDArray) -> tuple[NDArray, NDArray]:
    """What all voxels of a subject state of its mean: precision ``(P, P)`` and pull ``(P,)``."""
    taken = np.linalg.inv(np.eye(len(within)) + info.precision @ within)
    return (taken @ info.precision).sum(0), (taken @ info.pull[..., None]).sum(0)[:, 0]


def _shrunk(precision: NDArray, pull: NDArray, mean: NDArray, between: NDArray) -> SubjectMean:
    # (T^-1 + J)^-1 = (I + T J)^-1 T, also for a scatter between subjects of zero
    covariance = np.linalg.solve(np.eye(len(mean)) + between @ precision, between)
    covariance = (covariance + covariance.T) / 2
    return SubjectMean(mean + covariance @ (pull - precision @ mean), covariance)


def _within_scatter(info: Information, within: NDArray, subject: SubjectMean) -> NDArray:
    """Sum over voxels of the expected square of what is their own."""
    gain = np.linalg.solve(np.eye(len(within)) + within @ info.precision, np.broadcast_to(within, info.precision.shape))
    own = (gain @ (info.pull - info.precision @ subject.mean)[..., None])[..., 0]
    moved = gain @ info.precision
    spread = gain + moved @ subject.covariance @ moved.transpose(0, 2, 1)
    return spread.sum(0) + own.T @ own


def _mean_covariance(subjects: Sequence[Information], mine: NDArray, within: NDArray, between: NDArray) -> NDArray:
    """Covariance of the mean of one site: of generalised least squares over its subjects."""
    size = len(within)
    total = np.zeros((size, size))
    for info, own in zip(subjects, mine, strict=True):
        if own:
            precision, _ = _evidence(info, within)
            total += np.linalg.solve(np.eye(size) + precision @ between, precision)
    return np.linalg.pinv(total)


def _relative(new: NDArray, old: NDArray) -> float:
    return float(np.abs(new - old).max() / max(np.abs(new).max(), 1e-12))
