"""Which images a BIDS data set has for a signal."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyroqmri.cohort.image import CohortImage, label_of
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.io.names import stem
from pyroqmri.signals import SIGNALS

ENDINGS = (".nii.gz", ".nii")
_NO_MAGNITUDE = {"phase", "real", "imag"}
# what is looked for where the filter names no suffix, by the settings that a signal requires
_SUFFIXES = (
    (("mt",), ("MPM",)),
    (("readout",), ("UNIT1",)),
    (("bval",), ("dwi",)),
    (("offset",), ("cest",)),
    (("ti",), ("IRT1",)),
    (("flip",), ("VFA",)),
    (("te",), ("MESE", "MEGRE")),
)


def find_images(
    bids_dir: str | Path,
    signal: str,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    filters: Mapping[str, Any] | None = None,
) -> list[CohortImage]:
    """Images of a data set, raw or derived, that a signal is fitted to, in the order of their labels.

    The folder is indexed by ancpbids; data sets nested below ``derivatives`` are left out: give such a folder itself.

    Parameters
    ----------
    signal
        Its settings determine the suffix: ``dwi`` for diffusion, ``IRT1``, ``VFA``, ``MESE``, ``MEGRE``, ``MPM`` ...
    participants, sessions
        Labels, with or without ``sub-`` and ``ses-``; all when empty.
    filters
        Entities to ask for besides, as ``{"desc": "preproc", "suffix": "dwi"}``.

    Raises
    ------
    InputError
        When the folder is no data set, a participant is not in it, or no image is found.
    """
    root = _root(bids_dir)
    wanted = {"suffix": list(_suffixes(signal)), **dict(filters or {})}
    people = [label.removeprefix("sub-") for label in participants]
    visits = [label.removeprefix("ses-") for label in sessions]
    _check_there(root, people)
    found = _query(root, {**wanted, **({"sub": people} if people else {}), **({"ses": visits} if visits else {})})
    if not found:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise InputError(
            f"data set {root} has no image with {asked} for these participants and sessions; check the labels, "
            "or give a --bids-filter-file"
        )
    return _with_masks(root, _grouped(found, _datatypes(root, found)))


def read_filters(path: str | Path | None) -> dict[str, Any]:
    """Entities of a filter file: one table, or the table under ``dwi`` or ``pyroqmri`` as fMRIPrep and QSIPrep have it.

    Raises
    ------
    InputError
        When the file cannot be read, or a value is neither a text, a number nor a list of these.
    """
    if path is None:
        return {}
    table = read_table(path, "BIDS filter file")
    for key in ("pyroqmri", "dwi", "anat"):
        if isinstance(table.get(key), dict):
            table = table[key]
            break
    known = {"subject": "sub", "session": "ses", "acquisition": "acq", "direction": "dir", "reconstruction": "rec"}
    for name, value in table.items():
        if not all(isinstance(one, str | int) for one in (value if isinstance(value, list) else [value])):
            raise InputError(f"BIDS filter file {path}: {name} must be a text, a number or a list of these")
    return {known.get(name, name): value for name, value in table.items() if name != "datatype"}


def _root(bids_dir: str | Path) -> Path:
    root = Path(bids_dir).resolve()
    if not root.is_dir():
        raise InputError(f"data set {bids_dir} is no folder; give the folder with sub-* in it")
    if not any(path.is_dir() for path in root.glob("sub-*")):
        raise InputError(f"data set {root} has no folder sub-*; give the folder of a BIDS data set")
    return root


def _suffixes(signal: str) -> tuple[str, ...]:
    if signal not in SIGNALS:
        raise InputError(f"there is no signal {signal!r}; there are {', '.join(SIGNALS)}")
    needs = SIGNALS[signal].requires
    return next(suffixes for names, suffixes in _SUFFIXES if set(names) <= set(needs))


def _check_there(root: Path, people: Iterable[str]) -> None:
    missing = [label for label in people if not (root / f"sub-{label}").is_dir()]
    if missing:
        raise InputError(f"data set {root} has no participant {', '.join(missing)}; check --participant-label")


def _query(root: Path, entities: Mapping[str, Any]) -> list[Path]:
    import ancpbids

    index = ancpbids.load_dataset(str(root))
    found = (Path(str(name)) for name in index.query(return_type="filename", **entities))
    own = [path for path in found if path.name.endswith(ENDINGS) and _is_own(root, path)]
    return sorted(own, key=lambda path: path.as_posix())


def _is_own(root: Path, path: Path) -> bool:
    """Whether a file lies in a participant's folder of this very data set, and is no phase or part of a complex one."""
    return path.relative_to(root).parts[0].startswith("sub-") and _entities(path).get("part") not in _NO_MAGNITUDE


def _datatypes(root: Path, paths: Iterable[Path]) -> dict[Path, str]:
    return {path: path.parent.name if path.parent.parent != root else "dwi" for path in paths}


def _entities(path: Path) -> dict[str, str]:
    pairs = (part.partition("-") for part in stem(path).split("_"))
    return {name: value for name, dash, value in pairs if dash}


def _grouped(paths: Iterable[Path], datatypes: Mapping[Path, str]) -> list[CohortImage]:
    """Images of one series together, each group under a label of its own."""
    series: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        series[path.parent, label_of(stem(path))].append(path)
    images = []
    for (_, label), members in series.items():
        entities = _entities(members[0])
        short = label.rpartition("_")[0]
        images.append(
            CohortImage(entities.get("sub", ""), entities.get("ses", ""), datatypes[members[0]], short, tuple(members))
        )
    names = [image.label for image in images]
    # two suffixes under the same entities would write files of one name
    return [
        replace(image, label=label_of(stem(image.paths[0]))) if names.count(image.label) > 1 else image
        for image in images
    ]


def _with_masks(root: Path, images: Sequence[CohortImage]) -> list[CohortImage]:
    """Each image with the brain mask whose entities, description aside, are its own."""
    masks: dict[Path, list[Path]] = defaultdict(list)
    for path in _query(root, {"suffix": "mask"}):
        masks[path.parent].append(path)
    return [replace(image, mask=_mask_of(image, masks[image.paths[0].parent])) for image in images]


def _mask_of(image: CohortImage, candidates: Iterable[Path]) -> Path | None:
    own = set(_entities(image.paths[0]).items())
    fitting: list[tuple[int, str, Path]] = []
    for path in candidates:
        theirs = _entities(path)
        description = theirs.pop("desc", "brain")
        if description in ("brain", "preproc", own and dict(own).get("desc")) and set(theirs.items()) <= own:
            fitting.append((-len(theirs), path.name, path))
    return min(fitting)[2] if fitting else None
