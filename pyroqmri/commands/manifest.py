"""Which files of an output folder pyroqmri wrote, so that no others are ever removed."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroqmri import __version__
from pyroqmri.whole_files import is_temporary, write_bytes

MANIFEST = ".pyroqmri.json"
CHECKPOINT = "checkpoint.safetensors"
CALL = "call.json"
# where a run works, and its lock, in a folder that can take nothing beside it
INSIDE_WORK, INSIDE_LOCK = ".pyroqmri.partial", ".pyroqmri.lock"
# what a killed check leaves in the folder of its fit
_LEFT_BY_CHECK = (".check.partial", ".check.old", ".check.lock")
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file managers write them wherever they look
# one of them lies in every folder that we wrote, also before there were manifests
_MARKS = ("dataset_description.json", "demo.json", "check.json", "simulate.json")


@dataclass(frozen=True)
class Manifest:
    """What lies in an output folder.

    Parameters
    ----------
    files
        Paths below the folder.
    finished
        Whether all of them are there.
    removing
        Paths of an earlier result that are being removed, where a result is being moved in.
    """

    files: frozenset[str]
    finished: bool
    removing: tuple[str, ...] = ()


def write_manifest(folder: Path, files: Iterable[str] = (), *, finished: bool, removing: Iterable[str] = ()) -> None:
    """Write the list of a folder's files."""
    record = {
        "GeneratedBy": [{"Name": "pyroqmri", "Version": __version__}], "finished": finished, "files": sorted(files),
        "removing": list(removing),
    }  # fmt: skip
    write_bytes(folder / MANIFEST, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The list of a folder's files; None where pyroqmri wrote none there."""
    record = _json(folder / MANIFEST)
    try:
        if record["GeneratedBy"][0]["Name"] != "pyroqmri":
            return None
        texts = [*record["files"], *record["removing"]]
        if not all(isinstance(text, str) for text in texts):
            return None
        return Manifest(frozenset(record["files"]), record["finished"] is True, tuple(record["removing"]))
    except (KeyError, IndexError, TypeError):
        return None


def was_ours_before(folder: Path) -> bool:
    """Whether an earlier version wrote this folder, which left no list."""
    return any("pyroqmri" in json.dumps(_json(folder / name).get("GeneratedBy")) for name in _MARKS)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole result."""
    found = read_manifest(folder)
    return found is not None and found.finished


def entries(folder: Path) -> set[str]:
    """Paths of the files, links and empty folders below a folder, without what belongs to a run that is going on."""
    return set(_walk(folder))


def is_empty(folder: Path) -> bool:
    """Whether a folder has no such entries; looks no further than the first."""
    return next(_walk(folder), None) is None


def _walk(folder: Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        if here == folder:
            folders[:] = [name for name in folders if name != INSIDE_WORK]
            files = [name for name in files if name != INSIDE_LOCK]
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links]
        yield from ((here / name).relative_to(folder).as_posix() for name in (*files, *links) if not _is_nobodys(name))
        if here != folder and not folders and not files and not links:
            yield here.relative_to(folder).as_posix()


def ours(folder: Path, every: Iterable[str]) -> set[str]:
    """Those of a folder's entries that pyroqmri wrote: the listed ones, a check of the fit, and leftovers of either."""
    every = set(every)
    manifest = read_manifest(folder)
    listed = set() if manifest is None else {*manifest.files, *manifest.removing, MANIFEST}
    found = every & listed
    for path in every - found:
        parts = path.split("/")
        if any(part in _LEFT_BY_CHECK for part in parts) and manifest is not None:
            found.add(path)
        elif parts[-1] == MANIFEST and len(parts) > 1 and parts[-2] == "check" and manifest is not None:
            inner = read_manifest(folder / path.removesuffix(f"/{MANIFEST}"))
            names = () if inner is None else (*inner.files, MANIFEST)
            found |= every & {f"{'/'.join(parts[:-1])}/{name}" for name in names}
    return found


def foreign(folder: Path) -> list[str]:
    """Entries of a folder that pyroqmri did not write, in order."""
    if read_manifest(folder) is None:  # not a folder to look through: it may be anything
        return sorted(path.name for path in folder.iterdir() if not _is_passing(path.name))
    every = entries(folder)
    return sorted(every - ours(folder, every))


def remove_ours(folder: Path) -> None:
    """Remove what pyroqmri wrote in a folder, the list last, and the folder if nothing is left in it."""
    every = entries(folder)
    remove(folder, ours(folder, every) - {MANIFEST})
    (folder / MANIFEST).unlink(missing_ok=True)
    remove_empty(folder)


def remove(folder: Path, paths: Iterable[str]) -> None:
    """Remove entries of a folder, with what belongs to nobody, and the folders below it that are empty then."""
    for path in paths:
        target = folder / path
        if target.is_dir() and not target.is_symlink():
            remove_empty(target)
        else:
            target.unlink(missing_ok=True)
    for where, _, names in os.walk(folder, topdown=False):
        here = Path(where)
        if INSIDE_WORK in here.relative_to(folder).parts[:1]:
            continue
        for name in filter(_is_nobodys, names):
            (here / name).unlink(missing_ok=True)
        if here != folder:
            remove_empty(here)


def _is_passing(name: str) -> bool:
    return name in (INSIDE_WORK, INSIDE_LOCK) or _is_nobodys(name)


def _is_nobodys(name: str) -> bool:
    return name in _LITTER or is_temporary(name)


def remove_empty(folder: Path) -> None:
    """Remove a folder with nothing in it; leave any other."""
    try:
        folder.rmdir()
    except OSError:
        return
