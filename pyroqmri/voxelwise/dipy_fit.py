"""dipy's own fits behind the same door: the reference that ours are measured against."""

import math

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import DTI, IVIM, MSDKI, BoundSignal

_UNIT = 1e-3  # um2/ms in mm2/s


def dipy_fit(signal: BoundSignal, voxels: Voxels, counts: Tensor | None) -> dict[str, Tensor]:
    """Parameters, each ``(N,)``, as dipy finds them; one voxel after the other.

    Raises
    ------
    InputError
        When dipy has no fit of this signal, or S0 is not inferred, or a parameter is fixed or tied.
    """
    fits = {MSDKI: _msdki, DTI: _dti, IVIM: _ivim}
    if signal.signal not in fits:
        known = ", ".join(s.__name__ for s in fits)
        raise InputError(f"search.engine 'dipy' has no fit of {signal.signal.__name__}, only of {known}: use 'torch'")
    if not signal.infer_s0 or signal.fixed or signal.tied:
        raise InputError("search.engine 'dipy' fits S0 and every parameter: use s0 'inferred', and fix or tie nothing")
    found = fits[signal.signal](signal, voxels.y.double().numpy(), counts)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def _bval(signal: BoundSignal) -> np.ndarray:
    bval = signal.acquisition.bval
    assert bval is not None
    return bval.double().numpy() / _UNIT


def _msdki(signal: BoundSignal, y: np.ndarray, counts: Tensor | None) -> dict[str, np.ndarray]:
    from dipy.reconst.msdki import MIN_POSITIVE_SIGNAL, design_matrix, wls_fit_msdki

    n = np.ones(y.shape[1]) if counts is None else counts.double().numpy()
    y = np.maximum(y, MIN_POSITIVE_SIGNAL)
    found, s0 = wls_fit_msdki(design_matrix(_bval(signal)), y, n, return_S0_hat=True)
    return {"D": found[:, 0] / _UNIT, "K": found[:, 1], "S0": s0}


def _table(signal: BoundSignal, bvec: np.ndarray) -> object:
    from dipy.core.gradients import gradient_table

    bval = _bval(signal)
    return gradient_table(bval, bvecs=np.where(bval[:, None] > 0, bvec, 0), b0_threshold=math.ceil(bval.min()), atol=1)


def _dti(signal: BoundSignal, y: np.ndarray, counts: Tensor | None) -> dict[str, np.ndarray]:
    from dipy.reconst.dti import TensorModel

    bvec = signal.acquisition.bvec
    assert bvec is not None
    fit = TensorModel(_table(signal, bvec.double().numpy()), fit_method="WLS", return_S0_hat=True).fit(y)
    D = fit.quadratic_form / _UNIT
    names = {"Dxx": (0, 0), "Dyy": (1, 1), "Dzz": (2, 2), "Dxy": (0, 1), "Dxz": (0, 2), "Dyz": (1, 2)}
    return {name: D[:, i, j] for name, (i, j) in names.items()} | {"S0": np.asarray(fit.S0_hat)}


def _ivim(signal: BoundSignal, y: np.ndarray, counts: Tensor | None) -> dict[str, np.ndarray]:
    from dipy.reconst.ivim import IvimModel

    axis = np.broadcast_to(np.array([1.0, 0.0, 0.0]), (y.shape[1], 3))
    fit = IvimModel(_table(signal, axis), fit_method="trr").fit(y)
    S0, f, fast, slow = np.moveaxis(np.asarray(fit.model_params), -1, 0)
    return {"S0": S0, "f": f, "D_fast": (fast - slow) / _UNIT, "D_slow": slow / _UNIT}
