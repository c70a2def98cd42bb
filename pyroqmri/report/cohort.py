"""The page of a cohort: outliers first, then what is common to its subjects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from pyroqmri import __version__
from pyroqmri.maps import write_bytes
from pyroqmri.posterior.voxel_sample import NORMAL_90
from pyroqmri.report import words
from pyroqmri.report.canvas import WIDTH, new_figure, png, styled
from pyroqmri.report.page import template
from pyroqmri.report.sections import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 40  # rows of a table in the page; the files have all
_FIGURES = 6
_NAMED = 40  # images whose labels fit under a figure
_ALIKE = "No image is unlike the others"
_COLOURS = ("#1f4e79", "#b5651d", "#3d7a4d", "#7a3d6d", "#666666")
_CAPTION = Markup("{}: each image's mean over {}, sorted, with its 90 % interval (often smaller than the dot).{}")
_WORDS = {
    "population": (
        "Over subjects",
        "Mean over subjects by restricted maximum likelihood, with each subject's own uncertainty, Knapp and Hartung's "
        "90 % interval, and the standard deviation between subjects that is left.",
    ),
    "comparison": (
        "Comparison of groups",
        "Differences between groups with each subject's own uncertainty carried; sites are effects of their own. q is "
        "the false discovery rate over all rows.",
    ),
    "sessions": (
        "Change between sessions",
        "Change from the first session, over the subjects that have both.",
    ),
    "changes": (
        "Change of each subject",
        "From the first session, with the uncertainty of the voxels in both; what differs between two scans of the "
        "same tissue, such as position and scanner, comes on top.",
    ),
}


def write_cohort_page(folder: Path, tables: Any, records: Sequence[Any], groups: Mapping[str, str]) -> Path:
    """Write ``report.html`` of a cohort: one file, no outside resources.

    Parameters
    ----------
    folder
        To write into.
    tables
        What the group level found (:class:`pyroqmri.cohort.group.GroupTables`).
    records
        Of all images, also of those that failed.
    groups
        The group of each subject, which colours the figures.
    """
    counts = Counter(record.status for record in records)
    failed = [f"{record.label} failed: {record.why}" for record in records if record.status == "failed"]
    n_out = len({one.label for one in tables.outliers})
    outliers = [tables.outliers[0].header() if tables.outliers else (), *map(_outlier, tables.outliers[:SHOWN])]
    shown = [
        (title, said + _cut(table), table[: SHOWN + 1])
        for name, (title, said) in _WORDS.items()
        if len(table := getattr(tables, name)) > 1
    ]
    verb = "is" if n_out == 1 else "are"
    headline = f"{n_out} of {tables.n_images} images {verb} unlike the others" if n_out else _ALIKE
    context = {
        "tag": " · ".join(f"{n} {status}" for status, n in counts.items()),
        "headline": headline,
        "failed": failed[:SHOWN], "problems": tables.problems[:SHOWN], "outliers": outliers, "far": "3.5",
        "cut": "" if len(tables.outliers) <= SHOWN else f"; the first {SHOWN} of {len(tables.outliers)}, the others "
        "are in outliers.tsv",
        "pictures": _pictures(tables.values, groups), "tables": shown, "version": __version__,
    }  # fmt: skip
    return write_bytes(folder / "report.html", template("cohort.html.jinja").render(context).encode())


def _outlier(one: Any) -> tuple[str, ...]:
    session = f"ses-{one.session}" if one.session else "n/a"
    numbers = (f"{one.value:.4g}", f"{one.median:.4g}", f"{one.z:+.1f}")
    return (f"sub-{one.subject}", session, one.label, one.region or "n/a", one.quantity, *numbers)


def _cut(table: Sequence[Any]) -> str:
    return f" The first {SHOWN} of {len(table) - 1} rows." if len(table) - 1 > SHOWN else ""


def _pictures(values: Sequence[Any], groups: Mapping[str, str]) -> list[Picture]:
    """Images of the first region, a figure per parameter."""
    regions = list(dict.fromkeys(value.region for value in values))
    names = list(dict.fromkeys(value.parameter for value in values if value.region == regions[0]))
    pictures = []
    for name in names[:_FIGURES]:
        chosen = [value for value in values if value.region == regions[0] and value.parameter == name]
        coloured = " Colours are groups." if len({groups.get(value.subject, "") for value in chosen}) > 1 else ""
        caption = _CAPTION.format(name, f"region {regions[0]}", coloured)
        pictures.append(Picture(png(_strip(chosen, groups)), caption, str(caption)))
    return pictures


@styled
def _strip(values: Sequence[Any], groups: Mapping[str, str]) -> "Figure":
    figure = new_figure(WIDTH, 2.6)
    ax = figure.add_axes((0.09, 0.26, 0.89, 0.70))
    ordered = sorted(values, key=lambda value: value.mean)
    names = sorted({groups.get(value.subject, "") for value in ordered})
    for k, name in enumerate(names):
        mine = [i for i, value in enumerate(ordered) if groups.get(value.subject, "") == name]
        means, sds = (np.array([getattr(ordered[i], what) for i in mine]) for what in ("mean", "sd"))
        ax.errorbar(
            mine, means, NORMAL_90 * sds, fmt="o", ms=3, lw=0.8, color=_COLOURS[k % len(_COLOURS)], label=name or None
        )
    unit = words.drawn(words.unit_text(values[0].unit))
    ax.set_ylabel(words.drawn(values[0].parameter) + (f" ({unit})" if unit else ""))
    ax.set_xticks([])
    if len(ordered) <= _NAMED:
        ax.set_xticks(range(len(ordered)), [value.label for value in ordered], rotation=60, ha="right", fontsize=6)
    if len(names) > 1:
        ax.legend(loc="upper left", fontsize=8)
    ax.grid(axis="y", color="#ececea", lw=0.6)
    return figure
