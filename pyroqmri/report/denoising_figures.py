"""Figures of a denoiser: its residual's histogram, its latents, its training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyroqmri.report.canvas import INK, WIDTH, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOUND, _EXPECTED = "#1f4e79", "#d1495b"


@styled
def residual_histogram(residual: dict[str, Any]) -> "Figure":
    """What was removed, over sigma, against noise of the assumed kind around the denoised signal."""
    figure = new_figure(WIDTH, 2.8)
    ax = figure.add_axes((0.07, 0.17, 0.9, 0.76))
    edges = np.asarray(residual["histogram"]["edges"])
    ax.stairs(residual["histogram"]["found"], edges, fill=True, color="#a9bcd0", label="removed")
    ax.stairs(residual["histogram"]["expected"], edges, color=_EXPECTED, lw=1.4, label="noise")
    ax.set_xlabel("residual over sigma")
    ax.set_ylabel("density")
    ax.legend(fontsize=8)
    return figure


@styled
def traversal_figure(latents: dict[str, Any], order: Sequence[int]) -> "Figure":
    """Measurements, in an order, decoded while one latent moves and the others rest at their means."""
    paths = np.asarray(latents["traversal"])[..., list(order)]
    columns = min(4, len(paths))
    rows = -(-len(paths) // columns)
    figure = new_figure(WIDTH, 1.7 * rows + 0.4)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    figure.subplots_adjust(0.06, 0.4 / (1.7 * rows + 0.4), 0.99, 1 - 0.25 / (1.7 * rows + 0.4), 0.12, 0.35)
    colours = ("#1f4e79", "#7f9fc0", INK, "#e39aa3", "#d1495b")
    for i, ax in enumerate(axes):
        if i >= len(paths):
            ax.set_visible(False)
            continue
        for path, colour in zip(paths[i], colours, strict=True):
            ax.plot(path, color=colour, lw=0.9)
        dead = " (dead)" if i + 1 in latents["dead"] else ""
        ax.set_title(f"latent {i + 1}{dead}", fontsize=8)
    axes[0].set_ylabel("signal over S0")
    figure.text(0.5, 0.01, "measurement, by b-value", ha="center", fontsize=8)
    return figure


@styled
def training_figure(trace: dict[str, Any]) -> "Figure":
    """Reconstruction loss by epoch, and the weight of the KL term where there is one."""
    figure = new_figure(WIDTH, 2.6)
    ax = figure.add_axes((0.09, 0.18, 0.82, 0.76))
    ax.semilogy(trace["epoch"], trace["reconstruction"], color="#a9bcd0", label="training voxels")
    if all(x is not None for x in trace["held_out"]):
        ax.semilogy(trace["epoch"], trace["held_out"], color=_FOUND, label="held-out voxels")
    ax.set_xlabel("epoch")
    ax.set_ylabel("reconstruction loss")
    if any(trace["kl_weight"]):
        other = ax.twinx()
        other.plot(trace["epoch"], trace["kl_weight"], color=_EXPECTED, lw=0.9, ls="--")
        other.set_ylabel("KL weight over loss weight", color=_EXPECTED)
        other.spines["right"].set_visible(True)
    ax.legend(fontsize=8)
    return figure
