"""Protocols to simulate when nobody names one: a common scan for each signal."""

from collections.abc import Callable

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals.base import SignalModel

Settings = dict[str, np.ndarray]

_N_B0, _N_DIRECTIONS = 6, 30


def default_protocol(signal: type[SignalModel]) -> Acquisition:
    """A protocol that is common for a signal at 3 T; the same on every call.

    =======================  ================================================================================
    MSDKI, BallStick         6 b0 and 30 directions at each of b = 1, 2, 3 ms/um2
    DTI                      6 b0 and 30 directions at b = 1
    IVIM                     the ten b-values of Epstein et al. 2022, arXiv:2205.05587, four times each
    T2ADC                    b = 0, 0.5, 1, 2 at each of TE = 60, 80, 100, 140 ms
    T1Inversion (Signed)     eight TI from 50 to 4500 ms, TR = 6000 ms
    T1VFA                    flip angles of 2, 4, 8, 12, 16, 20 degrees, TR = 15 ms
    T2Decay, T2Floor         32 echoes, 10 ms apart
    T2Biexp                  the same
    CESTLorentz              300 ppm twice, and -8 to 8 ppm in steps of 0.25
    =======================  ================================================================================

    Raises
    ------
    InputError
        When there is none for the signal.
    """
    make = _PROTOCOLS.get(signal.__name__)
    if make is None:
        needs = ", ".join(f"--{name}" for name in signal.requires)
        raise InputError(f"no protocol was given and {signal.__name__} has no default one; give files with {needs}")
    return Acquisition(**{name: torch.as_tensor(v, dtype=torch.float32) for name, v in make().items()})


def axes(n: int, turn: int = 0) -> np.ndarray:
    """``n`` well spread axes ``(n, 3)`` along a Fibonacci spiral; ``turn`` rotates it, one step a shell."""
    z = (np.arange(n) + 0.5) / n
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(n) + turn
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], -1)


def _shells(*bvals: float) -> Settings:
    bval = np.concatenate([np.zeros(_N_B0), np.repeat(bvals, _N_DIRECTIONS)])
    bvec = np.concatenate([np.zeros((_N_B0, 3)), *(axes(_N_DIRECTIONS, i) for i in range(len(bvals)))])
    return {"bval": bval, "bvec": bvec}


def _three_shells() -> Settings:
    return _shells(1.0, 2.0, 3.0)


def _one_shell() -> Settings:
    return _shells(1.0)


def _perfusion() -> Settings:
    return {"bval": np.repeat([0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.4, 0.8], 4)}


def _diffusion_and_echoes() -> Settings:
    te, bval = np.meshgrid([60.0, 80, 100, 140], [0.0, 0.5, 1, 2], indexing="ij")
    return {"bval": bval.ravel(), "te": te.ravel()}


def _inversion() -> Settings:
    return {"ti": np.array([50.0, 150, 300, 600, 1000, 1700, 2800, 4500]), "tr": np.full(8, 6000.0)}


def _flips() -> Settings:
    return {"flip": np.radians([2.0, 4, 8, 12, 16, 20]), "tr": np.full(6, 15.0)}


def _echoes() -> Settings:
    return {"te": 10.0 * np.arange(1, 33)}


def _saturation() -> Settings:
    return {"offset": np.concatenate([[300.0, 300.0], np.arange(-8, 8.25, 0.25)])}


# by the name of the signal model, like TISSUE
_PROTOCOLS: dict[str, Callable[[], Settings]] = {
    "MSDKI": _three_shells,
    "BallStick": _three_shells,
    "DTI": _one_shell,
    "IVIM": _perfusion,
    "T2ADC": _diffusion_and_echoes,
    "T1Inversion": _inversion,
    "T1InversionSigned": _inversion,
    "T1VFA": _flips,
    "T2Decay": _echoes,
    "T2Floor": _echoes,
    "T2Biexp": _echoes,
    "CESTLorentz": _saturation,
}
