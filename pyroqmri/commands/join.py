"""The command join: a series of images, one a setting, as one image with its protocol."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri import __version__
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.inputs import PathLike
from pyroqmri.commands.join_checks import Member, check_series
from pyroqmri.commands.protocol_files import write_protocol
from pyroqmri.commands.publish import file_set
from pyroqmri.errors import InputError
from pyroqmri.io import read_gradients
from pyroqmri.io.btensor import check_linear
from pyroqmri.io.names import gradient_files, stem, suffix
from pyroqmri.io.nifti import Header, read_header, volumes
from pyroqmri.io.settings import BIDS_KEYS, Found, convert, find_settings
from pyroqmri.io.units import Stated
from pyroqmri.maps import write_volume

_LARGEST = 1 << 34  # bytes of float32
_SHOWN = 40  # volumes in a printed table
_ENDINGS = (".json", ".bval", ".bvec")
# entries of the sidecars that reading the joined image needs, where all of them agree
_CYCLE = ("RepetitionTimePreparation", "RepetitionTimeExcitation", "NumberShots")  # of MP2RAGE, both images alike
_KEPT = ("MagneticFieldStrength", "ImagingFrequency", "PhaseEncodingDirection", "Units")


@dataclass(frozen=True)
class Joined:
    """A joined image, its settings and the file that each volume came from.

    ``notes`` say what was assumed, ``warnings`` what may make the series none.
    """

    path: Path
    acquisition: Acquisition
    sources: list[str]
    notes: list[str]
    warnings: list[str]


def join_images(images: Sequence[PathLike], *, out: PathLike, overwrite: bool = False) -> tuple[Path, Acquisition]:
    """Write images of one grid as the volumes of one; :func:`join_series` returns what was found besides.

    Returns
    -------
    tuple
        The image and its settings.
    """
    joined = join_series(images, out=out, overwrite=overwrite)
    return joined.path, joined.acquisition


def join_series(images: Sequence[PathLike], *, out: PathLike, overwrite: bool = False) -> Joined:
    """Write images of one grid as the volumes of one, with what their sidecars state of each.

    The echoes, inversions or flip angles of a scan come as files of their own in qMRI-BIDS. Each brings its times and
    angles in its sidecars, and its gradients, if it has any, in ``X.bval`` and ``X.bvec``. Units are decided once
    over the whole series.

    Parameters
    ----------
    images
        In the order of the volumes to come; 3-D, or 4-D with settings a volume. In the order of a shell, which has
        ``echo-10`` before ``echo-2``, they are counted first.
    out
        The image to write, ``.nii.gz``; its sidecar, bval and bvec come beside it.
    overwrite
        Replace an image that is there.

    Raises
    ------
    InputError
        When an image or a sidecar is wrong, an image is none of the series, grids or the names of settings differ, no
        file states a setting, or the image is there already. Nothing is written then.
    """
    out = Path(out)
    if len(images) < 2:
        raise InputError("join takes two images or more")
    if not out.name.endswith(".nii.gz"):
        raise InputError(f"--out {out} must end in .nii.gz")
    ordered, notes = _counted([Path(image) for image in images])
    headers = [read_header(image) for image in ordered]
    if any(header.path.resolve() == out.resolve() for header in headers):
        raise InputError(f"--out {out} is one of the images to join; give another name")
    written = [out, *(out.with_name(f"{stem(out)}{ending}") for ending in _ENDINGS)]
    there = [path.name for path in written if path.exists()]
    if there and not overwrite:
        raise InputError(f"{' and '.join(there)} lie in {out.parent} already; give --overwrite or another name")
    _check_grids(headers)
    members, said, warnings = _members(headers)
    warnings += check_series(members)
    acquisition = _joined(members)
    sources = [member.path.name for member, header in zip(members, headers, strict=True) for _ in range(_count(header))]
    extra = {"GeneratedBy": f"pyroqmri {__version__} join", "Sources": [header.path.name for header in headers]}
    extra |= _agreed(members)
    out.parent.mkdir(parents=True, exist_ok=True)
    with file_set(written) as folder:
        # a protocol that would be read back as another one is found out here, where nothing is lost
        write_protocol(folder / out.name, acquisition, extra)
        write_volume(folder / out.name, _values(headers), headers[0].affine, headers[0].oriented)
    return Joined(out, acquisition, sources, notes + said, warnings)


def settings_table(joined: Joined) -> list[str]:
    """The settings of each volume as the lines of a table, cut after 40 volumes."""
    columns: dict[str, list[str]] = {"volume": [], "file": []}
    for i, source in enumerate(joined.sources):
        columns["volume"].append(str(i))
        columns["file"].append(source)
    for name, values in joined.acquisition.settings().items():
        unit = {"flip": "degrees", "offset": "ppm", "bval": "s/mm2"}.get(name, "ms")
        unit = "on" if name == "mt" else unit
        if name != "bvec":
            scaled = values.double() * {"flip": 180 / torch.pi, "bval": 1000}.get(name, 1)
            columns[f"{name} ({unit})"] = [f"{value:.5g}" for value in scaled.tolist()]
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    shown = rows[: _SHOWN + 1]
    width = [max(len(row[k]) for row in shown) for k in range(len(columns))]
    lines = ["  ".join(row[k].ljust(n) if k == 1 else row[k].rjust(n) for k, n in enumerate(width)) for row in shown]
    return lines + ([f"and {len(rows) - len(shown)} volumes more"] if len(rows) > len(shown) else [])


def _counted(images: list[Path]) -> tuple[list[Path], list[str]]:
    """Images whose numbers rise; any order but that of a shell was meant."""
    natural = sorted(images, key=lambda path: [(int(w), "") if w.isdecimal() else (-1, w)
                                               for w in re.split(r"(\d+)", str(path))])  # fmt: skip
    if natural == images or images != sorted(images, key=str):
        return images, []
    return natural, ["images ordered by the numbers in their names, 2 before 10"]


def _check_grids(headers: Sequence[Header]) -> None:
    first = headers[0]
    for header in headers[1:]:
        if header.shape != first.shape:
            raise InputError(
                f"{header.path} is {header.shape} and {first.path.name} {first.shape}; join needs one grid"
            )
        if not np.allclose(header.affine, first.affine, atol=1e-2 * np.abs(first.affine[:3, :3]).max(), rtol=0):
            raise InputError(
                f"{header.path} and {first.path.name} have different affines; bring them to one grid first"
            )


def _count(header: Header) -> int:
    return 1 if header.n_volumes is None else header.n_volumes


def _members(headers: Sequence[Header]) -> tuple[list[Member], list[str], list[str]]:
    """The images with their settings, whose units are decided over all of them; notes and warnings."""
    found = [find_settings(h.path, {}, None, _count(h), texts=False) for h in headers]
    every = {name for one in found for name in one.stated}
    if "mt" in every and len({float(v) for one in found if "mt" in one.stated for v in one.stated["mt"].values}) == 1:
        every -= {"mt"}  # alike in all, it tells nothing apart
    for one, header in zip(found, headers, strict=True):
        missing = sorted(every - set(one.stated))
        if missing:
            own = f"{stem(header.path)}.json"
            why = "" if header.path.with_name(own).is_file() else f": its sidecar {own} is missing"
            raise InputError(f"{header.path} states no {' and no '.join(missing)}, which others of the series do{why}")
    merged = {name: _merged([one.stated[name] for one in found]) for name in sorted(every)}
    settled = _convert(merged, found, suffix(headers[0].path))
    notes = list(dict.fromkeys([note for one in found for note in one.notes] + settled.notes))
    members, k = [], 0
    for header, one in zip(headers, found, strict=True):
        n = _count(header)
        part = {name: values[k : k + n] for name, values in settled.values.items()}
        members.append(Member(header.path, one.sidecar, part | _gradients(header, n, notes, settled.warnings)))
        k += n
    return members, notes, settled.warnings


def _merged(parts: Sequence[Stated]) -> Stated:
    first, sources = parts[0], list(dict.fromkeys(part.source for part in parts))
    source = sources[0] if len(sources) == 1 else f"{sources[0]} to {sources[-1]}"
    return Stated(first.name, np.concatenate([p.values for p in parts]), first.unit, source, first.kind)


def _convert(merged: dict[str, Stated], found: Sequence[Found], kind: str) -> Any:
    first = Found(merged, found[0].sidecar, [], [])
    try:
        return convert(merged, first, tuple(BIDS_KEYS), kind)
    except InputError:
        if "tr" not in merged or np.ptp(merged["tr"].values) > 0:
            raise
        # a repetition time that cannot be is that of something else, and what is alike in all tells nothing apart
        return convert(merged, first, [name for name in BIDS_KEYS if name != "tr"], kind)


def _gradients(header: Header, n: int, notes: list[str], warnings: list[str]) -> dict[str, np.ndarray]:
    bval, bvec = gradient_files(header.path)
    # dwi.bval belongs to no file of a series, where it is not inherited
    if bval is None or (bval.parent == header.path.parent and not bval.name.startswith(stem(header.path))):
        return {}
    found = read_gradients(bval, bvec, n_volumes=n, affine=header.affine)
    warnings += [f"{header.path.name}: {warning}" for warning in found.warnings]
    settings = {name: value.double().numpy() for name, value in found.acquisition.settings().items()}
    check_linear(header.path, settings["bval"])
    return settings


def _joined(members: Sequence[Member]) -> Acquisition:
    every = {name for member in members for name in member.settings}
    if not every:
        first = members[0].path
        raise InputError(
            f"no settings were found: {first.name} needs a sidecar {stem(first)}.json, and so do the others"
        )
    for member in members:
        missing = sorted(every - set(member.settings))
        if missing:
            raise InputError(f"{member.path} states no {' and no '.join(missing)}, which others of the series do")
    joined = {name: np.concatenate([member.settings[name] for member in members]) for name in sorted(every)}
    return Acquisition(**{name: torch.as_tensor(values, dtype=torch.float32) for name, values in joined.items()})


def _agreed(members: Sequence[Member]) -> dict[str, Any]:
    kept = (*_KEPT, *_CYCLE) if suffix(members[0].path) == "MP2RAGE" else _KEPT
    entries = {key: [member.entry(key) for member in members] for key in kept}
    return {
        key: stated[0]
        for key, stated in entries.items()
        if stated[0] is not None and stated.count(stated[0]) == len(stated)
    }


def _values(headers: Sequence[Header]) -> np.ndarray:
    """Measurements ``(X, Y, Z, M)``, float32."""
    first, n = headers[0], sum(_count(header) for header in headers)
    if 4 * n * int(np.prod(first.shape)) > _LARGEST:
        raise InputError(f"the joined image has {n} volumes of {first.shape} voxels, over 16 GB; join a part of it")
    values, k = np.empty((*first.shape, n), np.float32, order="F"), 0
    for header in headers:
        for stored in volumes(header):
            values[..., k] = header.scaled(stored).reshape(header.shape, order="F")
            k += 1
    return values
