"""A finished folder takes its name: by one rename where it can be, else file by file with the records last.

Whatever moment a run is killed at, the next one on the same folder finds the earlier result or the new one whole,
or goes on with what was begun.
"""

import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pyroqmri.commands.folder_lock import locked
from pyroqmri.commands.manifest import (
    CALL,
    CHECKPOINT,
    MANIFEST,
    entries,
    foreign,
    is_empty,
    is_finished,
    ours,
    read_manifest,
    remove,
    remove_empty,
    remove_ours,
    write_manifest,
)
from pyroqmri.errors import InputError
from pyroqmri.svi.interrupt import interrupts_between_steps
from pyroqmri.whole_files import move_file, sync, sync_tree


def old_of(out: Path) -> Path:
    """Where an earlier result lies while a new one takes its place."""
    return out.with_name(f".{out.name}.old")


def publish(partial: Path, out: Path) -> None:
    """Give a folder that is whole its final name; a checkpoint in it goes.

    Raises
    ------
    InputError
        When that cannot be done; the result is kept, and the message says where.
    """
    sync_tree(partial)
    write_manifest(partial, entries(partial) - {CHECKPOINT, CALL, MANIFEST}, finished=True)
    place(partial, out)


def place(partial: Path, out: Path) -> None:
    """Put a finished folder where it belongs."""
    for name in (CHECKPOINT, CALL):
        (partial / name).unlink(missing_ok=True)
    if _swap(partial, out):
        return
    try:
        _move_in(partial, out)
    except OSError as error:
        raise InputError(
            f"the result is finished but could not be moved to {out} ({error.strerror}); it is kept, whole, in "
            f"{partial}: move it from there"
        ) from error


def recover(partial: Path, out: Path) -> bool:
    """Finish what a killed run had begun to put in place; whether there was such a thing.

    Raises
    ------
    InputError
        When a folder stands where an earlier result would be put aside.
    """
    manifest, placed = read_manifest(out), False
    begun = manifest is not None and not manifest.finished
    if is_finished(partial) and (begun or not out.exists() or is_empty(out)):
        place(partial, out)
        placed = True
    old = old_of(out)
    if partial.parent == out or not old.is_dir():
        return placed
    if not out.exists():
        os.replace(old, out)
        return True
    remove_ours(old)
    if old.exists():
        raise InputError(f"{old} contains files that pyroqmri did not write, and is in the way; move it elsewhere")
    return placed


def _swap(partial: Path, out: Path) -> bool:
    """Rename; whether that could be done."""
    there = out.exists()
    if there and (partial.parent == out or Path.cwd().is_relative_to(out) or foreign(out)):
        return False  # who works in the folder would be left in one without a name
    old = old_of(out)
    try:
        if there and any(out.iterdir()):
            os.replace(out, old)
        elif there:
            partial.chmod(out.stat().st_mode & 0o7777)
        os.replace(partial, out)
    except OSError:
        if old.exists() and not out.exists():
            os.replace(old, out)
        return False
    sync(out.parent)
    if old.is_dir():
        remove_ours(old)
    return True


def _move_in(partial: Path, out: Path) -> None:
    """Move the files one by one into a folder that stays; goes on where it was killed."""
    out.mkdir(exist_ok=True)
    new, manifest = read_manifest(partial), read_manifest(out)
    assert new is not None
    if manifest is None or manifest.finished:
        every = entries(out)
        write_manifest(out, new.files, finished=False, removing=_records_first(ours(out, every) - {MANIFEST}))
        manifest = read_manifest(out)
    if manifest is not None and manifest.removing:
        there = entries(out)
        remove(out, [path for path in manifest.removing if path in there])
        write_manifest(out, new.files, finished=False)
    for path in reversed(_records_first(new.files)):
        if (partial / path).exists():
            _move_one(partial / path, out / path)
    remove(out, ())
    sync_tree(out)
    move_file(partial / MANIFEST, out / MANIFEST)
    for where, _, _ in os.walk(partial, topdown=False):
        remove_empty(Path(where))


def _records_first(paths: Iterable[str]) -> Sequence[str]:
    """Whatever makes a folder read as a result comes first."""
    return sorted(paths, key=lambda path: (not path.endswith(".json") or path.count("/") > 1, path))


def _move_one(source: Path, target: Path) -> None:
    """Move a file into a folder; one of that name that is not ours is kept under another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
        return
    if target.exists() or target.is_symlink():
        with suppress(OSError):
            if filecmp.cmp(source, target, shallow=False):  # killed between a copy and the removal of its source
                source.unlink()
                return
        kept = target
        while kept.exists() or kept.is_symlink():
            kept = kept.with_name(f"{kept.name}.kept")
        os.rename(target, kept)
    move_file(source, target)


@contextmanager
def file_set(files: Sequence[Path]) -> Iterator[Path]:
    """A hidden folder to write files into that belong together, which take their places when the block ends well.

    The first of ``files`` is the one that the others describe: it is taken away first and put in place last, so that
    a run that is killed leaves none of that name or one with its own companions.

    Raises
    ------
    InputError
        When another run writes the same file.
    """
    first, *others = files
    made = first.with_name(f".{first.name}.partial")
    with locked(first.with_name(f".{first.name}.lock"), first):
        shutil.rmtree(made, ignore_errors=True)
        try:
            made.mkdir()
            yield made
            sync_tree(made)
            with interrupts_between_steps() as check_interrupt:
                first.unlink(missing_ok=True)
                for path in (*others, first):
                    if (made / path.name).exists():
                        os.replace(made / path.name, path)
                    else:
                        path.unlink(missing_ok=True)
                sync(first.parent)
            check_interrupt()
        finally:
            shutil.rmtree(made, ignore_errors=True)
