"""Whether truths look like draws from their posteriors: ranks, coverage, bias, and what counts as a departure.

One tolerance says what matters in practice, and everything else follows from it: a posterior passes as long as its sd
may be within ``WIDTH`` of right and its centre within ``SHIFT`` of its sd. It fails once the simulations show, at
the family-wise level ``ALPHA`` over all cells and criteria, that it is worse than that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binom

LEVELS = (0.5, 0.8, 0.9, 0.95)
WIDTH, SHIFT = 0.10, 0.10  # half of what a check must never miss: 20 % too narrow, 0.2 sd off
ALPHA = 0.05
LEAST = 200  # voxels of a cell; fewer can show nothing that matters
GRID = np.arange(1, 100) / 100
_CRITERIA = 2 + len(LEVELS)


@dataclass(frozen=True)
class Cell:
    """One parameter in one group of simulated voxels.

    Parameters
    ----------
    parameter, group, unit
        What and where; ``all`` is every voxel.
    n
        Voxels.
    coverage
        Share of truths inside the central intervals of LEVELS.
    bands
        Lowest and highest share that still passes, per level.
    bias, rmse
        Of the posterior mean, in the parameter's unit.
    z_mean, z_sd
        Of (truth - mean) / sd.
    shift, spread
        Mean and sd of the ranks' normal scores: 0 and 1 where calibrated, and robust to single voxels.
    distance
        Largest distance of the ranks' distribution from uniform.
    contraction
        1 - posterior variance / variance of the truths.
    exact
        No departure from a perfect posterior is seen at all.
    faults
        What is seen to be worse than the tolerance; nothing where the cell passes.
    counts
        Whether the verdict rests on it.
    """

    parameter: str
    group: str
    unit: str
    n: int
    coverage: tuple[float, ...]
    bands: tuple[tuple[float, float], ...]
    bias: float
    rmse: float
    z_mean: float
    z_sd: float
    shift: float
    spread: float
    distance: float
    contraction: float
    exact: bool
    faults: tuple[str, ...]
    counts: bool

    @property
    def holds(self) -> bool:
        """Whether nothing worse than the tolerance is seen."""
        return not self.faults

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {"holds": self.holds, **asdict(self)}


@dataclass(frozen=True)
class Sample:
    """What is known of one parameter in some voxels: truths, posterior mean and sd, ranks in (0, 1); each ``(n,)``."""

    parameter: str
    unit: str
    truth: NDArray
    mean: NDArray
    sd: NDArray
    rank: NDArray

    def __getitem__(self, pick: NDArray) -> "Sample":
        return Sample(self.parameter, self.unit, *(v[pick] for v in (self.truth, self.mean, self.sd, self.rank)))


def randomised_ranks(draws: NDArray, truth: NDArray, rng: np.random.Generator) -> NDArray:
    """Ranks ``(n,)`` of truths among draws ``(S, n)``, uniform on (0, 1) where the posterior is right.

    With r of S draws below, (r + v) / (S + 1) and v uniform: exactly uniform, whereas r / S is rejected nearly always.
    Ties, as at a bound, are broken at random.
    """
    below, ties = (draws < truth).sum(0), (draws == truth).sum(0)
    return (below + rng.uniform(size=len(truth)) * (ties + 1)) / (len(draws) + 1)


def assess(sample: Sample, group: str, n_cells: int, counts: bool = True) -> Cell:
    """Numbers and faults of one cell among ``n_cells`` that share the error rate ALPHA."""
    n, rank = len(sample.rank), sample.rank
    alpha = ALPHA / (n_cells * _CRITERIA)
    inside = [int((np.abs(rank - 0.5) < p / 2).sum()) for p in LEVELS]
    score = ndtri(rank.clip(1e-4, 1 - 1e-4))
    error = sample.mean - sample.truth
    z = -error / np.maximum(sample.sd, 1e-12)
    ecdf = (rank[:, None] <= GRID).sum(0)
    faults = _faults(n, inside, score, ecdf, alpha, WIDTH, SHIFT)
    bands = tuple((low / n, high / n) for low, high in _coverage_bands(n, alpha, WIDTH))
    spread = float(sample.truth.var())
    return Cell(
        sample.parameter, group, sample.unit, n, tuple(k / n for k in inside), bands, float(error.mean()),
        float(np.sqrt((error**2).mean())), float(z.mean()), float(z.std()), float(score.mean()), float(score.std()),
        float(np.abs(ecdf / n - GRID).max()), 1 - float((sample.sd**2).mean()) / spread if spread > 0 else np.nan,
        not _faults(n, inside, score, ecdf, alpha, 0.0, 0.0), faults, counts,
    )  # fmt: skip


def _faults(
    n: int, inside: Sequence[int], score: NDArray, ecdf: NDArray, alpha: float, width: float, shift: float
) -> tuple[str, ...]:
    found = []
    bands = _coverage_bands(n, alpha, width)
    if any(k < low for k, (low, _) in zip(inside, bands, strict=True)):
        found.append("intervals too narrow")
    if any(k > high for k, (_, high) in zip(inside, bands, strict=True)):
        found.append("intervals too wide")
    # under a shift of 0.1 sd the scores' sd is that of the ranks of a right posterior, 1
    margin = shift + -ndtri(alpha / 2) / np.sqrt(n)
    if abs(score.mean()) > margin:
        found.append("too low" if score.mean() > 0 else "too high")
    low, high = ecdf_band(n, alpha, width, shift)
    if not found and ((ecdf < low) | (ecdf > high)).any():
        found.append("ranks not uniform")
    return tuple(found)


def _coverage_bands(n: int, alpha: float, width: float) -> list[tuple[int, int]]:
    """Fewest and most of ``n`` truths inside each interval, of posteriors whose sd is within ``width`` of right."""
    bands = []
    for p in LEVELS:
        z = ndtri((1 + p) / 2)
        least, most = (2 * ndtr(z * (1 + s * width)) - 1 for s in (-1, 1))
        bands.append((int(binom.ppf(alpha / 2, n, least)), int(binom.ppf(1 - alpha / 2, n, most))))
    return bands


def ecdf_band(n: int, alpha: float, width: float = 0.0, shift: float = 0.0) -> tuple[NDArray, NDArray]:
    """Counts of ``n`` ranks at or below GRID that stay inside with probability 1 - ``alpha``, at all points at once.

    Without a tolerance this is the band of Säilynoja et al. 2022, doi:10.1007/s11222-022-10090-6, found by simulation.
    With one, each edge is that of the worst posterior that is still tolerated.
    """
    gamma = pointwise_level(n, alpha)
    z = ndtri(GRID)
    edges = [ndtr(s * z + d) for s in (1 - width, 1 + width) for d in (-shift, shift)]
    return binom.ppf(gamma / 2, n, np.min(edges, 0)), binom.ppf(1 - gamma / 2, n, np.max(edges, 0))


@cache
def pointwise_level(n: int, alpha: float, n_trials: int = 10_000) -> float:
    """Level of pointwise binomial bands that hold simultaneously over GRID with probability 1 - ``alpha``."""
    rng = np.random.default_rng(0)
    cells = np.diff(np.concatenate([[0.0], GRID, [1.0]]))
    counts = rng.multinomial(n, cells, size=n_trials)[:, :-1].cumsum(1)
    smallest = np.ones(n_trials)
    for i, p in enumerate(GRID):
        lower = binom.cdf(np.arange(n + 1), n, p)
        two_sided = 2 * np.minimum(lower, 1 - np.concatenate([[0.0], lower[:-1]]))
        smallest = np.minimum(smallest, two_sided[counts[:, i]])
    return float(np.quantile(smallest, alpha))


def resolution(n: int, n_cells: int) -> dict[str, float]:
    """Smallest shift in sd, and share that intervals are too narrow by, that ``n`` voxels show nine times in ten."""
    alpha = ALPHA / (n_cells * _CRITERIA)
    shift = SHIFT + (-ndtri(alpha / 2) - ndtri(0.1)) / np.sqrt(n)
    for narrow in np.arange(WIDTH, 0.9, 0.005):
        shares = 2 * ndtr(ndtri((1 + np.array(LEVELS)) / 2) * (1 - narrow)) - 1
        least = [low for low, _ in _coverage_bands(n, alpha, WIDTH)]
        if (binom.cdf(np.array(least) - 1, n, shares) > 0.9).any():
            return {"shift": float(shift), "too_narrow_by": float(narrow)}
    return {"shift": float(shift), "too_narrow_by": 1.0}
