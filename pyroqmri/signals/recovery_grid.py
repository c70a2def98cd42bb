"""The best recovery a + b exp(-t/T1) of each voxel: amplitudes in closed form over a grid of T1 and polarities."""

import math

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition

_SHORTEST, _LONGEST, _TIMES = 10.0, 6000.0, 96  # ms: a grid of times 7 % apart
_CHUNK = 4096  # voxels


def best_recovery(acq: Acquisition, y: Tensor, signed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Time constant, a and b, each ``(N,)``, of least squares with a above and b below zero.

    Parameters
    ----------
    acq, y
        Settings with the times after the inversion, and measurements ``(N, M)`` of any scale.
    signed
        Whether measurements keep their sign; magnitudes are tried with the first 0 to M of them turned.

    Source: the reduced-dimension grid of Barral et al. 2010, doi:10.1002/mrm.22497.
    """
    assert acq.ti is not None
    t, given, y = acq.ti, y, y.float()  # a start needs no more digits
    grid = torch.exp(torch.linspace(math.log(_SHORTEST), math.log(_LONGEST), _TIMES, dtype=y.dtype, device=y.device))
    decay = torch.exp(-t.to(y) / grid.unsqueeze(-1))
    design = torch.stack([torch.ones_like(decay), decay], -1)
    basis = torch.linalg.qr(design)[0]  # (G, M, 2)
    inverse = torch.linalg.pinv(design)  # (G, 2, M)
    rank = t.argsort().argsort().to(y)
    turned = [0] if signed else range(len(t) + 1)
    signs = torch.stack([torch.where(rank < k, -1.0, 1.0) for k in turned]).to(y)
    parts = [_best(part, grid, basis, inverse, signs) for part in y.split(_CHUNK)]
    found = torch.cat(parts).to(given)
    return found[:, 0], found[:, 1], found[:, 2]


def _best(y: Tensor, grid: Tensor, basis: Tensor, inverse: Tensor, signs: Tensor) -> Tensor:
    most = y.new_full((len(y),), -torch.inf)
    # where no recovery has such amplitudes: half recovered at the middle of the grid
    best = torch.stack([grid[len(grid) // 2].expand(len(y)), y.abs().amax(-1), -y.abs().amax(-1)], -1)
    for sign in signs:
        own = y * sign
        explained = torch.einsum("nm,gmc->ngc", own, basis).square().sum(-1)
        a, b = torch.einsum("nm,gcm->cng", own, inverse)
        explained = explained.masked_fill((a <= 0) | (b >= 0), -torch.inf)
        at = explained.argmax(-1)
        value = _peak(explained, at)
        chosen = torch.stack([grid[at], *(x.gather(-1, at.unsqueeze(-1)).squeeze(-1) for x in (a, b))], -1)
        best = torch.where((value > most).unsqueeze(-1), chosen, best)
        most = torch.maximum(most, value)
    return best


def _peak(values: Tensor, at: Tensor) -> Tensor:
    """Height ``(N,)`` of the parabola through the largest of ``values`` ``(N, G)`` and those beside it.

    Polarities differ by less than steps of the grid do where a measurement is near zero.
    """
    middle = at.clamp(1, values.shape[-1] - 2).unsqueeze(-1)
    before, top, after = (values.gather(-1, middle + step).squeeze(-1) for step in (-1, 0, 1))
    bend = 2 * top - before - after
    height = top + (before - after).square() / (8 * bend)
    return torch.where((middle.squeeze(-1) == at) & (bend > 0) & height.isfinite(), height, values.amax(-1))
