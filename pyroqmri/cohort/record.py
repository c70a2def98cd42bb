"""What became of each image of a cohort: one small file per image, written last."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pyroqmri import __version__
from pyroqmri.cohort.image import CohortImage
from pyroqmri.errors import InputError
from pyroqmri.io.names import gradient_files, inherited, mask_beside
from pyroqmri.whole_files import write_bytes

DONE, FAILED, SKIPPED, WAITING = "done", "failed", "skipped", "not run"
STATE = ".cohort"  # folder below the output folder for what is no result
_PIECE = 1 << 20


@dataclass
class Record:
    """What became of one image.

    Attributes
    ----------
    label, subject, session, image
        Which it is; ``image`` below the data set.
    status, why
        ``done``, ``failed``, ``skipped`` or ``not run``, and the reason of the last three.
    inputs
        Size, time of change and SHA-256 of each file that was read.
    key
        SHA-256 of all that determines the result beside the inputs: the fit, the options, the version.
    files
        Size of each file that was written, by its name below the output folder.
    seconds, peak_gb, n_voxels, n_fine, warnings
        Of the run.
    """

    label: str
    subject: str
    session: str
    image: str
    status: str
    why: str = ""
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    key: str = ""
    files: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    peak_gb: float = 0.0
    n_voxels: int = 0
    n_fine: int = 0
    warnings: list[str] = field(default_factory=list)
    version: str = __version__

    @classmethod
    def of(cls, image: CohortImage, status: str, why: str = "") -> "Record":
        """A record of an image of which nothing more is known."""
        return cls(image.label, image.subject, image.session, image.paths[0].name, status, why)


def record_path(out: Path, label: str) -> Path:
    """Where the record of an image lies."""
    return out / STATE / "records" / f"{label}.json"


def write_record(out: Path, record: Record) -> None:
    """Write a record; the image counts as done from then on."""
    path = record_path(out, record.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n").encode())


def read_record(out: Path, label: str) -> Record | None:
    """The record of an image; None where there is none, or it is damaged, which makes the image run again."""
    try:
        found = Record(**json.loads(record_path(out, label).read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = isinstance(found.files, dict) and isinstance(found.inputs, dict) and isinstance(found.warnings, list)
    return found if whole and all(map(_is_inside, found.files)) else None


def _is_inside(name: str) -> bool:
    """Whether a listed file lies in a participant's folder: what a record lists may be removed."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts[:1] != () and name.startswith("sub-")


def is_done(out: Path, image: CohortImage, key: str) -> bool:
    """Whether an image was mapped with this key from these very inputs, and all that was written is there."""
    found = read_record(out, image.label)
    if found is None or found.status != DONE or found.key != key:
        return False
    return same_inputs(image, found.inputs) and all(_size(out / name) == size for name, size in found.files.items())


def input_files(image: CohortImage) -> list[Path]:
    """Every file that the result depends on: images, mask, and what applies to them by BIDS inheritance."""
    named = (image.mask, image.weights, image.grad_dev)
    found: dict[Path, None] = dict.fromkeys([*image.paths, *(path for path in named if path is not None)])
    for path in image.paths:
        beside = [one for ending in (".json", ".bval", ".bvec") for rank in inherited(path, ending) for one in rank]
        extra = [*gradient_files(path), mask_beside(path)]
        found |= dict.fromkeys([*beside, *(one for one in extra if one is not None)])
    return list(found)


def input_record(image: CohortImage) -> dict[str, dict[str, Any]]:
    """Size, time of change and SHA-256 of each input.

    Raises
    ------
    InputError
        When a file that the call names for the image is not there.
    """
    for what, path in (("weights", image.weights), ("grad_dev", image.grad_dev)):
        if path is not None and not path.is_file():
            raise InputError(f"{what} {path} of {image.label} is no file; check --{what.replace('_', '-')}")
    return {str(path): _stat(path) | {"sha256": sha256_of(path)} for path in input_files(image)}


def same_inputs(image: CohortImage, before: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the inputs are those of a record; a file of the same size and time of change is not read again."""
    paths = {str(path): path for path in input_files(image)}
    if set(paths) != set(before) or not all(path.exists() for path in paths.values()):
        return False
    for name, path in paths.items():
        now, then = _stat(path), before[name]
        if now["size"] != then.get("size"):
            return False
        if now["mtime_ns"] != then.get("mtime_ns") and sha256_of(path) != then.get("sha256"):
            return False
    return True


def key_of(*parts: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps([*parts, __version__], sort_keys=True, default=str).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def folder_digest(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over some files of a folder."""
    return key_of([sha256_of(folder / name) for name in names])


def _stat(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
