"""Residuals of fitted voxels, freed of what an error of the parameters would leave in them."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.laplace.mode import jacobian
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import BoundSignal

_RIDGE = 1e-6  # of a column's square: parameters that a voxel does not determine take nothing up
_STEP = 0.05  # of the noise level: for the slope of the measurements' mean in the signal


@dataclass(frozen=True)
class Residuals:
    r"""Standardised residuals :math:`e = (I - H) r` of n voxels.

    H projects on the M measurements' slopes in the parameters (and in S0 where it is measured), so that to first order
    e does not depend on where in the posterior the fit is looked at, nor on a prior: under a right signal it is noise
    with covariance :math:`I - H`.

    Attributes
    ----------
    value
        e ``(n, M)``.
    tangent
        Orthonormal columns that span the slopes ``(n, M, P)``; shorter than one where a parameter is not determined.
    signal, sd
        Noise-free signal and standard deviation of each measurement ``(n, M)``, in units of S0.
    noise
        Noise level ``(n, 1)`` in the same units.
    weights
        How much each measurement counts ``(n, M)``, by whose root the residuals are multiplied; in full when None.
    """

    value: Tensor
    tangent: Tensor
    signal: Tensor
    sd: Tensor
    noise: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, pick: Tensor) -> "Residuals":
        weights = None if self.weights is None else self.weights[pick]
        return Residuals(
            self.value[pick], self.tangent[pick], self.signal[pick], self.sd[pick], self.noise[pick], weights
        )

    @property
    def leverage(self) -> Tensor:
        """Diagonal of H ``(n, M)``: the share of each measurement's noise that the parameters take up."""
        return self.tangent.square().sum(-1)

    @property
    def freedom(self) -> Tensor:
        """Degrees of freedom that are left ``(n,)``."""
        n = self.value.shape[-1] if self.weights is None else self.weights.sum(-1)
        return n - self.leverage.sum(-1)

    def rooted(self, pattern: Tensor) -> Tensor:
        """A pattern ``(..., M)`` times the roots of the weights ``(n, ..., M)``, as the residuals are."""
        if self.weights is None:
            return pattern
        root = self.weights.sqrt().to(pattern)
        return pattern * (root if pattern.dim() < 2 or pattern.shape == root.shape else root.unsqueeze(-2))

    def free_of_parameters(self, pattern: Tensor) -> Tensor:
        """What is left ``(n, M)`` of a pattern ``(M,)`` or ``(n, M)`` once the parameters have adapted to it."""
        pattern = self.rooted(pattern.expand_as(self.value)).unsqueeze(-1)
        return (pattern - self.tangent @ (self.tangent.mT @ pattern)).squeeze(-1)


@torch.no_grad()
def residuals_at(signal: BoundSignal, likelihood: Likelihood, voxels: Voxels, theta: dict[str, Tensor]) -> Residuals:
    """Residuals of fitted voxels at parameters ``theta`` near their best ones, in float64.

    Parameters
    ----------
    theta
        Physical parameters in the model's units, each ``(n,)``, a direction ``(n, 3)``.
    """
    signal, likelihood = copy.deepcopy(signal).double(), copy.deepcopy(likelihood).double()
    voxels, theta = voxels.map(lambda t: t.double()), {name: value.double() for name, value in theta.items()}
    z, frame = signal.at_axes(signal.unconstrain(theta), theta)
    found = signal.unconstrained_slopes(z, frame, voxels.inputs)
    if found is None:
        found = jacobian(lambda u: signal(signal.constrain(u, frame), voxels.inputs), z)
    clean, slopes = found
    step = _STEP * voxels.noise
    looked = torch.stack([clean, clean + step, (clean - step).abs()])
    # to a hundred-thousandth of the noise, in a tenth of the time of float64
    found = (
        copy.deepcopy(likelihood)
        .float()
        .of(voxels.map(lambda t: t.float()))
        .moments(looked.float(), voxels.noise.float())
    )
    (mean, above, below), variance = found[0].double(), found[1][0].double()
    by_signal = (above - below) / (clean + step - (clean - step).abs())
    if likelihood.n_s0 is not None:
        slopes = torch.cat([slopes, clean.unsqueeze(-1)], -1)
    sd = variance.sqrt()
    root = torch.ones_like(sd) if voxels.weights is None else voxels.weights.sqrt()
    tangent = _orthonormal(slopes * (root * by_signal / sd).unsqueeze(-1))
    raw = (root * (voxels.y - mean) / sd).unsqueeze(-1)
    value = (raw - tangent @ (tangent.mT @ raw)).squeeze(-1)
    return Residuals(value, tangent, clean, sd, voxels.noise, voxels.weights)


def _orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal columns of the span of ``(n, M, P)``; what is not finite, or nothing, spans nothing."""
    columns = columns.nan_to_num(0.0, 0.0, 0.0)
    columns = columns / columns.norm(dim=-2, keepdim=True).clamp_min(1e-9)
    gram = columns.mT @ columns
    gram.diagonal(dim1=-2, dim2=-1).add_(_RIDGE)
    factor = torch.linalg.cholesky(gram)
    return torch.linalg.solve_triangular(factor, columns.mT, upper=False).mT
