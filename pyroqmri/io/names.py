"""File names: what an image is called, and what lies beside it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pyroqmri.errors import InputError
from pyroqmri.files import read_bytes

# suffixes that BIDS and qMRI-BIDS give to images that parameters are fitted to
_SUFFIXES = """
dwi sbref bold epi asl m0scan cest magnitude phase T1w T2star T2w T2starw PDw FLAIR UNIT1
IRT1 MESE MEGRE VFA MP2RAGE MPM MTS MTR TB1AFI TB1DAM TB1EPI TB1RFM TB1SRGE TB1TFL
"""
SUFFIXES = frozenset(_SUFFIXES.split())
_ULTRASHORT = frozenset({"ute", "dute", "zte", "petra"})
_ENDINGS = (".nii.gz", ".nii")
_DEPTH = 8  # folders between an image and the root of its data set


def stem(path: str | Path) -> str:
    """The file's name without folder and ``.nii`` or ``.nii.gz``."""
    name = Path(path).name
    for ending in _ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return Path(name).stem


def prefix(path: str | Path) -> str:
    """What maps of this image begin with: its name without a BIDS suffix, entities kept.

    ``sub-01_dwi.nii.gz`` gives ``sub-01``; a name that is nothing but a suffix keeps it.
    """
    head, _, last = stem(path).rpartition("_")
    return head if head and last in SUFFIXES else stem(path)


def suffix(path: str | Path) -> str:
    """The BIDS suffix of an image's name, or nothing where it has none."""
    last = stem(path).rpartition("_")[2]
    return last if last in SUFFIXES else ""


def is_ultrashort(path: str | Path) -> bool:
    """Whether an image's name states readouts right after the pulse (UTE, ZTE, PETRA), with echo times below 1 ms."""
    return not _ULTRASHORT.isdisjoint(re.split("[^a-z]+", stem(path).lower()))


def inherited(image: str | Path, ending: str) -> list[list[Path]]:
    """Files that apply to an image by the inheritance principle of BIDS, those that override the others first.

    A file applies when its name has the image's suffix and no entity that the image has not, in the image's folder
    or one above it, up to the root of the data set. Files of one rank, which BIDS does not allow, are listed together.

    Parameters
    ----------
    ending
        Such as ``.json``.
    """
    own, kind = stem(image), suffix(image)
    folder = Path(os.path.abspath(image)).parent
    first = [[folder / f"{own}{ending}"]] if (folder / f"{own}{ending}").is_file() else []
    if not kind:
        return first
    mine, ranked = set(own.split("_")[:-1]), []
    for level in _levels(folder):
        ranks: dict[int, list[Path]] = {}
        for path in sorted(_names_in(level, f"{kind}{ending}")):
            theirs = path.name.removesuffix(ending).split("_")
            if theirs[-1] == kind and set(theirs[:-1]) <= mine and path.name != f"{own}{ending}":
                ranks.setdefault(len(theirs), []).append(path)
        ranked += [ranks[n] for n in sorted(ranks, reverse=True)]
    return first + ranked


def _levels(folder: Path) -> list[Path]:
    """The image's folder and those above it that belong to its data set."""
    chain = [folder, *folder.parents][:_DEPTH]
    subject = next((i for i, level in enumerate(chain) if level.name.startswith("sub-")), None)
    root = next((i for i, level in enumerate(chain) if (level / "dataset_description.json").is_file()), None)
    top = root if root is not None else 0 if subject is None else subject + 1
    return chain[: top + 1]


def _names_in(folder: Path, ending: str) -> list[Path]:
    try:
        return [folder / entry.name for entry in os.scandir(folder) if entry.name.endswith(ending) and entry.is_file()]
    except OSError:
        return []


def gradient_files(image: str | Path) -> tuple[Path | None, Path | None]:
    """The files of b-values and directions that belong to an image, or None.

    In this order: those with the image's own name as BIDS, FSL, HCP and MRtrix (``.b``, both in one) have it; those
    that name no image, in the same folder; those of a BIDS folder above. FSL eddy's ``X.eddy_rotated_bvecs`` goes
    before any other file of directions where the image is ``X``, eddy's output.

    Raises
    ------
    InputError
        When several files apply and differ.
    """
    folder, own = Path(image).parent, stem(image)
    rotated = folder / f"{own}.eddy_rotated_bvecs"
    bval, bvec = _own_gradients(folder, own)
    if bval is None:
        bval, bvec = _shared_gradients(folder)
    if bval is None:
        bval, bvec = (_first_inherited(image, ending) for ending in (".bval", ".bvec"))
    if bval is not None and bval.suffix != ".b" and rotated.is_file():
        bvec = rotated
    return bval, None if bval is None else bvec


def _own_gradients(folder: Path, own: str) -> tuple[Path | None, Path | None]:
    for pattern in ("{0}.{1}", "{0}.{1}s", "{0}_{1}s", "{0}_{1}", "{0}_{1}s.txt", "{0}_{1}.txt"):
        bval, bvec = (folder / pattern.format(own, kind) for kind in ("bval", "bvec"))
        if bval.is_file():
            return bval, bvec if bvec.is_file() else None
    table = folder / f"{own}.b"
    return (table, None) if table.is_file() else (None, None)


def _shared_gradients(folder: Path) -> tuple[Path | None, Path | None]:
    there = []
    for pattern in ("dwi.{}", "{}s", "{}s.txt", "{}", "{}.txt"):
        bval, bvec = (folder / pattern.format(kind) for kind in ("bval", "bvec"))
        if bval.is_file():
            there.append((bval, bvec if bvec.is_file() else None))
    _check_equal([bval for bval, _ in there], "--bval")
    complete = [pair for pair in there if pair[1] is not None]
    return (complete or there or [(None, None)])[0]


def _first_inherited(image: str | Path, ending: str) -> Path | None:
    ranks = inherited(image, ending)
    if not ranks:
        return None
    _check_equal(ranks[0], f"--{ending[1:]}")
    return ranks[0][0]


def _check_equal(paths: Sequence[Path], option: str) -> None:
    """Refuse files that one image can take its settings from and that differ."""
    if len(paths) < 2:
        return
    contents = {tuple(read_bytes(path, f"{option[2:]} file").split()) for path in paths}
    if len(contents) > 1:
        names = " and ".join(path.name for path in paths)
        raise InputError(f"{names} in {paths[0].parent} differ and either may belong to the image; give one: {option}")


def unused_tables(image: str | Path, name: str) -> str:
    """Files beside an image that may contain a setting and whose names are not the image's, as words for an error."""
    ends = {"bval": (".bval", ".bvals", ".b"), "bvec": (".bvec", ".bvecs", ".eddy_rotated_bvecs")}
    there = sorted(p.name for end in ends.get(name, (f".{name}",)) for p in _names_in(Path(image).parent, end))
    listed = " and ".join(there[:4]) + (f" and {len(there) - 4} more" if len(there) > 4 else "")
    return f" ({listed} there {'has' if len(there) == 1 else 'have'} another name)" if there else ""


def setting_texts(image: str | Path, name: str, units: Sequence[str]) -> tuple[Path | None, bool]:
    """The text file of one setting beside an image, and whether its name is the image's own.

    Parameters
    ----------
    units
        That the end of a file's name may state, such as ``ms`` in ``TE_ms.txt``.

    Raises
    ------
    InputError
        When several files apply and differ.
    """
    folder, own = Path(image).parent, stem(image)
    words = list(dict.fromkeys((*{"flip": ("FA", "fa", "flip"), "offset": ("offset", "offsets")}.get(
        name, (name.upper(), name)), name)))  # fmt: skip
    ends = [f"_{unit}" for unit in units] + [""]
    mine = [f"{own}.{name}"] + [f"{own}_{word}{end}.txt" for word in words for end in ends]
    shared = [f"{word}{end}.txt" for word in words for end in ends]
    for names, is_own in ((mine, True), (shared, False)):
        there = [folder / n for n in names if (folder / n).is_file()]
        _check_equal(there, f"--{name}")
        if there:
            return there[0], is_own
    return None, False


def mask_beside(image: str | Path) -> Path | None:
    """A file beside an image that looks like its mask."""
    folder, own = Path(image).parent, stem(image)
    names = (f"{own}_mask", f"{prefix(image)}_mask", f"{prefix(image)}_desc-brain_mask", "mask", "nodif_brain_mask")
    candidates = (folder / f"{name}{ending}" for name in names for ending in _ENDINGS)
    return next((path for path in candidates if path.is_file()), None)
