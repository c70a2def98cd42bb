"""Which images have one protocol."""

from collections.abc import Sequence

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.protocol import compare_protocols

_ROUNDS = 10
SAME_TABLE = 3.0  # degrees between directions that only the correction of head motion has turned


def by_protocol(acquisitions: Sequence[Acquisition], signal: str) -> list[list[int]]:
    """Indices of the acquisitions in groups of one protocol, the largest first.

    Gradient tables that differ by one rotation are the same for a population, whose axes are uniform.
    """
    groups: list[list[int]] = []
    for i, acquisition in enumerate(acquisitions):
        home = next((group for group in groups if _alike(acquisitions[group[0]], acquisition, signal)), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    return sorted(groups, key=len, reverse=True)


def _alike(one: Acquisition, other: Acquisition, signal: str) -> bool:
    try:
        found = compare_protocols(one, other, signal)
    except InputError:
        return False
    if found.difference is not None:
        return False
    return found.same_directions or table_angle(one, other) < SAME_TABLE


def table_angle(one: Acquisition, other: Acquisition) -> float:
    """The largest angle (degrees) between the axes of two gradient tables after the best rotation of one.

    Source: Kabsch 1976, doi:10.1107/S0567739476001873.
    """
    a, b = (acq.settings()["bvec"].double().numpy() for acq in (one, other))
    used = (np.linalg.norm(a, axis=1) > 0.5) & (np.linalg.norm(b, axis=1) > 0.5)
    if not used.any():
        return 0.0
    a, b = a[used], b[used]
    for _ in range(_ROUNDS):  # an axis has no sign: signs and rotation in turn, from tables that are nearly aligned
        b = b * np.where((a * b).sum(1) < 0, -1.0, 1.0)[:, None]
        u, _, vt = np.linalg.svd(b.T @ a)
        b = b @ u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    cosine = np.clip(np.abs((a * b).sum(1)), 0, 1)
    return float(np.degrees(np.arccos(cosine)).max())
