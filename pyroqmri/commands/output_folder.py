"""The folder that a run writes: built under a hidden name, and put in its place when it is whole."""

import json
import os
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroqmri.commands.folder_lock import locked
from pyroqmri.commands.manifest import (
    CALL,
    CHECKPOINT,
    INSIDE_LOCK,
    INSIDE_WORK,
    MANIFEST,
    foreign,
    is_empty,
    is_finished,
    read_manifest,
    remove_empty,
    was_ours_before,
    write_manifest,
)
from pyroqmri.commands.publish import old_of, publish, recover
from pyroqmri.errors import InputError, TrainingError
from pyroqmri.svi.checkpoint import difference
from pyroqmri.svi.interrupt import interrupts_between_steps
from pyroqmri.whole_files import is_temporary, write_bytes

_NAMED = 3  # files that a message names


@contextmanager
def output_folder(
    out: str | Path, *, overwrite: bool = False, resume: bool = False, inputs: Iterable[str | Path] = ()
) -> Iterator[Path]:
    """A hidden folder to write into, which takes the name ``out`` when the block ends well.

    When it does not, nothing is left but a checkpoint that training can go on from;
    the error then carries a note that says so. One run at a time may write ``out``.

    Parameters
    ----------
    out
        Final name; missing folders above it are made, and unmade on an error.
    overwrite
        Replace a folder in which pyroqmri wrote every file; no other.
    resume
        The run may go on from a checkpoint.
    inputs
        Files that must not lie inside a folder that is replaced.

    Raises
    ------
    InputError
        When ``out`` cannot be written or holds something, or another run writes it.
    """
    out = _resolved(out)
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        with _work_folder(out) as partial:
            _make_ready(partial, out, overwrite, inputs)
            try:
                yield partial
                with interrupts_between_steps() as check_interrupt:
                    publish(partial, out)
            except BaseException as error:
                if not is_finished(partial):  # else it could not be put in its place, and is kept
                    _clear(partial, keep=not isinstance(error, TrainingError))
                if (partial / CHECKPOINT).exists() and not isinstance(error, InputError):
                    error.add_note("the state of the training was kept; the same command with --resume goes on from it")
                raise
        check_interrupt()  # what was asked while the folder took its name
    finally:
        for folder in missing:
            remove_empty(folder)


def _resolved(out: str | Path) -> Path:
    try:
        found = Path(out).resolve()
        found.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"the output folder {str(out)!r} cannot be written ({error}); give another --out") from error
    if not found.name:
        raise InputError(f"the output folder {found} is the root of the file system; give another --out")
    if found.exists() and not found.is_dir():
        raise InputError(f"the output folder {found} is a file; give another --out")
    return found


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Where to work, with the lock held: beside ``out``, or in it where nothing can be moved or written beside it."""
    places = [(out.with_name(f".{out.name}.lock"), out.with_name(f".{out.name}.partial"))]
    if out.exists():
        inside = out / INSIDE_LOCK, out / INSIDE_WORK
        places = [inside] if os.path.ismount(out) else [*places, inside]
    for k, (lock, partial) in enumerate(places):
        _refuse_links(lock, partial, old_of(out))
        entered = False
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock, out):
                partial.mkdir(exist_ok=True)
                entered = True
                yield partial
            return
        except OSError as error:
            if entered:
                raise
            if k == len(places) - 1:
                raise _unwritable(out, error) from error


def _refuse_links(*places: Path) -> None:
    """A hidden name that leads elsewhere is not followed: what lies there is not ours to write or to empty."""
    for place in places:
        if place.is_symlink():
            raise InputError(f"{place}, where the output is worked on, is a link to elsewhere; remove the link")


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(f"the output folder {out} cannot be written ({error.strerror}); give another --out")


def _make_ready(partial: Path, out: Path, overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """Mend what a killed run left, refuse a folder that must not be replaced, and empty the working folder."""
    try:
        mended = recover(partial, out)
        partial.mkdir(exist_ok=True)
        _check_free(out, overwrite, inputs, mended)
        _check_work(partial)
        _clear(partial, keep=True)
        partial.mkdir(exist_ok=True)
        write_manifest(partial, finished=False)
    except BaseException as error:
        remove_empty(partial)
        if isinstance(error, OSError):
            raise _unwritable(out, error) from error
        raise


def _check_free(out: Path, overwrite: bool, inputs: Iterable[str | Path], mended: bool) -> None:
    if not out.exists() or is_empty(out):
        return
    if not overwrite:
        left = " (a run that was killed had finished, and its result is there now)" if mended else ""
        raise InputError(
            f"the output folder {out} is not empty{left}; give another --out, or replace it with --overwrite"
        )
    others = foreign(out)
    if read_manifest(out) is None and was_ours_before(out):
        raise InputError(
            f"the output folder {out} is of an earlier pyroqmri, which kept no list of its files, so that --overwrite "
            "cannot distinguish them from yours; remove it yourself, or give another --out"
        )
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise InputError(
            f"the output folder {out} contains files that pyroqmri did not write ({', '.join(others[:_NAMED])}{more}); "
            "move them away, or give another --out"
        )
    for path in inputs:
        if Path(path).resolve().is_relative_to(out):
            raise InputError(f"{path} lies in the output folder {out} that --overwrite replaces; give another --out")


def _check_work(partial: Path) -> None:
    """Refuse to empty a hidden folder of this name that no run of ours made."""
    known = any((partial / name).exists() for name in (MANIFEST, CHECKPOINT, CALL))
    if not known and any(not is_temporary(name) for _, _, files in os.walk(partial) for name in files):
        raise InputError(f"{partial} contains files that pyroqmri did not write, and is in the way; move it elsewhere")


def _clear(partial: Path, keep: bool) -> None:
    """Remove a working folder, all but a checkpoint and the call it belongs to when that is to be kept."""
    kept = {CHECKPOINT, CALL} if keep and (partial / CHECKPOINT).exists() else set()
    with suppress(FileNotFoundError):
        # the list last: without it a folder is not known for ours
        for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in kept:
                path.unlink(missing_ok=True)
        remove_empty(partial)


def remember_call(folder: Path, call: Mapping[str, Any], resume: bool) -> list[str]:
    """Write down what a training was asked for, so that only the same call goes on from its checkpoint.

    The checkpoint of another training is removed where this one does not resume it.

    Returns
    -------
    list of str
        A note where training goes on from a checkpoint, or had none to go on from, else none.

    Raises
    ------
    InputError
        When resuming the checkpoint of another call; names the first difference.
    """
    path, checkpoint = folder / CALL, folder / CHECKPOINT
    now = json.loads(json.dumps(call))
    if resume and checkpoint.exists():
        found = difference(_readable(_call_of(path)), _readable(now))
        if found:
            raise InputError(f"the checkpoint belongs to another call, {found}; leave out --resume to start afresh")
        return ["training was interrupted, and went on from its checkpoint"]
    checkpoint.unlink(missing_ok=True)
    write_bytes(path, json.dumps(now).encode())
    return ["there was no checkpoint to resume from: the training started from its beginning"] if resume else []


def _call_of(path: Path) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}, the call that the checkpoint belongs to, cannot be read; leave out --resume to start afresh"
        ) from error
    return before if isinstance(before, dict) else {}


def _readable(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call with its recipes as tables, so that the entry that differs can be named."""
    tables: dict[str, Any] = {}
    for name, value in call.items():
        tables[name] = _readable(value) if isinstance(value, dict) else value
        if name == "recipe" and isinstance(value, str):
            with suppress(tomllib.TOMLDecodeError):
                tables[name] = tomllib.loads(value)
    return tables
