"""The command report: pages rebuilt from what lies in a folder."""

from pathlib import Path

from pyroqmri.commands.demo.index import INDEX, write_demo_index
from pyroqmri.commands.denoise_outputs import RECORD
from pyroqmri.commands.manifest import read_manifest, write_manifest
from pyroqmri.report import write_report
from pyroqmri.report.comparison import COMPARISON, write_comparison
from pyroqmri.report.denoising import write_denoising_report

_PAGES = ("report.html", "methods.txt", "references.bib")


def rebuild_report(folder: str | Path, viewer: bool = True) -> Path:
    """Rebuild ``report.html`` of a folder that ``fit``, ``apply``, ``compare``, ``denoise`` or ``demo`` wrote.

    Parameters
    ----------
    folder
        The folder.
    viewer
        Put the slice viewer into pages of fits.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        When the folder holds no maps.
    """
    folder = Path(folder)
    _list_pages(folder)
    if (folder / RECORD).is_file():
        return write_denoising_report(folder)
    if (folder / COMPARISON).is_file():
        return write_comparison(folder)
    if not (folder / INDEX).is_file():
        return write_report(folder, viewer)
    for part in sorted(page.parent for page in folder.glob("*/report.html")):
        if (part / COMPARISON).is_file():
            write_comparison(part)
        else:
            write_report(part, viewer)
    return write_demo_index(folder)


def _list_pages(folder: Path) -> None:
    """Count pages among the folder's own files, also where it was written without: `--overwrite` then replaces them."""
    found = read_manifest(folder)
    if found is None or not found.finished:
        return
    own = {Path(name).parts[0] for name in found.files}  # a folder of the user's in there stays theirs
    parts = [path.parent for path in folder.glob("*/report.html")] if (folder / INDEX).is_file() else []
    places = [folder, *(part for part in parts if part.name in own)]
    pages = {(place / name).relative_to(folder).as_posix() for place in places for name in _PAGES}
    if not pages <= found.files:
        write_manifest(folder, found.files | pages, finished=True)
