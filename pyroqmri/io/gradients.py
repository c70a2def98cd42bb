"""Gradient tables: b-values and directions, with what was assumed about them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.text import name_volumes, read_rows, read_vector
from pyroqmri.measurements.shells import B0_BELOW, describe, gather_shells

LARGEST_MS_PER_UM2 = 30.0  # in s/mm2 nobody stops at 30; in ms/um2 almost nobody goes beyond
LARGEST_S_PER_MM2 = 1e5
UNIT_NORM = 0.01


@dataclass(frozen=True)
class Gradients:
    """An acquisition with b-values (ms/um2) and, where known, directions; ``notes`` say what was assumed."""

    acquisition: Acquisition
    notes: list[str]


def read_gradients(bval: str | Path, bvec: str | Path | None = None, *, n_volumes: int | None = None) -> Gradients:
    """Read FSL-style gradient files; what had to be decided is said in the notes.

    Parameters
    ----------
    bval
        Text file of M b-values in s/mm2 or ms/um2, recognised by the largest.
    bvec
        Text file of directions, 3 x M or M x 3.
    n_volumes
        Number of volumes of the image, to check M against.

    Raises
    ------
    InputError
        For a missing or malformed file, another number of entries than volumes,
        negative b-values, or b > 0 without a direction in ``bvec``.
    """
    values = read_vector(bval, "bval")
    if n_volumes is not None and len(values) != n_volumes:
        raise InputError(
            f"bval file {bval} has {len(values)} entries and the image has {n_volumes} volumes; "
            "give the gradient files of this image"
        )
    if (values < 0).any():
        raise InputError(f"bval file {bval} contains negative values ({name_volumes(values < 0)}); is it a bvec file?")
    b, notes = _in_s_per_mm2(values, bval)
    directions = None
    if bvec is not None:
        directions, said = _read_directions(bvec, b)
        notes += said
    b, said = gather_shells(b)
    notes += [*said, describe(b)]
    acquisition = Acquisition(
        bval=torch.as_tensor(b / 1000, dtype=torch.float32),
        bvec=None if directions is None else torch.as_tensor(directions, dtype=torch.float32),
    )
    return Gradients(acquisition, notes)


def _in_s_per_mm2(values: np.ndarray, path: str | Path) -> tuple[np.ndarray, list[str]]:
    largest = values.max()
    if largest > LARGEST_S_PER_MM2:
        raise InputError(f"bval file {path} reaches {largest:g}: neither s/mm2 nor ms/um2; convert it to s/mm2")
    if largest == 0:
        return values, []
    if largest <= LARGEST_MS_PER_UM2:
        return values * 1000, [f"b-values read as ms/um2, because the largest is {largest:g}"]
    doubt = "; multiply them by 1000 if they are in ms/um2" if largest < 100 else ""
    return values, [f"b-values read as s/mm2 (largest {largest:g}{doubt})"]


def _read_directions(path: str | Path, b: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Unit directions ``(M, 3)``, zero where b is zero."""
    rows = read_rows(path, "bvec")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"bvec file {path} has rows of different lengths; expected 3 x {len(b)} numbers")
    g, notes = _orient(np.array(rows), b, path)
    weighted = b >= B0_BELOW
    bad = ~np.isfinite(g).all(1)
    if (bad & weighted).any():
        raise InputError(f"bvec file {path} contains NaN or Inf for {name_volumes(bad & weighted)}, where b > 0")
    g[bad] = 0.0
    norm = np.linalg.norm(g, axis=1)
    if ((norm == 0) & weighted).any():
        raise InputError(
            f"bvec file {path} has no direction (0 0 0) for {name_volumes((norm == 0) & weighted)}, where b > 0; "
            "correct it, or take the file away if these volumes are averages over directions"
        )
    off = weighted & (np.abs(norm - 1) > UNIT_NORM)
    if off.any():
        span = f"{norm[off].min():.3g} to {norm[off].max():.3g}"
        notes.append(f"bvecs of {name_volumes(off)} are not unit vectors (length {span}); normalised, b-values kept")
    g = g / np.where(norm > 0, norm, 1.0)[:, None]
    g[b == 0] = 0.0
    return g, notes


def _orient(table: np.ndarray, b: np.ndarray, path: str | Path) -> tuple[np.ndarray, list[str]]:
    """Directions ``(M, 3)`` of a table that is 3 x M (FSL) or M x 3."""
    n = len(b)
    if n == 3 and table.shape == (3, 3):
        weighted = b >= B0_BELOW
        off_rows, off_columns = (
            np.abs(np.linalg.norm(g, axis=1)[weighted] - 1).max(initial=0) for g in (table, table.T)
        )
        if off_rows <= UNIT_NORM < off_columns:
            return table.copy(), ["3 x 3 bvecs read as one row per volume, because the rows are unit vectors"]
        return table.T.copy(), ["3 x 3 bvecs read as one column per volume (FSL's convention)"]
    if table.shape == (3, n):
        return table.T.copy(), []
    if table.shape == (n, 3):
        return table.copy(), ["bvecs read as one row per volume (M x 3)"]
    shape = f"{table.shape[0]} x {table.shape[1]}"
    raise InputError(f"bvec file {path} is {shape} and there are {n} b-values; expected 3 x {n} or {n} x 3 numbers")
