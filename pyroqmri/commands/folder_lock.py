"""One run at a time on one output."""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroqmri.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_BEING_WRITTEN = 10.0  # seconds in which a lock file may still be without its content


@contextmanager
def locked(path: Path, out: Path) -> Iterator[None]:
    """Hold the lock file ``path`` of an output ``out``, and remove it in the end.

    The system drops the lock of a process that was killed. Where the file system has no locks,
    the file itself is the lock, and one whose process is gone counts as dropped.

    Raises
    ------
    InputError
        When another run holds it.
    OSError
        When the file cannot be written.
    """
    handle = None
    for _ in range(1000):
        handle = _take(path, out)
        if handle is not None:
            break
        time.sleep(0.001)
    if handle is None:
        raise InputError(f"the lock file {path} cannot be opened; remove it if no other run is writing {out}")
    try:
        yield
    finally:
        try:
            with suppress(OSError):  # before it is closed: whoever opens it until then finds that it is gone
                path.unlink()
        finally:
            os.close(handle)


def _take(path: Path, out: Path) -> int | None:
    """The open lock file; None where it has to be tried again."""
    made, handle = True, None
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # which follows no link
    except FileExistsError:
        made = False
        try:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return None
    try:
        got = _flock(handle)
        if got is None:
            got = made or _drop_stale(path, handle)
            if not made and got:  # removed: make a new one
                os.close(handle)
                return None
        if not _is_file(handle, path):  # its run has ended meanwhile
            os.close(handle)
            return None
        if not got:
            raise InputError(_busy(_read(handle), path, out))
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_me()).encode(), 0)
    except BaseException:
        with suppress(OSError):
            os.close(handle)
        raise
    return handle


def _flock(handle: int) -> bool | None:
    """Whether the lock was free; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_file(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid()), "token": _TOKEN}


_TOKEN = secrets.token_hex(8)  # a process with the number of one that is gone has another


def _started(pid: int) -> str:
    """When a process began, in the system's own count; empty where that cannot be known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _drop_stale(path: Path, handle: int) -> bool:
    """Remove the lock file of a process that is gone; whether that was so."""
    owner = _read(handle)
    if not owner:
        gone = time.time() - os.fstat(handle).st_mtime > _BEING_WRITTEN
    elif owner.get("host") != socket.gethostname():
        gone = False
    elif owner.get("pid") == os.getpid():
        gone = owner.get("token") != _TOKEN
    else:
        gone = not _lives(owner.get("pid"), owner.get("started"))
    if not gone or not _is_file(handle, path):
        return gone
    # under a name of its own first: another run may have found it stale as well, and put its own there since
    aside = path.with_name(f".{secrets.token_hex(8)}.stale")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if not _is_file(handle, aside):
            os.rename(aside, path)
            return True
        aside.unlink()
    return True


def _lives(pid: Any, started: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    now = _started(pid)
    return not now or not started or now == started


def _busy(owner: dict[str, Any], path: Path, out: Path) -> str:
    who = f"process {owner['pid']} on {owner['host']}" if {"pid", "host"} <= owner.keys() else "another process"
    here = owner.get("host") in (None, socket.gethostname())
    more = "" if here else f"; if that run has ended, remove {path}"
    return f"another run ({who}) is writing {out}; wait for it or give another --out{more}"
