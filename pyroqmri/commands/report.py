"""The command report: pages rebuilt from what lies in a folder."""

from pathlib import Path

from pyroqmri.commands.demo.index import INDEX, write_demo_index
from pyroqmri.commands.denoise_outputs import RECORD
from pyroqmri.report import write_report
from pyroqmri.report.comparison import COMPARISON, write_comparison
from pyroqmri.report.denoising import write_denoising_report


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
    if (folder / RECORD).is_file():
        return write_denoising_report(folder)
    if (folder / COMPARISON).is_file():
        return write_comparison(folder)
    if not (folder / INDEX).is_file():
        return write_report(folder, viewer)
    for page in sorted(folder.glob("*/report.html")):
        write_report(page.parent, viewer)
    return write_demo_index(folder)
