"""Protocols and truths that the comparisons share."""

from collections.abc import Sequence

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals.shells import half_sphere

# Uniform truths of Epstein et al. 2022, arXiv:2205.05587, in um2/ms
EPSTEIN = {"S0": (0.8, 1.2), "f": (0.1, 0.5), "D_fast": (10.0, 150.0), "D_slow": (0.4, 3.0)}

# IVIM truth in clusters: means, sds, weights
IVIM_CLASSES = (
    (
        {"f": 0.15, "D_fast": 40.0, "D_slow": 1.0},
        {"f": 0.30, "D_fast": 90.0, "D_slow": 1.6},
        {"f": 0.40, "D_fast": 30.0, "D_slow": 0.8},
    ),
    ({"f": 0.04, "D_fast": 12.0, "D_slow": 0.2},) * 3,
    (0.4, 0.4, 0.2),
)

# shells of (b in ms/um2, directions), and how many b0 volumes come first
_SHELLS: dict[str, tuple[int, tuple[tuple[float, int], ...]]] = {
    "hcp": (18, ((1.0, 90), (2.0, 90), (3.0, 90))),
    "demo": (13, ((1.0, 30), (2.0, 60))),
    "ball_stick_90": (9, ((1.0, 30), (2.0, 30), (3.0, 30))),
}
_BVALS: dict[str, Sequence[float]] = {
    "A288": [0.0] * 18 + [1.0] * 90 + [2.0] * 90 + [3.0] * 90,
    "A4": [0.0, 1.0, 2.0, 3.0],
    "epstein": [0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.4, 0.8],
}


def protocol(name: str) -> Acquisition:
    """One of the protocols of the benchmarks.

    =============  ==========================================================================
    A288           18 b0 and 90 volumes at each of b = 1, 2, 3 ms/um2; b-values only
    A4             one volume at each of b = 0, 1, 2, 3
    epstein        the ten b-values of Zhao et al. 2015, as in Epstein et al. 2022; b-values only
    hcp            A288 with directions
    demo           13 b0, 30 directions at b = 1, 60 at b = 2, like the scan of the demo
    ball_stick_90  9 b0 and 30 directions at each of b = 1, 2, 3
    =============  ==========================================================================

    Directions are spread evenly and are the same on every call.
    """
    if name in _BVALS:
        return Acquisition(bval=np.array(_BVALS[name]))
    if name not in _SHELLS:
        raise InputError(f"protocol {name!r} is unknown; there are {', '.join([*_BVALS, *_SHELLS])}")
    n_b0, shells = _SHELLS[name]
    bval = np.concatenate([np.zeros(n_b0), *(np.full(n, b) for b, n in shells)])
    bvec = np.concatenate([np.zeros((n_b0, 3)), *(half_sphere(n, i) for i, (_, n) in enumerate(shells))])
    return Acquisition(bval=bval, bvec=bvec)
