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

Place = tuple[float, float, float, float]  # left, lower, width and height, as fractions of the figure
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


def draw_image(
    figure: "Figure", place: Place, image: NDArray, scale: Scale | None, missing: NDArray[np.bool_] | None
) -> None:
    """One map on a grey background at ``place``: without axes, whose ticks are slow to make."""
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.image import BboxImage
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import Bbox, TransformedBbox

    x, y, w, h = place
    box = TransformedBbox(Bbox.from_bounds(x, y, w, h), figure.transFigure)

    def put(values: NDArray, cmap: Any = None, norm: Any = None) -> None:
        shown = BboxImage(box, cmap=cmap, norm=norm, interpolation="nearest", origin="upper")
        shown.set_data(values)
        figure.add_artist(shown)

    figure.add_artist(Rectangle((x, y), w, h, facecolor=BACKGROUND, transform=figure.transFigure, zorder=-1))
    put(image, *(() if scale is None else _normed(scale)))
    if missing is not None and missing.any():
        put(np.ma.masked_invalid(np.where(missing, 1.0, np.nan)), ListedColormap([MISSING]), Normalize(0, 1))


def places(figure: "Figure") -> list[Place]:
    """Where the maps of a figure lie, in the order in which they were drawn."""
    from matplotlib.patches import Rectangle

    return [shape.get_bbox().bounds for shape in figure.artists if isinstance(shape, Rectangle)]


def draw_letters(figure: "Figure", place: Place, letters: str) -> None:
    """The body's left and right side, in the upper corners that heads leave free."""
    x, y, w, h = place
    for share, letter, side in ((0.03, letters[0], "left"), (0.97, letters[1], "right")):
        figure.text(x + share * w, y + 0.975 * h, letter, ha=side, va="top", fontsize=7, color=INK)


def colour_bar(figure: "Figure", place: Place, scale: Scale) -> None:
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
