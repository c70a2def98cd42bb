"""A fit in a zip archive, as downloads of shared fits are."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pyroqmri.errors import InputError
from pyroqmri.io.fit_folder import MAX_RECORD, MAX_WEIGHTS, RECIPE, RECORD, WEIGHTS

_MOST = {RECIPE: MAX_RECORD, RECORD: MAX_RECORD, WEIGHTS: MAX_WEIGHTS}  # bytes


@contextmanager
def unpacked(place: Path) -> Iterator[Path]:
    """The folder of a fit: ``place`` itself, or where its three files are while the block lasts if it is an archive.

    Nothing else of an archive is read, and none of its names is used for a file.

    Raises
    ------
    InputError
        When a file is no zip archive, or has no fit or several.
    """
    if not place.is_file():
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="pyroqmri-") as folder:
        try:
            with zipfile.ZipFile(place) as archive:
                for name, member in _members(archive, place).items():
                    (Path(folder) / name).write_bytes(archive.read(member))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            raise InputError(
                f"{place} cannot be read as a zip archive ({error}); give a fit's folder or its zip"
            ) from error
        yield Path(folder)


def _members(archive: zipfile.ZipFile, place: Path) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries of a fit, by the names that they have in its folder."""
    inside: dict[PurePosixPath, dict[str, zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        if path.name in _MOST and "__MACOSX" not in path.parts:
            inside.setdefault(path.parent, {})[path.name] = info
    whole = [found for found in inside.values() if set(found) == set(_MOST)]
    if len(whole) != 1:
        raise InputError(f"{place} has {len(whole)} fits ({', '.join(_MOST)} in one folder); give an archive of one")
    for name, info in whole[0].items():
        if info.file_size > _MOST[name]:
            raise InputError(f"{place} has a {name} of {info.file_size} bytes, which no fit has; download it again")
    return whole[0]
