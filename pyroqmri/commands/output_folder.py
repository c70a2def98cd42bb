"""The folder that a run writes: built under a hidden name beside its own, moved there when it is whole."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroqmri.errors import InputError, TrainingError

CHECKPOINT = "checkpoint.safetensors"
CALL = "call.json"
# one of them lies in every folder that we wrote
_MARKS = ("dataset_description.json", "demo.json", "check.json", "simulate.json")


@contextmanager
def output_folder(
    out: str | Path, *, overwrite: bool = False, resume: bool = False, inputs: Iterable[str | Path] = ()
) -> Iterator[Path]:
    """A hidden folder to write into, which takes the name ``out`` when the block ends well.

    When it does not, nothing is left but a checkpoint that training can go on from;
    the error then carries a note that says so.

    Parameters
    ----------
    out
        Final name; missing folders above it are made, and unmade on an error.
    overwrite
        Replace a folder that pyroqmri wrote; no other.
    resume
        Keep the checkpoint of an earlier run.
    inputs
        Files that must not lie inside a folder that is replaced.

    Raises
    ------
    InputError
        When ``out`` cannot be written, or holds something.
    """
    out = Path(out).resolve()
    partial = out.with_name(f".{out.name}.partial")
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        _check_free(out, overwrite, inputs)
        _open(partial, resume)
        (partial / ".writable").touch()
        (partial / ".writable").unlink()
    except OSError as error:
        _remove_empty(missing)
        raise InputError(f"the output folder {out} cannot be written ({error.strerror}); give another --out") from error
    try:
        yield partial
        _publish(partial, out)
    except BaseException as error:
        _clear(partial, keep=not isinstance(error, TrainingError))
        if partial.exists() and not isinstance(error, InputError):
            error.add_note("the state of the training was kept; the same command with --resume goes on from it")
        _remove_empty(missing)
        raise


def _check_free(out: Path, overwrite: bool, inputs: Iterable[str | Path]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"the output folder {out} is a file; give another --out")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise InputError(f"the output folder {out} is not empty; give another --out, or replace it with --overwrite")
    if not _is_ours(out):
        raise InputError(f"the output folder {out} contains files that pyroqmri did not write; give another --out")
    for path in inputs:
        if Path(path).resolve().is_relative_to(out):
            raise InputError(f"{path} lies in the output folder {out} that --overwrite replaces; give another --out")


def _is_ours(out: Path) -> bool:
    for name in _MARKS:
        try:
            if "pyroqmri" in json.dumps(json.loads((out / name).read_text()).get("GeneratedBy")):
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def _open(partial: Path, resume: bool) -> None:
    if partial.exists():
        _clear(partial, keep=resume)
    partial.mkdir(parents=True, exist_ok=True)


def _clear(partial: Path, keep: bool) -> None:
    """Remove a hidden folder, all but a checkpoint and the call it belongs to when that is to be kept."""
    kept = {CHECKPOINT, CALL} if keep and (partial / CHECKPOINT).exists() else set()
    if not kept:
        shutil.rmtree(partial, ignore_errors=True)
        return
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def _publish(partial: Path, out: Path) -> None:
    for name in (CHECKPOINT, CALL):
        (partial / name).unlink(missing_ok=True)
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def remember_call(folder: Path, call: dict[str, Any], resume: bool) -> list[str]:
    """Write down what a training was asked for, so that only the same call goes on from its checkpoint.

    Returns
    -------
    list of str
        A note where training goes on from a checkpoint, else none.

    Raises
    ------
    InputError
        When resuming the checkpoint of another call; names the first difference.
    """
    path, goes_on = folder / CALL, resume and (folder / CHECKPOINT).exists()
    now = json.loads(json.dumps(call))
    if goes_on and path.exists():
        before = json.loads(path.read_text())
        for name in now:
            if before.get(name) != now[name]:
                shown = "" if len(str(now[name])) > 60 else f": {before.get(name)} then, {now[name]} now"
                raise InputError(f"the checkpoint belongs to another call, {name} differs{shown}; leave out --resume")
    else:
        path.write_text(json.dumps(now))
    return ["training was interrupted, and went on from its checkpoint"] if goes_on else []
