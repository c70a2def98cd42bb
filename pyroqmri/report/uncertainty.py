"""Uncertainty to look at: maps whose opacity is certainty, interval widths, and ridges and forests by tissue class."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri.parameter import Parameter
from pyroqmri.posterior.voxel_sample import NORMAL_90
from pyroqmri.report import words
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import BACKGROUND, MUTED, WIDTH, Block, Scale, colours_of, new_figure, robust_scale, styled
from pyroqmri.report.figures import map_panel, png
from pyroqmri.report.sections import Picture, percentiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_VOXELS = 3000  # of a class; a density from more looks the same
MIN_VOXELS = 10
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a7a7a")


@dataclass(frozen=True)
class Group:
    """Voxels of one class: means, sds and how far the 90 % interval reaches below and above the mean, ``(V,)``."""

    name: str
    mean: NDArray
    sd: NDArray
    below: NDArray
    above: NDArray


def certainty(mean: NDArray, sd: NDArray, spread: float) -> NDArray:
    """1 for a voxel that is known exactly, 0 for one known no better than voxels differ, or without a number."""
    known = 1 - np.clip(sd / max(spread, 1e-12), 0, 1)
    return np.where(np.isfinite(mean) & np.isfinite(sd), known, 0.0)


def certainty_picture(atlas: Atlas, name: str) -> Picture:
    """The mean as opaque as it is certain, and the width of the 90 % interval."""
    results, parameter = atlas.results, atlas.results.parameter(name)
    mean, sd = atlas.values(name, "mean"), atlas.values(name, "sd")
    low, high = percentiles(mean, 16, 84)
    spread = (high - low) / 2
    scale, unit = atlas.scale(parameter, "mean"), parameter.unit
    blocks = [faded(atlas, name, scale, spread)]
    text = (
        "<b>{}.</b> Left: posterior mean, fading with uncertainty: opaque where the sd is 0, transparent where the sd "
        "is {}, as large as the spread between voxels (half the distance of their 16th and 84th percentiles). Median "
        "opacity {}. "
    )
    middle = percentiles(certainty(mean, sd, spread), 50)[0]
    said = [Markup(text).format(words.named(name, parameter.symbol), words.sized(spread, unit), words.percent(middle))]
    if results.has(name, "q05") and results.has(name, "q95"):
        widths = atlas.values(name, "q95") - atlas.values(name, "q05")
        slices = zip(atlas.images(name, "q95"), atlas.images(name, "q05"), strict=True)
        bar = robust_scale(widths, "width", unit, cmap="inferno", floor=0.0)
        blocks.append(atlas.block([upper - lower for upper, lower in slices], bar, "width of the 90 % interval"))
        text = "Right: from the 5th to the 95th percentile of each voxel’s posterior; median width {}."
        said.append(Markup(text).format(words.sized(percentiles(widths, 50)[0], unit)))
    figure = map_panel([blocks], aspect=atlas.view.aspect, letters=atlas.view.letters)
    _fade_bar(figure.axes[0])  # the bar of the first block
    return Picture(png(figure), Markup().join(said), f"map of {parameter.doc} with its certainty as opacity")


def faded(atlas: Atlas, name: str, scale: Scale, spread: float) -> Block:
    """The mean on its scale, each voxel as opaque as :func:`certainty` says."""
    # nilearn's `transparency` does the same, but resamples to the axes of the scanner, where two tilted slices become
    # a strip (0.14.1), and lays figures out its own way
    plain = atlas.block(atlas.images(name, "mean"), scale)
    images = []
    for image, mean, sd in zip(plain.images, atlas.images(name, "mean"), atlas.images(name, "sd"), strict=True):
        rgba = colours_of(image, scale)
        rgba[..., 3] *= certainty(mean, sd, spread)
        images.append(rgba)
    return Block(images, scale, "mean, as opaque as it is certain", atlas.subtitles, missing=plain.missing)


def _fade_bar(ax: Any) -> None:
    """Lay the maps' background over a colour bar, from opaque at its left to transparent at its right."""
    from matplotlib.colors import to_rgb

    veil = np.ones((1, 64, 4))
    veil[..., :3], veil[..., 3] = to_rgb(BACKGROUND), np.linspace(1, 0, 64)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    ax.imshow(veil, extent=(left, right, low, high), aspect="auto", zorder=10)
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)


def groups_of(atlas: Atlas, name: str) -> list[Group]:
    """Voxels by the tissue class that is likelier than all others together, where at least MIN_VOXELS have it."""
    mean, sd = atlas.values(name, "mean"), atlas.values(name, "sd")
    below = above = NORMAL_90 * sd
    if atlas.results.has(name, "q05") and atlas.results.has(name, "q95"):
        below, above = mean - atlas.values(name, "q05"), atlas.values(name, "q95") - mean
    share = atlas.values("C", "prob")
    labels = atlas.results.classes
    fine = np.isfinite([mean, sd, below, above]).all(0) & (sd > 0)
    found = []
    for c, label in enumerate(labels):
        here = fine & (share[..., c] > 0.5)
        if here.sum() >= MIN_VOXELS:
            found.append(Group(label, mean[here], sd[here], below[here], above[here]))
    return found


def class_uncertainty_picture(atlas: Atlas, names: list[str]) -> Picture | None:
    """Ridges and forest of every parameter by class; None without classes."""
    if not atlas.results.has("C", "prob"):
        return None
    shown = [n for n in names if atlas.results.has(n, "sd")]
    rows = [(atlas.results.parameter(n), groups_of(atlas, n)) for n in shown]
    rows = [(parameter, groups) for parameter, groups in rows if groups]
    if not rows:
        return None
    caption = Markup(
        "<b>By tissue class.</b> Left, ridges: the summed posteriors of the voxels of the class "
        "(each by its mean and sd). Right, forest: median of the voxels’ means, bars to their quartiles "
        "and to their 5th and 95th percentile; the grey bar is the 90 % interval of a typical voxel. Where grey is "
        "as long as colour, voxels differ no more than they are uncertain. A voxel belongs to the class whose "
        "probability is above one half; classes of fewer than {} such voxels are left out."
    )
    picture = png(class_figure(rows))
    return Picture(picture, caption.format(MIN_VOXELS), "parameters by tissue class, with uncertainty")


@styled
def class_figure(rows: list[tuple[Parameter, list[Group]]]) -> "Figure":
    """One row a parameter: ridges on the left, forest on the right, on one axis."""
    heights = [0.5 + 0.36 * len(groups) for _, groups in rows]
    total = sum(heights) + 0.25
    figure, y = new_figure(WIDTH, total), total - 0.25
    for i, ((parameter, groups), height) in enumerate(zip(rows, heights, strict=True)):
        y -= height
        box = (y + 0.42) / total, (height - 0.46) / total
        ridge = figure.add_axes((0.14, box[0], 0.4, box[1]))
        forest = figure.add_axes((0.575, box[0], 0.4, box[1]), sharex=ridge)
        _ridges(ridge, groups, parameter)
        _forest(forest, groups)
        for ax in (ridge, forest):
            ax.set_xlabel(words.label(words.math(parameter.symbol), parameter.unit), fontsize=8, labelpad=1)
            ax.set_yticks([])
            ax.set_ylim(-0.15, len(groups))
        labels = [f"{words.drawn(g.name)}\n{words.count(len(g.mean))} voxels" for g in reversed(groups)]
        ridge.set_yticks([k + 0.3 for k in range(len(groups))], labels, fontsize=7)
        ridge.tick_params(axis="y", length=0)
        if i == 0:
            ridge.set_title("summed posteriors", fontsize=9)
            forest.set_title("voxels, and one voxel’s 90 % interval", fontsize=9)
    return figure


def _ridges(ax: Any, groups: list[Group], parameter: Parameter) -> None:
    every, sd = np.concatenate([g.mean for g in groups]), np.concatenate([g.sd for g in groups])
    low, high = np.percentile(every, [0.5, 99.5])
    margin = 0.15 * max(high - low, 1e-9) + 2 * float(np.median(sd))
    # a mean and sd know nothing of bounds, a voxel keeps within them
    grid = np.linspace(max(low - margin, parameter.lower), min(high + margin, parameter.upper), 240)
    for i, group in enumerate(groups):
        step = max(1, len(group.mean) // _MAX_VOXELS)
        m, s = group.mean[::step, None], np.maximum(group.sd[::step, None], (grid[1] - grid[0]) / 2)
        density = (np.exp(-0.5 * ((grid - m) / s) ** 2) / s).mean(0)
        base, colour = len(groups) - 1 - i, _COLOURS[i % len(_COLOURS)]
        top = base + 0.85 * density / max(float(density.max()), 1e-300)
        ax.fill_between(grid, base, top, color=colour, alpha=0.35, lw=0)
        ax.plot(grid, top, color=colour, lw=1)


def _forest(ax: Any, groups: list[Group]) -> None:
    for i, group in enumerate(groups):
        y, colour = len(groups) - 1 - i, _COLOURS[i % len(_COLOURS)]
        q05, q25, q50, q75, q95 = np.percentile(group.mean, [5, 25, 50, 75, 95])
        ax.plot([q05, q95], [y + 0.42, y + 0.42], color=colour, lw=1.2)
        ax.plot([q25, q75], [y + 0.42, y + 0.42], color=colour, lw=3.2)
        ax.plot([q50], [y + 0.42], "o", ms=4, mfc="white", mec=colour)
        ends = [q50 - float(np.median(group.below)), q50 + float(np.median(group.above))]
        ax.plot(ends, [y + 0.15, y + 0.15], color=MUTED, lw=1.8)
