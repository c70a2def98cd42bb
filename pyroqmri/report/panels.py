"""Maps side by side: every panel of the same size, every scale with its bar."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from pyroqmri.report.canvas import (
    INK,
    MUTED,
    WIDTH,
    Block,
    Place,
    Scale,
    colour_bar,
    draw_image,
    draw_letters,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# inches
_BAR, _BAR_GAP, _BAR_TEXT, _GAP, _BLOCK_GAP, _ROW_TITLE = 0.11, 0.08, 0.62, 0.05, 0.1, 0.3
_TITLE, _SUBTITLE, _NOTE, _ROW_GAP, _TOP = 0.24, 0.19, 0.17, 0.07, 0.07
_TALLEST = 4.2


@dataclass(frozen=True)
class _Layout:
    """Places in inches: left edge of each block, lower edge of each row, size of a panel and of the figure."""

    blocks: list[float]
    rows: list[float]
    w: float
    h: float
    width: float
    height: float

    def box(self, x: float, y: float, w: float, h: float) -> Place:
        """Inches as figure fractions."""
        return x / self.width, y / self.height, w / self.width, h / self.height


def _lines(texts: Iterable[str]) -> int:
    """Lines of the tallest text, none for empty ones."""
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def _layout(rows: Sequence[Sequence[Block]], aspect: float, titled: bool, width: float) -> _Layout:
    counts = [len(block.images) for block in rows[0]]
    bars = [0.0 if block.scale is None else _BAR_GAP + _BAR + _BAR_TEXT for block in rows[0]]
    left = _ROW_TITLE if titled else 0.02
    gaps = _GAP * sum(n - 1 for n in counts) + _BLOCK_GAP * (len(counts) - 1) + 0.02
    shape = rows[0][0].images[0].shape
    ratio = shape[0] * aspect / shape[1]
    w = min((width - left - sum(bars) - gaps) / sum(counts), _TALLEST / ratio)
    h = w * ratio
    edges, x = [], left
    for n, bar in zip(counts, bars, strict=True):
        edges.append(x)
        x += n * w + (n - 1) * _GAP + bar + _BLOCK_GAP
    heads = [
        _TITLE * any(b.title for b in row) + _SUBTITLE * _lines(s for b in row for s in b.subtitles) for row in rows
    ]
    feet = [_NOTE * _lines(n for b in row for n in b.notes) for row in rows]
    total = _TOP + sum(heads) + sum(feet) + len(rows) * (h + _ROW_GAP)
    lower, y = [], total - _TOP
    for head, foot in zip(heads, feet, strict=True):
        y -= head + h
        lower.append(y)
        y -= foot + _ROW_GAP
    return _Layout(edges, lower, w, h, x - _BLOCK_GAP + 0.02, total)


@styled
def map_panel(
    rows: Sequence[Sequence[Block]],
    *,
    aspect: float = 1.0,
    letters: str = "",
    row_titles: Sequence[str] = (),
    width: float = WIDTH,
) -> "Figure":
    """Rows of blocks of maps, each block with its colour bar.

    Parameters
    ----------
    rows
        Blocks; no row has more of them, or more images in one, than the first.
        Where all rows have the same scale in a block, they share one tall bar.
    aspect
        Height over width of a displayed voxel.
    letters
        Body directions left, right, top, bottom of a panel, such as "LRAP".
    row_titles
        Written beside each row.
    width
        Of the figure, in inches; less where panels would get too tall.
    """
    at = _layout(rows, aspect, any(row_titles), width)
    figure = new_figure(at.width, at.height)
    for r, row in enumerate(rows):
        y = at.rows[r]
        if r < len(row_titles) and row_titles[r]:
            centre = at.box(0.1, y + at.h / 2, 0, 0)[:2]
            figure.text(*centre, row_titles[r], rotation=90, ha="center", va="center", fontsize=9)
        for j, block in enumerate(row):
            _draw_block(figure, at, block, at.blocks[j], y, letters if r == j == 0 else "")
            if block.scale is None:
                continue
            shared = all(j < len(other) and other[j].scale == block.scale for other in rows)
            low = at.rows[-1] if shared else y
            x = at.blocks[j] + len(rows[0][j].images) * (at.w + _GAP) - _GAP + _BAR_GAP
            if r == 0 or not shared:
                high = at.rows[0] if shared else y
                colour_bar(figure, at.box(x, low, _BAR, high + at.h - low), block.scale)
    return figure


def _draw_block(figure: "Figure", at: _Layout, block: Block, x: float, y: float, letters: str) -> None:
    """Draw the images of a block from its left edge."""
    start = x
    for i, image in enumerate(block.images):
        place = at.box(x, y, at.w, at.h)
        draw_image(figure, place, image, block.scale, block.missing[i] if block.missing else None)
        if letters and i == 0:
            draw_letters(figure, place, letters)
        if i < len(block.subtitles):
            centre = at.box(x + at.w / 2, y + at.h + 0.05, 0, 0)[:2]
            figure.text(*centre, block.subtitles[i], ha="center", va="bottom", fontsize=7.5, color=MUTED)
        if i < len(block.notes):
            centre = at.box(x + at.w / 2, y - 0.05, 0, 0)[:2]
            figure.text(*centre, block.notes[i], ha="center", va="top", fontsize=7.5, color=INK, linespacing=1.3)
        x += at.w + _GAP
    above = _SUBTITLE * _lines(block.subtitles)
    centre = at.box((start + x - _GAP) / 2, y + at.h + above + 0.06, 0, 0)[:2]
    figure.text(*centre, block.title, ha="center", va="bottom", fontsize=9)


def comparison_panel(
    rows: Sequence[str],
    columns: Sequence[str],
    volumes: NDArray,
    scales: Scale | Sequence[Sequence[Scale]],
    *,
    numbers: Sequence[Sequence[str]] | None = None,
    aspect: float = 1.0,
    letters: str = "",
    width: float = WIDTH,
) -> "Figure":
    """A grid of maps to compare, with what to compare printed under each.

    Parameters
    ----------
    rows, columns
        Titles; rows that are all empty leave no room for them.
    volumes
        Images ``(rows, columns, H, W)`` as displayed, NaN outside the mask.
    scales
        One scale for all panels, with one bar; or one for each panel, where
        columns that are equal side by side share a bar, and so do equal rows.
    numbers
        Text under each panel, such as "median |difference| 0.11 µm²/ms".
    aspect, letters, width
        As for :func:`map_panel`.
    """
    grid = [[scales] * len(columns) for _ in rows] if isinstance(scales, Scale) else [list(row) for row in scales]
    # a run of equal scales must end at the same column in every row, or panels would not stand below one another
    keys = [tuple(row[c] for row in grid) for c in range(len(columns))]
    runs = [[c for c, _ in run] for _, run in groupby(enumerate(keys), key=lambda item: item[1])]
    table = [
        [
            Block(
                [volumes[r, c] for c in run],
                grid[r][run[0]],
                subtitles=[columns[c] for c in run] if r == 0 else (),
                notes=() if numbers is None else [numbers[r][c] for c in run],
            )
            for run in runs
        ]
        for r in range(len(rows))
    ]
    return map_panel(table, aspect=aspect, letters=letters, row_titles=rows, width=width)
