"""The page over several fits in one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pyroqmri import __version__
from pyroqmri.errors import InputError
from pyroqmri.maps import write_bytes
from pyroqmri.report import records, sections
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.folder_of_maps import read_folder
from pyroqmri.report.page import template
from pyroqmri.report.verdict import Verdict, judge_folder, signal_title


def write_index(
    out_dir: str | PathLike,
    title: str,
    figures: Sequence[tuple[str | PathLike, str]] = (),
    fits: Sequence[str] = (),
    table: Sequence[Sequence[str]] | None = None,
    *,
    groups: Sequence[tuple[str, int]] = (),
    intro: str = "",
    notes: Sequence[str] = (),
    better: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` over several fits in one folder.

    Parameters
    ----------
    out_dir
        Folder that holds the fits.
    title
        Of the page.
    figures
        PNG files and their captions, text or Markup, shown first and embedded.
    fits
        Subfolders, each with its own ``report.html``; shown with a map and a verdict.
    table
        Rows of cells, the first the header.
    groups
        Words over the header and how many columns each is of.
    intro, notes
        A paragraph under the title; sentences at the end.
    better
        By signal, a sentence that names a signal that describes the data better. It stands on the cards of fits that
        raise an alarm, which is then a warning.

    Raises
    ------
    InputError
        When a figure or a fit is not there.
    """
    folder = Path(out_dir)
    pictures = []
    for path, caption in figures:
        if not Path(path).is_file():
            raise InputError(f"the figure {path} of the index of {folder} is not there; draw it first")
        safe = Markup("{}").format(caption)
        pictures.append(sections.Picture(Path(path).read_bytes(), safe, safe.striptags()))
    context = {
        "title": title,
        "intro": intro,
        "figures": pictures,
        "cards": [_card(folder, name, better or {}) for name in fits],
        "table": table,
        "groups": groups,
        "notes": notes,
        "version": __version__,
    }
    page = template("index.html.jinja").render(context)
    return write_bytes(folder / "report.html", page.encode())


@dataclass(frozen=True)
class Card:
    """One fit in an index."""

    name: str
    title: str
    recipe: str
    verdict: Verdict
    brief: str
    picture: sections.Picture
    better: str = ""


def _card(folder: Path, name: str, better: Mapping[str, str]) -> Card:
    results = read_folder(folder / name)
    atlas, verdict = Atlas(results, n_slices=1), judge_folder(results)[0]
    misfit = next((c.found for c in verdict.alarms if c.kind == "misfit" and c.found.endswith("%")), "")
    instead = better.get(results.signal, "") if verdict.level == "alarm" else ""
    return Card(
        name=name,
        title=signal_title(results.signal),
        recipe=_recipe_words(results.record),
        verdict=replace(verdict, level="warning") if instead else verdict,
        brief=records.brief(results) + (f", misfit in {misfit} of voxels" if misfit else ""),
        picture=sections.thumbnail(atlas),
        better=instead,
    )


def _recipe_words(record: dict[str, Any]) -> str:
    """The recipe with what was held fixed or tied, which tells two fits of one recipe apart."""
    fixed = [f"{name} = {value:g}" for name, value in record.get("fixed", {}).items()]
    tied = [f"{name} = {other}" for name, other in record.get("tied", {}).items()]
    return ", ".join([str(record.get("recipe", "")), *fixed, *tied])
