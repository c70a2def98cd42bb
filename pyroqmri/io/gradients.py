"""Gradient tables: b-values and directions, with what was assumed about them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.directions import coded_in_lengths, orient, units_of
from pyroqmri.io.text import name_volumes, read_rows, read_vector
from pyroqmri.io.units import B_UNITS, b_unit
from pyroqmri.measurements.shells import B0_BELOW, describe, gather_shells

LONGEST = 1e6  # no table of directions has longer ones, in whatever unit
MRTRIX = ".b"  # ending of MRtrix' tables: x y z b in a row


@dataclass(frozen=True)
class Gradients:
    """An acquisition with b-values (ms/um2) and, where known, directions.

    ``notes`` say what was assumed, ``warnings`` what may make a map wrong. A volume with b > 0 and no direction (a
    trace-weighted average) has zeros for it: :meth:`Acquisition.require` refuses it for a signal of directions.
    """

    acquisition: Acquisition
    notes: list[str]
    warnings: list[str] = field(default_factory=list)


def read_gradients(
    bval: str | Path, bvec: str | Path | None = None, *, n_volumes: int | None = None, affine: np.ndarray | None = None
) -> Gradients:
    """Read the gradient files of FSL or MRtrix; what had to be decided is said in the notes.

    Parameters
    ----------
    bval
        Text file of M b-values in s/mm2, ms/um2 or s/m2, recognised by the largest; or MRtrix' ``X.b``, M rows of a
        direction and a b-value, in which case ``bvec`` is not used.
    bvec
        Text file of directions, 3 x M or M x 3.
    n_volumes
        Number of volumes of the image, to check M against.
    affine
        From voxels to mm ``(4, 4)``: brings MRtrix' directions, along the scanner's axes, to the image's.

    Raises
    ------
    InputError
        For a missing or malformed file, another number of entries than volumes, negative b-values, or lengths of
        ``bvec`` that contradict the b-values.
    """
    table = None
    if Path(bval).suffix == MRTRIX:
        values, table, notes = _mrtrix(bval, affine)
        bvec = bval
    else:
        values, notes = read_vector(bval, "bval", n_volumes), []
    if n_volumes is not None and len(values) != n_volumes:
        raise InputError(
            f"bval file {bval} has {len(values)} entries and the image has {n_volumes} volumes; "
            "give the gradient files of this image"
        )
    if (values < 0).any():
        raise InputError(f"bval file {bval} contains negative values ({name_volumes(values < 0)}); is it a bvec file?")
    b, said = _in_s_per_mm2(values, bval)
    notes, warnings, directions = [*notes, *said], [], None
    if bvec is not None:
        if table is None:
            table, said = _read_table(bvec, b)
            notes += said
        directions, b, said, warnings = _directions(table, b, bvec)
        notes += said
    b, said = gather_shells(b)
    notes += [*said, describe(b)]
    acquisition = Acquisition(
        bval=torch.as_tensor(b / 1000, dtype=torch.float32),
        bvec=None if directions is None else torch.as_tensor(directions, dtype=torch.float32),
    )
    return Gradients(acquisition, notes, warnings)


def _in_s_per_mm2(values: np.ndarray, path: str | Path) -> tuple[np.ndarray, list[str]]:
    if values.max() == 0:
        return values, []
    unit = b_unit(values, str(path))
    because = f", because the largest is {values.max():g}" if unit != "s/mm2" else f" (largest {values.max():g})"
    return values * B_UNITS[unit], [f"b-values read as {unit}{because}"]


def _mrtrix(path: str | Path, affine: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """b-values ``(M,)`` and directions ``(M, 3)`` along the image's axes, as FSL has them."""
    rows = read_rows(path, "gradient")
    if {len(row) for row in rows} != {4}:
        raise InputError(f"gradient file {path} has rows of {len(rows[0])} numbers; MRtrix writes x y z b in each")
    table = np.array(rows)
    bad = ~np.isfinite(table[:, 3])
    if bad.any():
        raise InputError(f"gradient file {path} contains NaN or Inf for {name_volumes(bad)}")
    g = table[:, :3]
    if affine is None:
        return table[:, 3], g, ["directions of MRtrix are along the axes of the scanner, and so are those of the fit"]
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    g = np.where(np.isfinite(g), g, 0.0) @ np.linalg.inv(axes).T
    if np.linalg.det(axes) > 0:
        g[:, 0] *= -1  # FSL counts x from the right in such an image
    return table[:, 3], g, ["MRtrix' directions brought to the axes of the image, as FSL has them"]


def _read_table(path: str | Path, b: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Directions ``(M, 3)`` as the file has them."""
    rows = read_rows(path, "bvec")
    weighted = b >= B0_BELOW
    n = len(b)
    numbers = np.array([x for row in rows for x in row])
    if len({len(row) for row in rows}) == 1 and {len(rows), len(rows[0])} == {3, n}:
        return orient(np.array(rows), weighted)
    if len(rows) > 3 and numbers.size == 3 * n and not {len(row) for row in rows} <= {3}:
        wrapped = numbers.reshape(3, n).T
        if units_of(wrapped, weighted):
            return wrapped, [f"bvecs read as three rows wrapped over {len(rows)} lines"]
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"bvec file {path} has rows of different lengths; expected 3 x {n} numbers")
    shape = f"{len(rows)} x {len(rows[0])}"
    raise InputError(f"bvec file {path} is {shape} and there are {n} b-values; expected 3 x {n} or {n} x 3 numbers")


def _directions(g: np.ndarray, b: np.ndarray, path: str | Path) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Unit directions ``(M, 3)``, zero where there is none, the b-values, notes and warnings."""
    weighted = b >= B0_BELOW
    bad: np.ndarray = ~np.isfinite(g).all(axis=1)
    if (bad & weighted).any():
        raise InputError(f"bvec file {path} contains NaN or Inf for {name_volumes(bad & weighted)}, where b > 0")
    g = np.where(np.expand_dims(bad, 1), 0.0, g)
    largest: np.ndarray = np.abs(g).max(axis=1)
    huge = np.flatnonzero(weighted & (largest > LONGEST))
    if len(huge):
        raise InputError(
            f"bvec file {path} reaches {largest[huge].max():g} for volume {huge[0]} (counted from 0): that is no "
            "direction; correct it"
        )
    g = np.where((largest > LONGEST)[:, None], 0.0, g)
    norm = np.linalg.norm(g, axis=1)
    b, notes, warnings = coded_in_lengths(b, norm, str(path))
    g = g / np.where(norm > 0, norm, 1.0)[:, None]
    g[b == 0] = 0.0
    return g, b, notes, warnings
