"""Colour scales and the small acts of drawing that every figure shares; nothing goes through pyplot's global state."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyroqmri.report.words import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 9.6  # inches; the width of the report's column
BACKGROUND = "#e3e3e0"
MISSING = "#ff7bd5"  # in none of the colour maps used
_STATUS = {
    1: "#9bbfa8", 2: "#4a4a4a", 3: "#8c8c88", 4: "#56b4e9", 5: "#cc79a7", 6: "#e69f00", 7: "#d1495b", 8: "#f2a7a0",
    9: "#6a4c93", 10: MISSING, 11: "#8f1d2c", 12: "#0072b2",
}  # fmt: skip
INK = "#262626"
MUTED = "#6b6b68"

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9a96",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Scale:
    """A colour scale: what is shown, in which unit, between which limits.

    ``extend`` says at which end values lie beyond the limits (min, max, both,
    neither); ``under`` is a colour of their own for values below the lower one;
    ``log`` spaces the colours evenly in ratios.
    """

    label: str
    unit: str
    lower: float
    upper: float
    cmap: str = "viridis"
    extend: str = "neither"
    under: str | None = None
    log: bool = False


@dataclass(frozen=True)
class Block:
    """Images ``(H, W)``, or colours ``(H, W, 3)`` without a scale, side by side.

    NaN is outside the mask; ``missing`` marks voxels inside it without a number.
    """

    images: Sequence[NDArray]
    scale: Scale | None
    title: str = ""
    subtitles: Sequence[str] = ()
    notes: Sequence[str] = ()
    missing: Sequence[NDArray[np.bool_]] = ()


def styled(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Draw in the report's style, whatever the caller's matplotlib settings are."""

    @wraps(draw)
    def inner(*args: Any, **kwargs: Any) -> "Figure":
        import matplotlib as mpl

        # the caller's backend stays: a context does not put it back
        style: Any = {k: v for k, v in mpl.rcParamsDefault.items() if k != "backend"} | _STYLE
        with mpl.rc_context(style):
            return draw(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> "Figure":
    """A figure in inches that belongs to no window and no pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def robust_scale(
    values: NDArray,
    name: str,
    unit: str,
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    cmap: str = "viridis",
    floor: float | None = None,
) -> Scale:
    """Limits from the 2nd to the 98th percentile of the finite ``values``.

    A limit that comes within a fifth of that range of a parameter's bound is
    put on the bound; ``floor`` fixes the lower one.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Scale(name, unit, 0.0, 1.0, cmap)
    lower, upper = (float(q) for q in np.percentile(finite, [2, 98]))
    span = upper - lower
    lower = bounds[0] if lower - bounds[0] <= 0.2 * span else lower
    upper = bounds[1] if bounds[1] - upper <= 0.2 * span else upper
    lower = lower if floor is None else floor
    if not upper > lower:
        half = max(abs(upper) * 0.05, 1e-6)
        lower, upper = (lower, lower + 2 * half) if floor is not None else (lower - half, upper + half)
    ends = (finite.min() < lower, finite.max() > upper)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(ends, "neither")
    return Scale(name, unit, lower, upper, cmap, extend)


def _normed(scale: Scale) -> tuple[Any, Any]:
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize

    colours = mpl.colormaps[scale.cmap].with_extremes(bad=(0, 0, 0, 0), under=scale.under)
    return colours, (LogNorm if scale.log else Normalize)(scale.lower, scale.upper)


def status_colour(code: int) -> str:
    """The colour of a status code, in the map and in the table."""
    return _STATUS.get(code, "#000000")


def colours_of(image: NDArray, scale: Scale) -> NDArray:
    """Colours ``(H, W, 4)`` of an image on its scale; NaN is transparent."""
    cmap, norm = _normed(scale)
    return cmap(norm(np.ma.masked_invalid(image)))


def draw_image(ax: Any, image: NDArray, scale: Scale | None, aspect: float, missing: NDArray[np.bool_] | None) -> None:
    """One map on a grey background."""
    from matplotlib.colors import ListedColormap

    ax.set_facecolor(BACKGROUND)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if scale is None:
        ax.imshow(image, aspect=aspect, interpolation="nearest")
    else:
        cmap, norm = _normed(scale)
        ax.imshow(image, cmap=cmap, norm=norm, aspect=aspect, interpolation="nearest")
    if missing is not None and missing.any():
        veil = np.where(missing, 1.0, np.nan)
        ax.imshow(veil, cmap=ListedColormap([MISSING]), vmin=0, vmax=1, aspect=aspect, interpolation="nearest")


def draw_letters(ax: Any, letters: str) -> None:
    """The body's left and right side, in the upper corners that heads leave free."""
    ax.text(0.03, 0.975, letters[0], transform=ax.transAxes, ha="left", va="top", fontsize=7, color=INK)
    ax.text(0.97, 0.975, letters[1], transform=ax.transAxes, ha="right", va="top", fontsize=7, color=INK)


def colour_bar(figure: "Figure", place: tuple[float, float, float, float], scale: Scale) -> None:
    """A bar with ticks, symbol and unit at ``place`` (figure fractions)."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

    cmap, norm = _normed(scale)
    ax = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(norm, cmap), cax=ax, extend=scale.extend, extendfrac=0.03)
    bar.locator = LogLocator(subs=(1, 2, 5)) if scale.log else MaxNLocator(6)
    if scale.log:
        bar.formatter = StrMethodFormatter("{x:g}")
        bar.minorlocator, bar.minorformatter = NullLocator(), NullFormatter()
    bar.update_ticks()
    bar.outline.set_visible(False)
    bar.set_label(label(scale.label, scale.unit), fontsize=8.5)


def png(figure: "Figure", dpi: int = 200, transparent: bool = False) -> bytes:
    """The figure as PNG; no software tag or date, so equal figures are equal files."""
    from io import BytesIO

    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name may have letters that the font lacks
        figure.savefig(stream, format="png", dpi=dpi, transparent=transparent, metadata={"Software": None})
    return stream.getvalue()
