"""The page of a comparison, rebuilt from the rankings and maps in its folder."""

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri import __version__
from pyroqmri.comparison.ranking import SURE
from pyroqmri.errors import InputError
from pyroqmri.maps import map_name, read_image, write_bytes
from pyroqmri.report import words
from pyroqmri.report.canvas import INK, MUTED, WIDTH, Block, Scale, new_figure, png, styled
from pyroqmri.report.geometry import best_view, canonical, orientation
from pyroqmri.report.page import template
from pyroqmri.report.panels import map_panel
from pyroqmri.report.sections import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARISON = "compare.json"
# told apart by people who see colours differently: Okabe and Ito
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a7a7a")
_TITLES = {
    "loo": ("PSIS-LOO", "each measurement given the others of its voxel"),
    "waic": ("WAIC", "the same, approximated by the variance of the log density"),
    "evidence": ("Evidence", "all measurements of a voxel, its parameters integrated out"),
    "folds": ("Held-out volumes", "volumes that were left out of the training"),
    "shell": ("Held-out shell", "a shell that was left out of the training: requires extrapolation"),
}
_ERRORS = {"folds_error": "Held-out volumes", "shell_error": "Held-out shell"}


def write_comparison(out_dir: str | PathLike) -> Path:
    """Write ``report.html`` of a comparison.

    Raises
    ------
    InputError
        When the folder holds no comparison.
    """
    folder = Path(out_dir)
    path = folder / COMPARISON
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a comparison ({error}); give a folder that compare wrote"
        ) from error
    page = template("comparison.html.jinja").render(_context(folder, record))
    return write_bytes(folder / "report.html", page.encode())


def _context(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    rankings, kind = _contested(record), _kind(record)
    rows = [row for groups in rankings.values() for group in groups for row in group]
    return {
        "image": record.get("image", ""),
        "model": record.get("model", ""),
        "verdict": record["verdict"],
        "unreliable": record["unreliable"],
        "headline": record["verdict"][0] if record["verdict"] else "Nothing could be ranked.",
        "tables": [_table(c, group, kind) for c, groups in rankings.items() for group in groups],
        "errors": [_error_table(c, group, kind) for c, group in record.get("errors", {}).items() if group],
        "ranking": _ranking_picture(record) if rows else None,
        "maps": _map_pictures(folder, record) if rankings.get("evidence") and len(record["groups"][0]) > 1 else [],
        "held_out": _held_out({*rankings, *record.get("errors", {})}),
        "notes": record["notes"],
        "warnings": [str(warning) for warning in record.get("warnings", [])],
        "kind": kind,
        "recipes": [(name, said["recipe"]) for name, said in record.get("candidates", {}).items() if "recipe" in said],
        "noise": record.get("noise", ""),
        "halves": record.get("halves", True),
        "seconds": words.duration(float(record.get("seconds", 0.0))),
        "version": __version__,
    }


def _contested(record: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    """Rankings in which there are two at least."""
    return {c: [group for group in groups if len(group) > 1] for c, groups in record["rankings"].items()}


def _kind(record: dict[str, Any]) -> str:
    """What is compared, in a word: signals under one recipe, recipes of one signal, or both."""
    candidates = record.get("candidates", {})
    signals = {candidates.get(name, {}).get("signal") for name in record["names"]}
    if len(signals) < 2:
        return "recipe"
    return "signal" if len(signals) == len(record["names"]) else "model"


def _held_out(criteria: set[str]) -> str:
    """What was kept from a training; empty where nothing was."""
    volumes, shell = (any(c.startswith(what) for c in criteria) for what in ("folds", "shell"))
    if volumes:
        return "Held-out volumes and the held-out shell were" if shell else "Held-out volumes were"
    return "The held-out shell was" if shell else ""


def _table(criterion: str, rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    title, meaning = _TITLES[criterion]
    weighted = any(row["weight"] == row["weight"] for row in rows)
    cells = [
        [
            row["name"],
            f"{row['total']:.1f} ± {row['se']:.1f}".replace("-", "−"),
            "best" if i == 0 else f"{row['behind']:.1f} ± {row['behind_se']:.1f}",
            "" if i == 0 else words.number(row["behind"] / row["n"]),
            f"{row['weight']:.2f}" if weighted else "",
        ]
        for i, row in enumerate(rows)
    ]
    head = [kind.capitalize(), "Sum, nats", "Behind, nats", "Behind per voxel", "Stacking weight" if weighted else ""]
    return {"title": title, "meaning": meaning, "head": head, "rows": cells, "n": words.count(rows[0]["n"])}


def _error_table(criterion: str, rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    cells = [[row["name"], f"{row['rms']:.3f} ± {row['se']:.3f}"] for row in rows]
    head = [kind.capitalize(), "RMS error, sd of the noise"]
    return {"title": _ERRORS[criterion], "head": head, "rows": cells, "n": words.count(rows[0]["n"])}


def _ranking_picture(record: dict[str, Any]) -> Picture:
    caption = Markup(
        "<b>How far each {0} lies behind the best</b>, in nats over all scored voxels; bars are two standard errors "
        "of the paired difference over voxels. A bar that reaches the line cannot be distinguished from the best."
    ).format(_kind(record))
    rows = {c: groups[0] for c, groups in _contested(record).items() if groups}
    ranked = {row["name"] for group in rows.values() for row in group}
    names = [name for name in record["names"] if name in ranked]
    return Picture(png(ranking_figure(rows, names)), caption, "difference from the best in each score")


@styled
def ranking_figure(rankings: dict[str, list[dict[str, Any]]], names: list[str]) -> "Figure":
    """Differences to the best recipe with two standard errors, a panel for each criterion."""
    n_panels, n = len(rankings), len(names)
    height, left = 0.5 + 0.26 * n, 1.9
    figure = new_figure(WIDTH, height + 0.35)
    width = (WIDTH - left - 0.1) / n_panels
    for p, (criterion, rows) in enumerate(rankings.items()):
        box = (
            (left + p * width) / WIDTH,
            0.42 / (height + 0.35),
            0.86 * width / WIDTH,
            (0.26 * n + 0.1) / (height + 0.35),
        )
        ax = figure.add_axes(box)
        place = {row["name"]: row for row in rows}
        for i, name in enumerate(names):
            if name not in place:
                continue
            row = place[name]
            colour = COLOURS[i % len(COLOURS)]
            ax.errorbar(-row["behind"], n - 1 - i, xerr=2 * row["behind_se"], fmt="o", ms=4, lw=1.3, color=colour)
        ax.axvline(0, color=INK, lw=0.7, ls=(0, (4, 3)))
        ax.set_ylim(-0.6, n - 0.4)
        ax.set_yticks(range(n), [words.drawn(name) for name in reversed(names)] if p == 0 else [""] * n)
        ax.locator_params(axis="x", nbins=3)
        ax.set_title(_TITLES[criterion][0], fontsize=8.5)
        ax.set_xlabel("nats", fontsize=7.5, color=MUTED)
    return figure


def _volume(folder: Path, record: dict[str, Any], entity: str) -> tuple[NDArray, NDArray, bool]:
    image = read_image(folder / f"{map_name(record['prefix'], record['model'], entity, 'dwimap')}.nii.gz")
    affine, oriented = orientation(image)
    return *canonical(np.asarray(image.dataobj), affine), oriented


def winner_picture(folder: Path, record: dict[str, Any], n_slices: int = 2) -> Picture:
    """The map of winners of a comparison's folder, with its legend."""
    names = list(record["groups"][0])
    probability, affine, oriented = _volume(folder, record, "desc-winnerprob")
    best = _volume(folder, record, "desc-winner")[0]
    view = best_view(best > 0, affine, n_slices, oriented)
    colours = [winner_colours(image) for image in view.images(probability)]
    for rgba, inside in zip(colours, view.images(best > 0), strict=True):
        rgba[~inside] = 0
    block = Block(colours, None, "where each wins; opacity is certainty", [f"slice {i}" for i in view.slices])
    n = max(int((best > 0).sum()), 1)
    shares = [float((best == i + 1).sum()) / n for i in range(len(names))]
    sure = [float(((probability[..., i] > SURE) & (best > 0)).sum()) / n for i in range(len(names))]
    figure = map_panel([[block]], aspect=view.aspect, letters=view.letters, width=WIDTH)
    return Picture(png(figure), _legend(names, shares, sure, _kind(record)), "map of winners")


def _map_pictures(folder: Path, record: dict[str, Any]) -> list[Picture]:
    evidence, affine, oriented = _volume(folder, record, "desc-evidence")
    best = _volume(folder, record, "desc-winner")[0]
    view = best_view(best > 0, affine, 2, oriented)
    outside = [~image for image in view.images(best > 0)]
    slices = [f"slice {i}" for i in view.slices]
    names = list(record["groups"][0])
    return [winner_picture(folder, record), _difference_picture(evidence, names, view, outside, slices)]


def winner_colours(probability: NDArray) -> NDArray:
    """Colours ``(..., 4)`` of probabilities ``(..., R)``: the winner's, as opaque as it is certain."""
    n = probability.shape[-1]
    table = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    known = np.nan_to_num(probability)
    top = known.max(-1)
    rgba = np.zeros((*probability.shape[:-1], 4))
    rgba[..., :3] = table[known.argmax(-1) % len(COLOURS)]
    rgba[..., 3] = ((top - 1 / n) / (1 - 1 / n)).clip(0, 1) if n > 1 else 1.0
    return rgba


def legend_square(i: int) -> Markup:
    """A square in the colour that a map of winners has for the candidate ``i``."""
    return Markup('<span style="color:{}">■</span>').format(COLOURS[i % len(COLOURS)])


def _legend(names: list[str], shares: list[float], sure: list[float], kind: str) -> Markup:
    said = [
        Markup("<b>Where each {} wins</b>, by the evidence of each voxel; faint voxels are undecided. ").format(kind)
    ]
    for i, name in enumerate(names):
        square = legend_square(i)
        text = Markup("{} {}: ahead in {} of voxels, with probability above 0.95 in {}. ")
        said.append(text.format(square, name, words.percent(shares[i]), words.percent(sure[i])))
    said.append(Markup("All are equally likely before the data, and each voxel is compared on its own."))
    return Markup().join(said)


def _difference_picture(evidence: NDArray, names: list[str], view: Any, outside: Any, slices: list[str]) -> Picture:
    inside = np.isfinite(evidence).all(-1) & (evidence != 0).any(-1)
    order = np.argsort(-evidence[inside].astype(float).sum(0))
    first, second = int(order[0]), int(order[1]) if len(order) > 1 else int(order[0])
    gap = (evidence[..., first] - evidence[..., second]).astype(float)
    limit = max(float(np.percentile(np.abs(gap[inside]), 98)), 0.1) if inside.any() else 1.0
    scale = Scale("difference of log evidence", "nats", -limit, limit, "RdBu", "both")
    images = []
    for image, out in zip(view.images(gap), outside, strict=True):
        image = image.copy()
        image[out] = np.nan
        images.append(image)
    title = words.drawn(f"{names[first]} − {names[second]}")
    panel = map_panel([[Block(images, scale, title, slices)]], aspect=view.aspect)
    text = "<b>Log evidence of {} minus that of {}</b>: blue where the first predicts better; median {} nats."
    caption = Markup(text).format(names[first], names[second], words.number(float(np.median(gap[inside]))))
    return Picture(png(panel), caption, "map of the difference of log evidence")


__all__ = ["COMPARISON", "legend_square", "ranking_figure", "winner_colours", "winner_picture", "write_comparison"]
