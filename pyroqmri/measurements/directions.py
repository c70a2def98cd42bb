"""Whether the directions of a scan do what a signal needs."""

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.measurements.s0 import s0_volumes
from pyroqmri.signals import SignalModel

MOST = 0.05  # sd over fibre directions of a shell's mean, of its mean
_F, _D_STICK, _D_BALL = 0.6, 1.9, 0.9  # typical white matter, um2/ms
_N_FIBRES = 200
_BIAS = 0.015  # of diffusivities


def direction_warnings(signal: type[SignalModel], acq: Acquisition, preparation: Preparation) -> list[str]:
    """Sentences on directions that are too few, or missing where the signal needs them."""
    return [*_few(acq, preparation), *_missing(signal, acq)]


def _missing(signal: type[SignalModel], acq: Acquisition) -> list[str]:
    """A sentence where weighted volumes without a direction pass for S0, and there are no others; else nothing."""
    if "bvec" not in signal.requires or acq.bval is None or acq.bvec is None:
        return []
    still = (acq.bvec == 0).all(-1)
    if not still.any() or still.all() or s0_volumes(acq, signal.negligible_b).any():
        return []
    lowest = float(acq.bval[still].min())
    bias = lowest / float(acq.bval[~still].median())
    if bias < _BIAS:
        return []
    return [
        f"{int(still.sum())} volumes at b {1000 * lowest:.4g} s/mm2 have no direction (0 0 0), so {signal.__name__} "
        f"takes them for S0: diffusivities come out {bias:.0%} too low; give their directions in the bvec file"
    ]


def _few(acq: Acquisition, preparation: Preparation) -> list[str]:
    """A sentence where the mean over a shell's directions depends on the direction of fibres; else nothing."""
    if not preparation.average or acq.bval is None or acq.bvec is None:
        return []
    b, g = acq.bval.double().numpy(), acq.bvec.double().numpy()
    shells = [group.numpy() for group in preparation.seen(acq).groups]
    spread = np.array([_spread(b[shell], g[shell]) for shell in shells])
    if spread.max() <= MOST:
        return []
    worst = shells[int(spread.argmax())]
    return [
        f"a mean over few directions is no powder average: {int((spread > MOST).sum())} of {len(shells)} b-values, the "
        f"worst b {1000 * b[worst].mean():.4g} s/mm2 with {len(worst)} directions, where the mean in white matter "
        f"varies by {spread.max():.0%} with the fibres' direction; leave such b-values out, or use a signal with "
        "directions (dti, ball_stick)"
    ]


def _spread(b: np.ndarray, g: np.ndarray) -> float:
    """Relative sd over fibre directions of the mean over measurements at b ``(n,)``, ``g`` ``(n, 3)``."""
    if not g.any():
        return 0.0
    i = np.arange(_N_FIBRES) + 0.5
    z, azimuth = i / _N_FIBRES, np.pi * (1 + 5**0.5) * i
    fibres = np.stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z], 1)
    along = np.square(fibres @ g.T)
    mean = (_F * np.exp(-b * _D_STICK * along) + (1 - _F) * np.exp(-b * _D_BALL)).mean(1)
    return float(mean.std() / mean.mean())
