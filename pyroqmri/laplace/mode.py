"""Modes and curvatures of many voxels at once, by Levenberg-Marquardt with Fisher scoring.

What guides start from, and what the classical estimators are made of.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.laplace.measured_s0 import s0_error, s0_slopes
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels

_FIRST_ROUNDS = (2, 2, 4)  # steps for all voxels, then for those that are left


@dataclass(frozen=True)
class Expansion:
    """Log-likelihood to second order: value ``(...)``, gradient ``(..., L)``, Fisher information ``(..., L, L)``."""

    value: Tensor
    gradient: Tensor
    information: Tensor


@dataclass(frozen=True)
class Mode:
    """Modes ``(..., L)`` with the objective ``(...)``, the precision ``(..., L, L)`` and whether each one converged."""

    z: Tensor
    objective: Tensor
    precision: Tensor
    converged: Tensor
    damping: Tensor

    def put(self, index: Tensor, other: "Mode") -> None:
        """Take over the modes of some of the voxels, those at ``index`` of the last batch axis."""
        for name in ("objective", "converged", "damping"):
            getattr(self, name)[..., index] = getattr(other, name)
        self.z[..., index, :] = other.z
        self.precision[..., index, :, :] = other.precision

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factor of the covariance, the inverse of the precision."""
        return inverse_tril(self.precision)


def inverse_tril(precision: Tensor) -> Tensor:
    """Lower Cholesky factor of the inverse of ``precision`` ``(..., L, L)``."""
    flipped = torch.flip(safe_cholesky(torch.flip(precision, (-2, -1))), (-2, -1)).mT
    identity = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return torch.linalg.solve_triangular(flipped, identity.expand_as(flipped), upper=False)


def safe_cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor; a matrix that is not positive definite in float32 gets a larger diagonal."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool((info > 0).any()):
        bad = (info > 0)[..., None, None]
        scale = matrix.diagonal(dim1=-2, dim2=-1).abs().amax(-1)[..., None, None].clamp_min(1e-6)
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        repaired = torch.where(bad, matrix + 1e-3 * scale * identity, matrix)
        factor, info = torch.linalg.cholesky_ex(repaired)
        factor = torch.where((info > 0)[..., None, None], scale.sqrt() * identity, factor)
    return factor


def jacobian(simulate: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(..., M)`` of ``simulate`` at ``z`` ``(..., L)`` and their derivatives ``(..., M, L)``.

    ``simulate`` acts on each voxel alone. Two reverse passes make a forward one:
    the pullback of a dummy cotangent is linear in it, and its own gradient is a
    column. Forward mode says the same and, in torch 2.13, spends milliseconds a call in Python.
    """
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        values = simulate(at)
        cotangent = torch.zeros_like(values, requires_grad=True)
        (pulled,) = torch.autograd.grad(values, at, cotangent, create_graph=True)
        columns = [
            torch.autograd.grad(pulled[..., i].sum(), cotangent, retain_graph=True)[0] for i in range(z.shape[-1])
        ]
    return values.detach(), torch.stack(columns, -1)


def expand(
    simulate: Callable[[Tensor], Tensor],
    likelihood: Likelihood,
    voxels: Voxels,
    z: Tensor,
    slopes: Callable[[Tensor], tuple[Tensor, Tensor] | None] | None = None,
) -> Expansion:
    """Value, gradient and Fisher information at latents ``z`` ``(..., N, L)`` of the log-likelihood of ``simulate(z)``.

    The score and the information of single measurements are closed forms; ``slopes`` answers values and derivatives
    of ``simulate`` where there is a formula for them, and None where there is none.
    """
    known = None if slopes is None else slopes(z.detach())
    signal, slope = jacobian(simulate, z) if known is None else known
    log_prob, score, fisher = likelihood.information(signal, voxels.y, voxels.noise)
    if voxels.weights is not None:
        log_prob, score, fisher = log_prob * voxels.weights, score * voxels.weights, fisher * voxels.weights
    information = slope.mT @ (fisher.unsqueeze(-1) * slope)
    value, variance = log_prob.sum(-1), likelihood.s0_variance(voxels.noise)
    if variance is not None:
        error = s0_error(signal, score, fisher, variance)
        value = value + error.gain
        # along the signal itself the measurements share an error, and tell less
        shared = (slope.mT @ (fisher * signal).unsqueeze(-1)) * error.variance.sqrt()[..., None, None]
        information = information - shared @ shared.mT
        score = score + s0_slopes(signal, score, fisher, error)
    return Expansion(value, (score.unsqueeze(-2) @ slope).squeeze(-2), information)


def find_mode(
    evaluate: Callable[[Tensor], Expansion],
    start: Tensor,
    loc: Tensor,
    precision: Tensor,
    n_steps: int,
    tolerance: float = 1e-4,
    damping: Tensor | None = None,
) -> Mode:
    """Maximise a log-likelihood plus a Gaussian log-prior with mean ``loc`` and ``precision``.

    Parameters
    ----------
    evaluate
        The log-likelihood's expansion at given latents.
    start
        Latents to start from ``(..., L)``.
    loc, precision
        Of the prior, broadcast against ``start``.
    n_steps
        Steps at most; every voxel is damped for itself, and a step is kept only if the objective rises.
    tolerance
        Converged when the Newton decrement, twice the nats still to gain, is below it.
    damping
        To start with ``(...)``; that of an earlier search goes on where it ended.
    """

    def total(z: Tensor) -> tuple[Expansion, Tensor, Tensor]:
        likelihood = evaluate(z)
        pull = (precision @ (z - loc).unsqueeze(-1)).squeeze(-1)
        return likelihood, likelihood.value - ((z - loc) * pull).sum(-1) / 2, likelihood.gradient - pull

    z = start
    now, objective, gradient = total(z)
    curvature = now.information + precision
    damping = torch.full_like(objective, 1e-3) if damping is None else damping
    converged = torch.zeros_like(objective, dtype=torch.bool)
    for _ in range(n_steps):
        diagonal = curvature.diagonal(dim1=-2, dim2=-1)
        damped = curvature + torch.diag_embed(diagonal * damping.unsqueeze(-1))
        factor = safe_cholesky(damped)
        step = torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
        decrement = (gradient * step).sum(-1)
        converged = (decrement < tolerance) & (damping < 1)
        if bool(converged.all()):
            break
        proposal = z + step.clamp(-1, 1)
        then, new_objective, new_gradient = total(proposal)
        better = new_objective > objective
        pick, matrix = better.unsqueeze(-1), better[..., None, None]
        z = torch.where(pick, proposal, z)
        gradient = torch.where(pick, new_gradient, gradient)
        curvature = torch.where(matrix, then.information + precision, curvature)
        objective = torch.where(better, new_objective, objective)
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-6, 1e6)
        # no better point at any length in float32 is a mode as well
        converged = converged | (~better & (decrement < 100 * tolerance))
    return Mode(z, objective, curvature, converged, damping)


def find_modes(
    evaluate: Callable[[Tensor, Tensor], Expansion],
    start: Tensor,
    loc: Tensor,
    precision: Tensor,
    n_steps: int,
    done: Mode | None = None,
) -> Mode:
    """The same of many voxels, of which those that have converged are left alone while others go on.

    Parameters
    ----------
    evaluate
        The expansion at latents ``(..., n, L)`` of the voxels at an index ``(n,)``.
    start
        ``(..., N, L)``.
    done
        The result of an earlier search, which goes on from there.
    """
    every = torch.arange(start.shape[-2], device=start.device)
    for n in _rounds(n_steps):
        if done is None:
            done = find_mode(lambda z: evaluate(z, every), start, loc, precision, n)
            continue
        left = every[(~done.converged).reshape(-1, len(every)).any(0)]
        if len(left) == 0:
            break
        at, damping = done.z[..., left, :], done.damping[..., left]
        done.put(left, find_mode(lambda z, left=left: evaluate(z, left), at, loc, precision, n, damping=damping))
    assert done is not None
    return done


def _rounds(n_steps: int) -> list[int]:
    """Steps of each round."""
    found = []
    for n in _FIRST_ROUNDS:
        if n_steps <= n:
            break
        found.append(n)
        n_steps -= n
    return [*found, n_steps]
