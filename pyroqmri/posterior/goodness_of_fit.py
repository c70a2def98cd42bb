"""How well the signal that was found describes a voxel's measurements."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

P_MISFIT = 0.001  # p-values below are a misfit
FEW = 0.1  # share of the measurements that are few at most: one of ten, none of two shell means


class GoodnessOfFit(NamedTuple):
    """What measurements say against a fit, each ``(N,)``.

    Attributes
    ----------
    ppc
        p-value of the standardised residual sum of squares.
    residual
        Root-mean-square residual in units of the noise: 1 where noise is all there is.
    few
        1.0 where the p-value is below .001 because of few measurements: without them the others fit.
    direction
        p-value of the residuals' power by gradient direction; None where directions are too few for it.
    unlike
        p-value of the distance from the population that the voxel is drawn towards; None without a learned Gaussian.
    """

    ppc: Tensor
    residual: Tensor
    few: Tensor
    direction: Tensor | None = None
    unlike: Tensor | None = None

    @classmethod
    def gathered(cls, kept: Mapping[str, Tensor], place: Callable[[Tensor], Tensor] = lambda x: x) -> "GoodnessOfFit":
        """What is kept by name, each put in its ``place``."""
        return cls(**{what: place(kept[what]) for what in cls._fields if what in kept})

    def found(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {what: value for what, value in self._asdict().items() if value is not None}


def judge_fit(discrepancy: Tensor, freedom: float | Tensor, residuals: Callable[[Tensor], Tensor]) -> GoodnessOfFit:
    """Judge S answers to n voxels.

    Parameters
    ----------
    discrepancy
        Standardised residual sums of squares ``(S, n)``.
    freedom
        Degrees of freedom of each sum, a number or ``(n,)``: measurements, less the parameters that were fitted to
        them; those that count in part count as that part.
    residuals
        Standardised residuals ``(k, M)`` at the best answer to voxels ``index`` ``(k,)``; asked of misfits only.
    """
    half = torch.as_tensor(freedom).to(discrepancy).expand_as(discrepancy) / 2
    p = torch.special.gammaincc(half, discrepancy / 2).mean(0)
    few = torch.zeros_like(p)
    misfit = (p < P_MISFIT).nonzero().squeeze(-1)
    if len(misfit):
        few[misfit] = few_stand_out(residuals(misfit), freedom[misfit] if isinstance(freedom, Tensor) else freedom).to(
            p
        )
    return GoodnessOfFit(p, (discrepancy.mean(0) / freedom).sqrt(), few)


def few_stand_out(residuals: Tensor, freedom: float | Tensor) -> Tensor:
    """Whether few of the M measurements are all that does not fit ``(n,)``.

    A measurement stands out where noise would put any of the M in one voxel of 1,000; without those that do, a tenth
    of all at most, the rest must fit.

    Parameters
    ----------
    residuals
        Standardised residuals ``(n, M)``.
    freedom
        Degrees of freedom of their sum of squares.
    """
    limit = -torch.special.ndtri(torch.tensor(P_MISFIT / (2 * residuals.shape[-1]), dtype=torch.float64))
    out = residuals.abs() > limit
    n_out = out.sum(-1)
    left = (freedom - n_out).clamp_min(1).to(residuals)
    rest = residuals.masked_fill(out, 0.0).square().sum(-1)
    few = (n_out > 0) & (n_out <= FEW * residuals.shape[-1])
    return few & (torch.special.gammaincc(left / 2, rest / 2) >= P_MISFIT)
