"""File names: what an image is called, and what lies beside it."""

from pathlib import Path

# suffixes that BIDS and qMRI-BIDS give to images that parameters are fitted to
_SUFFIXES = """
dwi sbref bold epi asl m0scan cest magnitude phase T1w T2w T2starw PDw FLAIR UNIT1
IRT1 MESE MEGRE VFA MP2RAGE MPM MTS MTR TB1AFI TB1DAM TB1EPI TB1RFM TB1SRGE TB1TFL
"""
SUFFIXES = frozenset(_SUFFIXES.split())
_ENDINGS = (".nii.gz", ".nii")


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
    head, _, suffix = stem(path).rpartition("_")
    return head if head and suffix in SUFFIXES else stem(path)


def gradient_files(image: str | Path) -> tuple[Path | None, Path | None]:
    """The bval and bvec files beside an image, or None: the names that BIDS, FSL and HCP use, both of one kind."""
    folder, own = Path(image).parent, stem(image)
    for pattern in (f"{own}.{{}}", f"{own}.{{}}s", f"{own}_{{}}s", "dwi.{}", "{}s", "{}s.txt", "{}"):
        bval, bvec = (folder / pattern.format(kind) for kind in ("bval", "bvec"))
        if bval.is_file():
            return bval, bvec if bvec.is_file() else None
    return None, None


def mask_beside(image: str | Path) -> Path | None:
    """A file beside an image that looks like its mask."""
    folder, own = Path(image).parent, stem(image)
    names = (f"{own}_mask", f"{prefix(image)}_mask", f"{prefix(image)}_desc-brain_mask", "mask", "nodif_brain_mask")
    candidates = (folder / f"{name}{ending}" for name in names for ending in _ENDINGS)
    return next((path for path in candidates if path.is_file()), None)
