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

_GONE = 0.2  # share of the voxels that have converged from which on it pays to leave them


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

    def put(self, index: Tensor, other: "Mode") -> None:
        """Take over the modes of some of the voxels, those at ``index`` of the last batch axis."""
        self.z[..., index, :] = other.z
        self.precision[..., index, :, :] = other.precision
        self.objective[..., index] = other.objective
        self.converged[..., index] = other.converged

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
        # of a sum, for torch looks at the shape of a given cotangent by importing sympy, which takes 0.7 s
        (pulled,) = torch.autograd.grad((values * cotangent).sum(), at, create_graph=True)
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
    likelihood = likelihood.of(voxels)
    log_prob, score, fisher = likelihood.information(signal, voxels.y, voxels.noise).weighted(voxels.weights)
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
    """
    return find_modes(lambda z, _: evaluate(z), start, loc, precision, n_steps, tolerance, leave=False)


def find_modes(
    evaluate: Callable[[Tensor, Tensor], Expansion],
    start: Tensor,
    loc: Tensor,
    precision: Tensor,
    n_steps: int,
    tolerance: float = 1e-4,
    leave: bool = True,
) -> Mode:
    """The same of many voxels, where those that have converged leave while others go on.

    Parameters
    ----------
    evaluate
        The expansion at latents ``(..., n, L)`` of the voxels at an index ``(n,)``.
    start
        ``(..., N, L)``; ``loc`` and ``precision`` are those of all voxels.
    leave
        False where all are always evaluated.
    """
    left = torch.arange(start.shape[-2] if start.dim() > 1 else 1, device=start.device)
    at = _At.of(evaluate(start, left), start, loc, precision, start.new_full(start.shape[:-1], 1e-3))
    whole = Mode(
        at.z.clone(), at.objective.clone(), at.curvature.clone(), torch.zeros_like(at.damping, dtype=torch.bool)
    )
    converged = whole.converged
    for _ in range(n_steps):
        step, decrement = at.step()
        done = (decrement < tolerance) & (at.damping < 1)
        if bool(done.all()):
            converged, at = done, at.after(step, decrement) if leave else at
            break
        if leave and float((gone := done.reshape(-1, len(left)).all(0)).double().mean()) > _GONE:
            whole.put(left, at.after(step, decrement).mode(done))
            stay = torch.nonzero(~gone).squeeze(-1)
            left, at, step, decrement = left[stay], at[stay], step[..., stay, :], decrement[..., stay]
            done = done[..., stay]
        z = at.z + step.clamp(-1, 1)
        at, better = at.best(_At.of(evaluate(z, left), z, loc, precision, at.damping))
        # no better point at any length in float32 is a mode as well
        converged = done | (~better & (decrement < 100 * tolerance))
    if not leave or len(left) == start.shape[-2]:
        return at.mode(converged)
    whole.put(left, at.mode(converged))
    return whole


@dataclass(frozen=True)
class _At:
    """Where a search stands: latents, the objective with its slope and curvature, and the damping of each voxel."""

    z: Tensor
    objective: Tensor
    gradient: Tensor
    curvature: Tensor
    damping: Tensor

    @classmethod
    def of(cls, found: Expansion, z: Tensor, loc: Tensor, precision: Tensor, damping: Tensor) -> "_At":
        pull = (precision @ (z - loc).unsqueeze(-1)).squeeze(-1)
        objective = found.value - ((z - loc) * pull).sum(-1) / 2
        return cls(z, objective, found.gradient - pull, found.information + precision, damping)

    def __getitem__(self, index: Tensor) -> "_At":
        """Some of the voxels, those at ``index`` of the last batch axis."""
        number, vector = self.objective[..., index], self.z[..., index, :]
        curvature, gradient = self.curvature[..., index, :, :], self.gradient[..., index, :]
        return _At(vector, number, gradient, curvature, self.damping[..., index])

    def step(self) -> tuple[Tensor, Tensor]:
        """The damped step ``(..., L)`` and twice the nats that it promises ``(...)``."""
        diagonal = self.curvature.diagonal(dim1=-2, dim2=-1)
        factor = safe_cholesky(self.curvature + torch.diag_embed(diagonal * self.damping.unsqueeze(-1)))
        step = torch.cholesky_solve(self.gradient.unsqueeze(-1), factor).squeeze(-1)
        return step, (self.gradient * step).sum(-1)

    def after(self, step: Tensor, decrement: Tensor) -> "_At":
        """The end of a last step, a hundredth of a sd, where nothing is evaluated any more."""
        return _At(self.z + step, self.objective + decrement / 2, self.gradient, self.curvature, self.damping)

    def best(self, then: "_At") -> tuple["_At", Tensor]:
        """The better of two points of each voxel, damped accordingly, and where it is the second ``(...)`` bool."""
        better = then.objective > self.objective
        pick = better.unsqueeze(-1)
        found = _At(
            torch.where(pick, then.z, self.z),
            torch.where(better, then.objective, self.objective),
            torch.where(pick, then.gradient, self.gradient),
            torch.where(pick.unsqueeze(-1), then.curvature, self.curvature),
            torch.where(better, self.damping / 8, self.damping * 8).clamp(1e-6, 1e6),
        )
        return found, better

    def mode(self, converged: Tensor) -> Mode:
        """The point as a mode."""
        return Mode(self.z, self.objective, self.curvature, converged)
