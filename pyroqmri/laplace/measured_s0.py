r"""The error of a measured S0, averaged over.

Where voxels are divided by a measured :math:`\hat S_0`, all measurements of a voxel share its error:
:math:`y \sim p(y \mid \kappa S(\theta))` with :math:`\kappa = S_0 / \hat S_0 \sim \mathcal N(1, \tau^2)` and
:math:`\tau^2 = \sigma^2 / n` after n measurements without encoding, in units of S0. With the log-likelihood
quadratic in :math:`\kappa` (it is, for Gaussian noise; Fisher scoring otherwise) the integral over it is closed:

.. math::
    \log \int p(y \mid \kappa S)\, p(\kappa)\, d\kappa = \log p(y \mid S)
    + \tfrac12 v g^2 - \tfrac12 \log(1 + \tau^2 h), \qquad v = \frac{\tau^2}{1 + \tau^2 h}

with :math:`g = \sum_m S_m\, \partial_{S_m} \log p` and :math:`h = \sum_m S_m^2 I_m`.
"""

from typing import NamedTuple

from torch import Tensor


class S0Error(NamedTuple):
    """What averaging over the error of S0 adds, and what a voxel's own measurements say of the error.

    ``gain`` is added to the log-likelihood; ``shift`` and ``variance`` are mean and variance of
    kappa - 1 given the parameters. Each ``(..., N)``.
    """

    gain: Tensor
    shift: Tensor
    variance: Tensor


def s0_error(signal: Tensor, score: Tensor, fisher: Tensor, variance: Tensor) -> S0Error:
    """Average over an error of S0 of ``variance`` ``(N,)``, at signals ``(..., N, M)``, with score and information.

    The two are times the measurements' weights, where they have any.
    """
    g = (signal * score).sum(-1)
    h = (signal.square() * fisher).sum(-1)
    v = variance / (1 + variance * h)
    return S0Error((v * g.square() - (variance * h).log1p()) / 2, v * g, v)


def s0_slopes(signal: Tensor, score: Tensor, fisher: Tensor, error: S0Error) -> Tensor:
    """Derivative of the gain in each signal ``(..., N, M)``, with the Fisher information for the curvature."""
    curvature = signal * fisher
    shift, variance = error.shift.unsqueeze(-1), error.variance.unsqueeze(-1)
    return shift * (score - curvature) - (variance + shift.square()) * curvature
