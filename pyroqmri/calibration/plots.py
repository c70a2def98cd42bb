"""Pictures of a calibration check: ranks by ArviZ's own plot, with its bands, and coverage against its promise."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyroqmri.calibration.ranks import ALPHA, GRID, LEVELS, Cell, ecdf_band
from pyroqmri.diagnostics import from_groups
from pyroqmri.diagnostics.arviz_adapter import arviz_major, import_arviz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#1f6f8b", "#c0504d", "#6a994e", "#8e6c8a", "#bc8034", "#4f5d75")


def rank_figure(ranks: Mapping[str, NDArray], n_cells: int, tolerance: tuple[float, float]) -> "Figure":
    """ECDF of each parameter's ranks less the uniform one: ArviZ's 95 % band, and the wider one of the tolerance."""
    figure = _arviz_figure(ranks) if arviz_major() else _arviz_0_figure(ranks)
    for axes, (name, rank) in zip(figure.axes, ranks.items(), strict=False):
        low, high = ecdf_band(len(rank), ALPHA / n_cells, *tolerance)
        for edge in (low, high):
            axes.plot(GRID, edge / len(rank) - GRID, color="0.45", lw=0.8, ls="--")
        axes.set(title=name, xlabel="rank of the truth", ylabel="ECDF less uniform")
    return figure


def _arviz_0_figure(ranks: Mapping[str, NDArray]) -> "Figure":
    from matplotlib.figure import Figure
    from scipy.stats import uniform

    figure = Figure(figsize=(3.2 * len(ranks), 3.0), layout="constrained")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for axes, rank in zip(np.atleast_1d(figure.subplots(1, len(ranks))), ranks.values(), strict=True):
            import_arviz().plot_ecdf(
                rank, cdf=uniform.cdf, difference=True, ci_prob=0.95, confidence_bands="simulated", num_trials=200,
                rvs=uniform(0, 1).rvs, random_state=np.random.RandomState(0), ax=axes, show=False,
            )  # fmt: skip
    return figure


def _arviz_figure(ranks: Mapping[str, NDArray]) -> Any:
    arrays = {name: rank[None] for name, rank in ranks.items()}
    data = from_groups({"prior_sbc": arrays}, {}, {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plots = import_arviz().plot_ecdf_pit(data, group="prior_sbc", ci_prob=0.95, backend="matplotlib")
    return plots.viz["figure"].item()


def coverage_figure(cells: Sequence[Cell]) -> "Figure":
    """Share of truths inside intervals less what they promise, with the bands that pass."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(cell.group for cell in cells))
    figure = Figure(figsize=(3.2 * len(groups), 3.0), layout="constrained")
    row = np.atleast_1d(figure.subplots(1, len(groups), sharey=True))
    places = np.arange(len(LEVELS))
    for axes, group in zip(row, groups, strict=True):
        mine = [cell for cell in cells if cell.group == group]
        low, high = np.array(mine[0].bands).T - np.array(LEVELS)
        axes.fill_between(places, low, high, color="0.9", lw=0)
        axes.axhline(0, color="0.5", lw=0.8)
        for colour, cell in zip(_COLOURS * 3, mine, strict=False):
            axes.plot(places, np.array(cell.coverage) - LEVELS, "o-", color=colour, label=cell.parameter, ms=4, lw=1)
        axes.set_xticks(places, [f"{p:.0%}" for p in LEVELS])
        axes.set(title=group, xlabel="central interval")
    row[0].set_ylabel("coverage of the truth, less nominal")
    row[0].legend(frameon=False)
    return figure
