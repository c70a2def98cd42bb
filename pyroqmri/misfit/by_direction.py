"""Whether what a signal leaves varies with the direction of the gradient, as a second fibre does."""

import numpy as np
import torch
from scipy import special
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.noise_groups import even_harmonics
from pyroqmri.misfit.residuals import Residuals
from pyroqmri.signals.tensor import exponents

_RIDGE = 0.02  # of a harmonic's mean square: those that the parameters take up count for little
_LEAST = 10  # degrees of freedom beside the harmonics, that noise is measured on
_CLEARER = 20.0  # times: how much likelier noise alone may be once its level is taken from the residuals themselves


def direction_basis(acq: Acquisition, n_free: int) -> Tensor | None:
    """Even harmonics of orders 2 and 4 ``(M, 14)``, or of order 2 ``(M, 5)``, that grow with b; None with too few axes.

    What a second fibre leaves has about one shape on every shell and grows with b: one set of harmonics for all.

    Parameters
    ----------
    n_free
        Parameters of a voxel.
    """
    if acq.bval is None or acq.bvec is None:
        return None
    b, g = acq.bval.double().cpu().numpy(), acq.bvec.double().cpu().numpy()
    for order in (4, 2):
        basis = even_harmonics(g, order)[:, 1:] * (b / max(b.max(), 1e-12))[:, None] * np.any(g, 1)[:, None]
        if int(np.any(g, 1).sum()) - n_free - basis.shape[1] >= _LEAST:
            return torch.from_numpy(basis / np.linalg.norm(basis, axis=0).clip(1e-12))
    return None


def direction_p(found: Residuals, basis: Tensor) -> Tensor:
    """p-value ``(n,)`` that the residuals' power in ``basis`` ``(M, k)`` is that of noise.

    That of chi-squared at the given noise level, raised to a twentieth of that of F, in which the other residuals
    give the noise level: where that is wrong all residuals are large, and those by direction are not singled out.
    """
    basis = found.rooted(basis.to(found.value).mT).mT
    across = found.tangent.mT @ basis
    gram = basis.mT @ basis - across.mT @ across
    ridge = _RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    damped = gram + ridge[:, None, None] * torch.eye(basis.shape[-1]).to(gram)
    power = exponents(found.value, basis.mT)
    solved = torch.linalg.solve(damped, torch.cat([power.unsqueeze(-1), gram], -1))
    statistic = (power * solved[..., 0]).sum(-1).cpu().numpy()
    freedom = solved[..., 1:].diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(0.1).cpu().numpy()
    rest = (found.freedom.cpu().numpy() - freedom).clip(1.0)
    left = (found.value.square().sum(-1).cpu().numpy() - statistic).clip(1e-12)
    by_chi = special.gammaincc(freedom / 2, statistic / 2)
    by_f = special.fdtrc(freedom, rest, (statistic / freedom) / (left / rest))
    return torch.from_numpy(np.maximum(by_chi, by_f / _CLEARER))
