"""Several files that belong together, published so that none stands with another's companion."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyroqmri.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where two runs on one name are not kept apart
    fcntl = None

_PREFIX, _LOCK = ".join-", "lock"


@contextmanager
def publish(main: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder beside ``main`` to write files in, which then get their final names.

    The main file is taken away first and published last: whenever the process is killed, its companions may be there
    without it, and it never stands with those of another. Folders that killed runs left are cleared.

    Parameters
    ----------
    main
        The file that the others belong to.
    names
        Every file name of the set; those that are there and not written again are removed.

    Raises
    ------
    InputError
        When another process is writing the same files.
    """
    parent = main.parent
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_PREFIX}*"):
        _clear(left)
    folder = parent / f"{_PREFIX}{main.name.split('.')[0]}"
    folder.mkdir(exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        if not _locked(lock.fileno()):
            raise InputError(f"another join is writing {main}; wait for it")
        try:
            yield folder
            main.unlink(missing_ok=True)
            companions = [name for name in names if name != main.name]
            for name in companions:
                made = folder / name
                if made.exists():
                    os.replace(made, parent / name)
                else:
                    (parent / name).unlink(missing_ok=True)
            os.replace(folder / main.name, main)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _locked(descriptor: int) -> bool:
    """Whether this process has the lock now."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _clear(left: Path) -> None:
    """Remove a folder that a killed run left; one in use, or with files that are none of ours, stays."""
    ours = (_LOCK, ".nii.gz", ".json", ".bval", ".bvec", ".partial", ".tmp")
    if left.is_symlink() or not left.is_dir() or not all(path.name.endswith(ours) for path in left.iterdir()):
        return
    lock = left / _LOCK
    if lock.is_file():
        with lock.open("r+") as file:
            if not _locked(file.fileno()):
                return
    shutil.rmtree(left, ignore_errors=True)
