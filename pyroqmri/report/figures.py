"""Figures of maps: every panel on a stated colour scale with a unit.

Images are arrays ``(H, W)`` as displayed, first row on top, NaN outside the
mask (:meth:`pyroqmri.report.geometry.View.images` makes them).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyroqmri.report.canvas import (
    INK,
    WIDTH,
    Block,
    Scale,
    new_figure,
    places,
    png,
    robust_scale,
    styled,
)
from pyroqmri.report.panels import comparison_panel, map_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "WIDTH",
    "Block",
    "Scale",
    "comparison_panel",
    "direction_figure",
    "direction_rgb",
    "equation",
    "histogram",
    "loss_curve",
    "map_panel",
    "png",
    "robust_scale",
]


def direction_rgb(
    direction: NDArray, weight: NDArray | None = None, axes: Sequence[int] = (0, 1, 2), top: float | None = None
) -> NDArray:
    """Colours ``(..., 3)`` of axes ``(..., 3)``: red left-right, green front-back, blue up-down.

    Brightness is ``weight`` over ``top``, by default its 98th percentile. ``axes``
    gives, for each component, the body axis it lies along.
    """
    colours = np.zeros(direction.shape)
    for component, axis in enumerate(axes):
        colours[..., axis] = np.abs(direction[..., component])
    if weight is None:
        return np.nan_to_num(colours).clip(0, 1)
    bright = weight[np.isfinite(weight) & (weight > 0)]
    if top is None:
        top = float(np.percentile(bright, 98)) if bright.size else 1.0
    return np.nan_to_num(colours * (weight / max(top, 1e-6)).clip(0, 1)[..., None]).clip(0, 1)


@styled
def direction_figure(
    rgb: Block, cone: Block | None, *, aspect: float = 1.0, letters: str = "", axis: int = 2
) -> "Figure":
    """Direction-coded colours with their key, seen along an ``axis``, and the cone of uncertainty beside them."""
    figure = map_panel([[rgb] if cone is None else [rgb, cone]], aspect=aspect, letters=letters)
    x, y, width, _ = places(figure)[len(rgb.images) - 1]
    w = 0.17 * width
    h = w * figure.get_figwidth() / figure.get_figheight()
    ax = figure.add_axes((x + width - 1.1 * w, y + 0.1 * h, w, h))
    ax.imshow(_direction_key(axis), interpolation="bilinear")
    ax.set_axis_off()
    return figure


def _direction_key(axis: int) -> NDArray:
    """A half sphere seen in the plane of the slices, coloured as its axes are ``(101, 101, 4)``."""
    up, across = np.mgrid[-1:1:101j, -1:1:101j]
    inside = across**2 + up**2 <= 1
    depth = np.sqrt((1 - across**2 - up**2).clip(0))
    seen = {2: (across, up, depth), 1: (across, depth, up), 0: (depth, across, up)}[axis]
    return np.dstack([*map(np.abs, seen), inside])


@styled
def loss_curve(
    step: Sequence[float],
    train: Sequence[float],
    held_out: Sequence[float | None],
    label: str,
    *,
    width: float = WIDTH,
) -> "Figure":
    """The objective over training; the early plunge is cut off so that the end can be judged."""
    figure = new_figure(width, 2.6)
    ax = figure.add_axes((0.09, 0.17, 0.88, 0.76))
    x, seen = np.asarray(step, float), np.asarray(train, float)
    tested = np.array([np.nan if v is None else v for v in held_out], float)
    if len(seen) == len(x):
        ax.plot(x, seen, color="#a9bcd0", lw=0.8, label="training voxels, by batch")
    if len(tested) == len(x) and np.isfinite(tested).any():
        keep = np.isfinite(tested)
        ax.plot(x[keep], tested[keep], color="#1f4e79", lw=1.4, marker="o", ms=2, label="held-out voxels")
    late = np.concatenate([a[len(a) // 10 :] for a in (seen, tested)])
    late = late[np.isfinite(late)]
    if late.size:
        low, high = np.percentile(late, [1, 100])
        ax.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
    ax.set_xlabel("training step")
    ax.set_ylabel(label)
    ax.legend(loc="lower right", fontsize=8)
    ax.grid(axis="y", color="#ececea", lw=0.6)
    return figure


@styled
def histogram(
    p_values: NDArray,
    name: str = "posterior predictive p-value",
    *,
    bins: int = 20,
    width: float = 4.4,
    height: float = 2.8,
) -> "Figure":
    """How often p-values fall into each bin, beside what uniform ones would do."""
    figure = new_figure(width, height)
    ax = figure.add_axes((0.14, 0.17, 0.83, 0.74))
    finite = p_values[np.isfinite(p_values)]
    heights, edges = np.histogram(finite, bins=bins, range=(0, 1))
    share = heights / max(finite.size, 1)
    ax.bar(edges[:-1], share, width=1 / bins, align="edge", color="#8fa8bf", edgecolor="white", lw=0.5)
    ax.axhline(1 / bins, color=INK, lw=1, ls=(0, (4, 3)))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
    ax.text(0.5, 1 / bins, "uniform", ha="center", va="center", fontsize=7.5, color=INK, bbox=box)
    ax.set_xlim(0, 1)
    ax.set_xlabel(name)
    ax.set_ylabel(f"share of voxels in each of {bins} bins")
    return figure


@styled
def equation(tex: str) -> "Figure":
    """A formula as matplotlib sets it; raises ValueError where it cannot."""
    figure = new_figure(0.1, 0.1)
    text = figure.text(0, 0, f"${tex}$", fontsize=11)
    box = text.get_window_extent()
    width, height = box.width / figure.dpi, box.height / figure.dpi
    figure.set_size_inches(width + 0.1, height + 0.1)
    text.set_position((0.05 / (width + 0.1), (0.05 - box.y0 / figure.dpi) / (height + 0.1)))
    return figure
