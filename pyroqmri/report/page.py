"""The report as one HTML file, rebuilt from what lies in an output folder."""

import base64
import functools
import gzip
from collections.abc import Sequence
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pyroqmri import __version__
from pyroqmri.maps import write_bytes
from pyroqmri.report import records, sections, uncertainty, words
from pyroqmri.report.atlas import Atlas, is_angle
from pyroqmri.report.figures import equation, png
from pyroqmri.report.folder_of_maps import FolderOfMaps, read_folder
from pyroqmri.report.methods import write_methods
from pyroqmri.report.neighbours import neighbour_pictures
from pyroqmri.report.verdict import judge_folder, signal_title
from pyroqmri.report.viewer import viewer_of

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def write_report(out_dir: str | PathLike, viewer: bool = True) -> Path:
    """Write ``report.html`` into an output folder, from its maps, sidecars and ``fit/`` alone.

    Beside it come ``methods.txt``, a paragraph for a paper, and ``references.bib`` with what that cites.

    Parameters
    ----------
    out_dir
        Folder that ``fit`` or ``apply`` wrote; what is missing in it is left out of the page.
    viewer
        Put the slice viewer into the page, whose program takes 0.4 MB and whose numbers take about 2 bytes per voxel
        and map.

    Returns
    -------
    Path
        The page: one file, no outside resources.

    Raises
    ------
    InputError
        When the folder holds no maps.
    """
    folder = Path(out_dir)
    results = read_folder(folder)
    page = _environment().get_template("template.html.jinja").render(_context(results, viewer))
    write_methods(results)
    return write_bytes(folder / "report.html", page.encode())


def _context(results: FolderOfMaps, viewer: bool) -> dict[str, Any]:
    """Everything that the template shows."""
    atlas = Atlas(results)
    looked = _viewer(atlas) if viewer else {"viewer": None, "scripts": ()}
    return {"view": atlas.view, **_front(results), **looked, **_pictures(atlas), **_records(results)}


def _viewer(atlas: Atlas) -> dict[str, Any]:
    """The slice viewer with what its captions need to know."""
    record = atlas.results.record
    script = Markup("\n").join(_script(name) for name in ("plots.js", "viewer.js"))
    first, others = _in_reading_order(atlas.results)
    found = viewer_of(atlas, [*first, *others], first)
    preparation = record.get("preparation")
    return {
        "viewer": found,
        "script": script,
        "scripts": (script, gzip.decompress(base64.b64decode(found.program)).decode()),
        "averaged": isinstance(preparation, dict) and bool(preparation.get("average")),
    }


def _in_reading_order(results: FolderOfMaps) -> tuple[list[str], list[str]]:
    """Free parameters that people read, and the others, angles last."""
    free = [name for name in results.names if not sections.held(results, name)]
    plain = [name for name in free if not is_angle(results.parameter(name))]
    first = read_first(results, plain)
    return first, [*(n for n in plain if n not in first), *(n for n in free if n not in plain)]


def _front(results: FolderOfMaps) -> dict[str, Any]:
    """The heading and the verdict."""
    record = results.record
    verdict, warnings = judge_folder(results)
    return {
        "title": signal_title(results.signal),
        "signal": results.signal,
        "tagline": records.tagline(results.signal),
        "equation": _equation(results.signal),
        "recipe_name": record.get("recipe", ""),
        "image": results.prefix,
        "verdict": verdict,
        "facts": records.facts(results),
        "warnings": warnings,
    }


def _pictures(atlas: Atlas) -> dict[str, Any]:
    """Everything that is drawn, and the table of numbers."""
    results = atlas.results
    free = [name for name in results.names if not sections.held(results, name)]
    plain = [name for name in free if not is_angle(results.parameter(name))]
    read = read_first(results, plain)
    return {
        "several": len(atlas.view.slices) > 1,
        "maps": [sections.parameter_picture(atlas, n) for n in read],
        "more_maps": [sections.parameter_picture(atlas, n) for n in plain if n not in read],
        "more_names": [n for n in plain if n not in read],
        "has_sd": any(results.has(n, "sd") for n in plain),
        "variation": sections.variation_picture(atlas, plain),
        "certainty": [uncertainty.certainty_picture(atlas, n) for n in read if results.has(n, "sd")],
        "by_class": uncertainty.class_uncertainty_picture(atlas, read),
        "status_map": sections.status_picture(atlas),
        "summaries": [sections.summary(atlas, n) for n in results.names],
        "directions": [sections.direction_picture(atlas, n) for n in results.directions],
        "angles": [sections.parameter_picture(atlas, n) for n in free if n not in plain],
        "classes": sections.class_picture(atlas) if results.has("C", "prob") else None,
        "predictive": sections.predictive_pictures(atlas) if results.has("", "ppc") else [],
        "neighbours": neighbour_pictures(atlas, plain),
        "khat": sections.khat_picture(atlas) if results.has("", "khat") else None,
        "training": sections.training_picture(results.record),
    }


def read_first(results: FolderOfMaps, names: list[str]) -> list[str]:
    """The parameters that people read: derived ones where there are several, such as FA in place of tensor elements."""
    derived = [name for name in names if results.is_derived(name)]
    return derived if len(derived) > 1 else names


def _records(results: FolderOfMaps) -> dict[str, Any]:
    """What was written down, as tables."""
    record = results.record
    return {
        "population": records.population_rows(results),
        "notes": record.get("notes", []),
        "status": records.status_rows(results),
        "oriented": results.oriented,
        "shells": records.shells(record.get("protocol", {})),
        "settings": records.settings(record.get("protocol", {})),
        "recipe": results.recipe,
        "versions": record.get("versions", {}),
        "seed": record.get("seed"),
        "weights": record.get("weights_sha256"),
        "references": records.references(results),
        "version": record.get("pyroqmri", __version__),
    }


def _equation(signal: str) -> sections.Picture | None:
    tex = records.equation_of(signal)
    if not tex:
        return None
    try:
        return sections.Picture(png(equation(tex), dpi=300, transparent=True), Markup(), tex)
    except ValueError:  # matplotlib knows less TeX than a docstring may use
        return None


def _script(name: str) -> Markup:
    """A script of the package as it stands in a page; the page's policy allows this text and no other."""
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def policy(scripts: Sequence[str] = ()) -> str:
    """A Content-Security-Policy: nothing is loaded, and no script runs but those whose texts are given, if any."""
    digests = (base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def template(name: str) -> "Template":
    """One of the package's templates."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["policy"] = policy
    environment.filters["data"] = lambda content: f"data:image/png;base64,{base64.b64encode(content).decode()}"
    # width of an image whose file has 300 dots an inch, in CSS pixels; the PNG header says how wide it is
    environment.filters["pixels"] = lambda content: round(int.from_bytes(content[16:20]) * 96 / 300 * 1.15)
    environment.filters["inches"] = _inches
    environment.filters["sentence"] = words.sentence
    return environment


def _inches(content: bytes) -> Markup:
    """A width that shows a PNG in the inches it was drawn in, so that letters are equally large in all of them."""
    at = content.find(b"pHYs", 0, 200)
    if at < 0:
        return Markup()
    per_metre = int.from_bytes(content[at + 4 : at + 8])
    return Markup(' width="{}"').format(round(int.from_bytes(content[16:20]) / per_metre / 0.0254 * 96))
