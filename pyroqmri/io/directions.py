"""Gradient directions as tables have them: their orientation, and what their lengths mean."""

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.text import name_volumes
from pyroqmri.measurements.shells import B0_BELOW, shells_of

UNIT_NORM = 0.01
ROUNDING = 0.05  # of a length
SAME_LENGTH = 0.12  # shells are further apart than the square of this; coarsely rounded vectors are not


def units_of(g: np.ndarray, weighted: np.ndarray) -> bool:
    """Whether all weighted directions ``(M, 3)`` are unit vectors."""
    return bool((np.abs(np.linalg.norm(g, axis=1)[weighted] - 1) <= UNIT_NORM).all())


def orient(table: np.ndarray, weighted: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Directions ``(M, 3)`` of a table that is 3 x M (FSL) or M x 3, and a note."""
    n = len(weighted)
    if n == 3:
        if units_of(table, weighted) and not units_of(table.T, weighted):
            return table.copy(), ["3 x 3 bvecs read as one row per volume, because the rows are unit vectors"]
        return table.T.copy(), ["3 x 3 bvecs read as one column per volume (FSL's convention)"]
    if table.shape == (3, n):
        return table.T.copy(), []
    return table.copy(), ["bvecs read as one row per volume (M x 3)"]


def coded_in_lengths(b: np.ndarray, norm: np.ndarray, path: str) -> tuple[np.ndarray, list[str], list[str]]:
    """b-values ``(M,)`` in s/mm2 with what the lengths of the directions say of them, notes and warnings.

    Scanners of one nominal b-value write the gradient's amplitude as the length of its direction; the b-value then
    goes with its square, as MRtrix has it. Where b-values differ from volume to volume, lengths say nothing.

    Raises
    ------
    InputError
        When lengths differ, one b-value is stated, and none of the lengths is 1.
    """
    use = (b >= B0_BELOW) & (norm > 0)
    off = use & (np.abs(norm - 1) > UNIT_NORM)
    if not off.any():
        return b, [], []
    lengths = norm[use]
    shown = f"{lengths.min():.3g} to {lengths.max():.3g}"
    which = f"bvecs of {name_volumes(off)} are not unit vectors (length {norm[off].min():.3g} to {norm[off].max():.3g})"
    kept = f"{which}; normalised, b-values kept"
    if np.ptp(lengths) <= SAME_LENGTH * lengths.max():
        return b, [kept], []
    nominal = len(shells_of(b[use]))
    squared = b * np.where(use, norm, 1.0) ** 2
    if nominal > 1:
        if np.allclose(lengths, np.sqrt(b[use] / b[use].max()) * lengths.max(), rtol=ROUNDING):
            return b, [f"{kept}: the lengths are the square roots of the b-values"], []
        return b, [], [f"{kept}; if lengths scale b, it would be {squared[use].min():.4g} to {squared[use].max():.4g}"]
    few = (np.abs(norm[use] - lengths.max()) > SAME_LENGTH * lengths.max()).sum() < max(2, 0.05 * use.sum())
    stated = b[use].mean()
    if few:
        low = stated * (norm[off].min() / lengths.max()) ** 2
        return b, [], [f"{kept}; b {stated:.4g} there would be {low:.4g} s/mm2 if the length scales it: check the file"]
    if np.abs(lengths.max() - 1) > ROUNDING:
        relative = stated * (lengths.min() / lengths.max()) ** 2
        raise InputError(
            f"bvec file {path} has lengths of {shown} beside one b-value of {stated:.4g} s/mm2, which may be b of the "
            f"length 1 ({squared[use].min():.4g} to {squared[use].max():.4g} s/mm2) or of the longest "
            f"({relative:.4g} to {stated:.4g} s/mm2); write the b-values of the volumes and unit vectors"
        )
    values, counts = np.unique(np.round(squared[use], -1), return_counts=True)
    found = ", ".join(f"{n} x b {v:.0f}" for v, n in list(zip(values, counts, strict=True))[:8])
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    warning = (
        f"shells are in the lengths of the bvecs ({shown}) beside one nominal b {stated:.4g} s/mm2: b scaled by the "
        f"squared length, as MRtrix does ({found}{more}); write unit vectors if b is {stated:.4g} throughout"
    )
    return np.round(squared, 1), [], [warning]


def undirected_volumes(acquisition: Acquisition) -> list[str]:
    """A warning about volumes with b > 0 and no direction among others that have one, for a signal that needs none."""
    without = acquisition.undirected.numpy()
    if acquisition.bval is None or not without.any() or without.sum() == (acquisition.bval > B0_BELOW / 1000).sum():
        return []
    volumes = ",".join(map(str, np.flatnonzero(without)))
    return [
        f"{name_volumes(without)}: b > 0 and no direction (0 0 0), as in a trace-weighted average over directions, and "
        f"counted like any other volume; --drop-volumes {volumes} leaves that out"
    ]
