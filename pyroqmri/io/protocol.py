"""The settings of one image, from the files that are given and those that belong to it."""

from pathlib import Path

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.btensor import check_linear
from pyroqmri.io.gradients import read_gradients
from pyroqmri.io.mp2rage import read_mp2rage
from pyroqmri.io.names import gradient_files, unused_tables
from pyroqmri.io.nifti import Header
from pyroqmri.io.settings import read_settings


def read_protocol(
    header: Header,
    bval: str | Path | None,
    bvec: str | Path | None,
    given: dict[str, str | Path | None],
    json: str | Path | None,
    need: tuple[str, ...],
    optional: tuple[str, ...],
) -> tuple[Acquisition, list[str], list[str]]:
    """The settings of an image that a signal uses and all others that vary, with notes and warnings.

    Parameters
    ----------
    bval, bvec, given, json
        Files of the settings; those that are None are looked for.
    need, optional
        Names of the settings that the signal requires, and of those that it uses where they are found.

    Raises
    ------
    InputError
        When a file is wrong, or a needed setting is absent.
    """
    if "readout" in need:
        made, notes = read_mp2rage(header.path, json, 1 if header.n_volumes is None else header.n_volumes)
        return made, notes, []
    used = (*need, *optional)
    settings, notes, warnings = _read_gradients(header, bval, bvec, "bval" in used or "bvec" in used)
    times = read_settings(
        header.path,
        json=json,
        n_volumes=header.n_volumes,
        names=used,
        others=True,
        **given,  # type: ignore[arg-type]
    )
    for name, values in (times.values | times.others).items():
        settings[name] = torch.as_tensor(values, dtype=torch.float32)
    for name in need:
        if name not in settings:
            raise InputError(
                f"image {header.path} has no {name} file beside it and this signal needs one; give it with --{name}"
                f"{unused_tables(header.path, name)}"
            )
    notes += times.notes
    notes += [f"no {name} was found, and the signal goes without" for name in optional if name not in settings]
    return Acquisition(**settings), notes, warnings + times.warnings


def _read_gradients(
    header: Header, bval: str | Path | None, bvec: str | Path | None, used: bool
) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Gradients that are given, or found beside the image; of those that the signal does not use, b where it varies."""
    needed = used or bval is not None
    try:
        used_bval, used_bvec = (bval, bvec) if bval is not None else gradient_files(header.path)
        if bval is None and bvec is not None:
            used_bvec = bvec
        if bval is not None and bvec is None:
            used_bvec = _beside(bval, header.path)
        if used_bval is None:
            return {}, [], []
        found = read_gradients(
            used_bval, used_bvec if needed else None, n_volumes=header.n_volumes, affine=header.affine
        )
    except InputError:
        if needed:
            raise
        return {}, [], []  # they may belong to another image of the folder, and nothing depends on them
    settings = found.acquisition.settings()
    if not needed:
        varies = settings["bval"].max() > settings["bval"].min()
        return ({"bval": settings["bval"]}, [], []) if varies else ({}, [], [])
    check_linear(header.path, settings["bval"].numpy())
    names = [Path(p).name for p in (used_bval, used_bvec) if p is not None and p not in (bval, bvec)]
    notes = [f"{' and '.join(names)} found beside the image"] if names else []
    if used_bvec is not None and used_bvec != bvec and Path(used_bvec).suffix == ".eddy_rotated_bvecs":
        notes.append("directions are those that FSL eddy rotated with the head's motion")
    return settings, notes + found.notes, found.warnings


def _beside(bval: str | Path, image: Path) -> Path | None:
    """The file of directions that goes with a file of b-values that was given: beside the image, or of its name."""
    try:
        found = gradient_files(image)[1]
    except InputError:
        found = None
    twin = Path(bval).with_name(Path(bval).name.replace("bval", "bvec"))
    return found if found is not None else twin if twin != Path(bval) and twin.is_file() else None
