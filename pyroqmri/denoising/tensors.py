"""Tensor elements, MD and FA of measurements, by weighted linear least squares."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.shells import shell_indices
from pyroqmri.signals.tensor import ELEMENTS, elements_of, fractional_anisotropy, log_linear_tensor

TENSOR_ELEMENTS = ELEMENTS
_LOW_B = 1.5  # ms/um2; above it the log of the signal is no longer linear in b
_CHUNK = 65_536


def tensor_volumes(acq: Acquisition) -> Tensor | None:
    """Mask ``(M,)`` of the measurements that a tensor is fitted to: b up to 1.5 where they suffice, else all.

    None when the scan has no directions, or fewer than six.
    """
    if acq.bval is None or acq.bvec is None:
        return None
    lowest = torch.zeros(len(acq), dtype=torch.bool)
    lowest[torch.from_numpy(shell_indices(acq.bval)[0])] = True
    for keep in (acq.bval <= _LOW_B, torch.ones(len(acq), dtype=torch.bool)):
        # the fit has its own S0, which needs a second b-value
        if int((keep & ~lowest).sum()) >= 6:
            return keep
    return None


def tensor_quantities(acq: Acquisition, y: Tensor) -> dict[str, Tensor]:
    """The six elements and MD in um2/ms, and FA, each ``(N,)``, of measurements ``(N, M)``; empty without directions.

    Weighted linear least squares on the log signal, weights the squared signal
    (Basser et al. 1994, doi:10.1006/jmrb.1994.1037).
    """
    keep = tensor_volumes(acq)
    if keep is None:
        return {}
    # the fit has its own S0; a voxel whose b0s drown in noise must not be divided by them
    scale = y.amax(-1, keepdim=True).clamp_min(1e-12)
    parts = [log_linear_tensor(acq[keep], (y / scale)[i : i + _CHUNK, keep]) for i in range(0, max(1, len(y)), _CHUNK)]
    d = torch.cat(parts)
    # noise makes eigenvalues negative, which no diffusion has
    fa = fractional_anisotropy(*torch.linalg.eigvalsh(d).clamp_min(0).unbind(-1))
    elements = dict(zip(ELEMENTS, elements_of(d), strict=True))
    return elements | {"MD": d.diagonal(dim1=-2, dim2=-1).mean(-1), "FA": fa}
