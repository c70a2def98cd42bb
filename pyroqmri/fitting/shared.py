"""Fits that come with the package, by name."""

from pathlib import Path

from pyroqmri.errors import InputError
from pyroqmri.fitting.schema import recipe_folder
from pyroqmri.io.fit_folder import RECORD, fit_place


def shared_folder() -> Path:
    """Where shared fits lie: a folder each, beside the recipes."""
    return recipe_folder() / "fits"


def shared_fits(folder: str | Path | None = None) -> dict[str, Path]:
    """Folders of fits by name: those that come with the package, or those in ``folder``.

    Raises
    ------
    InputError
        When ``folder`` is none.
    """
    place = shared_folder() if folder is None else Path(folder)
    if folder is not None and not place.is_dir():
        raise InputError(f"{folder} is no folder of fits")
    inside = sorted(place.iterdir()) if place.is_dir() else []
    return {path.name: path for path in inside if path.is_dir() and (fit_place(path) / RECORD).is_file()}


def fit_folder(place: str | Path) -> Path:
    """The folder that a path or the name of a shared fit stands for; a path that is there goes first.

    A name that is neither is returned as it is, so that whoever reads it reports what is missing.
    """
    path = Path(place)
    try:
        return path if path.exists() else shared_fits().get(str(place), path)
    except (OSError, ValueError):  # NUL in the name, or one that is too long
        return path
