"""Files that have their name only once they are whole, also after a crash of the machine or on a full disk."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DISK_ERRORS = {errno.EIO, errno.ENOSPC, errno.EDQUOT}

_ENDING = ".pyroqmri-partial"


def is_temporary(name: str) -> bool:
    """Whether a file of this name was being written when its writer was killed."""
    return name.startswith(".") and name.endswith(_ENDING)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; the file takes its own name when the block ends well.

    Raises
    ------
    OSError
        When it cannot be written; names ``path``, and nothing is left of it.
    """
    # short, so that it fits wherever the name itself does; of its own, so that two writers never share one
    partial = path.with_name(f".{secrets.token_hex(8)}{_ENDING}")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file that has its name only once it is whole and on the disk."""
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return path


def sync(path: Path) -> None:
    """Have a file or folder reach the disk; file systems that cannot say are believed."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have everything below a folder reach the disk."""
    for where, _, names in os.walk(folder):
        for name in names:
            sync(Path(where) / name)
        sync(Path(where))


def move_file(source: Path, target: Path) -> None:
    """Move a file, also to another file system; ``target`` is whole or as it was."""
    try:
        os.replace(source, target)
    except OSError:
        if source.is_dir() or not target.parent.is_dir():
            raise
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
        source.unlink()
