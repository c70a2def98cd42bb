"""Levenberg-Marquardt and Fisher scoring inside bounds, many voxels at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.estimators.box import Point, UnitBox
from pyroqmri.estimators.small import positive_definite, solve
from pyroqmri.laplace import HasInformation
from pyroqmri.voxels import Voxels

_TOLERANCE = 1e-6  # nats still to gain; an estimate is then a thousandth of its sd from the mode
_ROUNDS = (6, 10, 20)  # steps until voxels that are done are put aside
_TRIAL = 5  # steps from each start until the best is chosen
_ELEMENTS = 2**17  # simulated measurements at once, which fit a core's cache
_LONGEST = 0.5  # step, in widths of the box and in radians
_H = 1e-4  # of second differences of the log-likelihood


@dataclass(frozen=True)
class Local:
    """Log-likelihood around a point: value ``(N,)``, gradient ``(L, N)``, Fisher information ``(L, L, N)``."""

    value: Tensor
    gradient: Tensor
    information: Tensor

    def where(self, pick: Tensor, other: "Local") -> "Local":
        """The one itself in the voxels of ``pick``, the other elsewhere."""
        return Local(
            torch.where(pick, self.value, other.value),
            torch.where(pick, self.gradient, other.gradient),
            torch.where(pick, self.information, other.information),
        )


def look(box: UnitBox, likelihood: HasInformation, voxels: Voxels, point: Point) -> Local:
    """The log-likelihood to second order; the slopes of single measurements are the likelihood's own."""
    signal, slope = box.slopes(lambda theta: box.signal(theta, voxels.inputs), point)
    log_prob, score, fisher = likelihood.information(signal, voxels.y, voxels.noise)
    if voxels.weights is not None:
        log_prob, score, fisher = log_prob * voxels.weights, score * voxels.weights, fisher * voxels.weights
    ones = signal.new_ones(signal.shape[-1])  # a product with ones sums short rows faster than a sum
    information = signal.new_empty(len(slope), len(slope), len(signal))
    weighted = slope * fisher
    for i in range(len(slope)):
        entries = (slope[: i + 1] * weighted[i]) @ ones
        information[i, : i + 1] = entries
        information[:i, i] = entries[:i]
    return Local(log_prob @ ones, (slope * score) @ ones, information)


def climb(
    box: UnitBox, likelihood: HasInformation, voxels: Voxels, start: Point, n_steps: int
) -> tuple[Point, Local, Tensor]:
    """Modes inside the box, the likelihood there, and whether each voxel converged ``(N,)``.

    Voxels that are done leave: what is left is gathered and goes on together.
    """
    n, at = len(start), start
    damping = torch.full((n,), 1e-3, dtype=start.tissue.dtype, device=start.tissue.device)
    done = torch.zeros(n, dtype=torch.bool, device=damping.device)
    local, spent = None, 0
    every = torch.arange(n, device=damping.device)
    for steps in (*_ROUNDS, n_steps):
        steps = min(steps, n_steps - spent)
        left = every if local is None else every[~done]
        if len(left) == 0 or (steps <= 0 and local is not None):
            break
        newton = local is not None
        size = chunk_size(box, voxels) // (1 + newton)
        for index in left.split(size):
            found = _steps(box, likelihood, voxels[index], at[index], damping[index], steps, newton)
            if local is None:
                at, local = Point(at.tissue.clone(), None if at.axis is None else at.axis.clone()), _empty(box, damping)
            _put(at, local, damping, done, index, found)
        spent += steps
    assert local is not None
    return at, local, done


def best_of(
    box: UnitBox, likelihood: HasInformation, voxels: Voxels, starts: list[Point], n_steps: int
) -> tuple[Point, Tensor]:
    """Modes from the start that leads highest in a few steps, and whether each voxel converged ``(N,)``."""
    chosen, trial = starts[0], min(_TRIAL, n_steps)
    if len(starts) > 1:
        chosen, near, _ = climb(box, likelihood, voxels, starts[0], trial)
        for start in starts[1:]:
            at, then, _ = climb(box, likelihood, voxels, start, trial)
            better = then.value > near.value
            chosen, near = at.where(better, chosen), then.where(better, near)
    at, _, done = climb(box, likelihood, voxels, chosen, n_steps)
    return at, done


def chunk_size(box: UnitBox, voxels: Voxels) -> int:
    """How many voxels to simulate at once."""
    return max(256, _ELEMENTS // ((box.n_latents + 1) * voxels.y.shape[1]))


def _empty(box: UnitBox, like: Tensor) -> Local:
    n, size = box.n_latents, len(like)
    return Local(like.new_zeros(size), like.new_zeros(n, size), like.new_zeros(n, n, size))


def _put(at: Point, local: Local, damping: Tensor, done: Tensor, index: Tensor, found: tuple) -> None:
    point, near, damping[index], done[index] = found
    at.tissue[:, index] = point.tissue
    if at.axis is not None:
        at.axis[index] = point.axis
    local.value[index], local.gradient[:, index] = near.value, near.gradient
    local.information[:, :, index] = near.information


def _steps(
    box: UnitBox, likelihood: HasInformation, voxels: Voxels, at: Point, damping: Tensor, n_steps: int, newton: bool
) -> tuple[Point, Local, Tensor, Tensor]:
    """Up to ``n_steps`` damped steps; each is kept only where the likelihood rises."""
    near = look(box, likelihood, voxels, at)
    done = torch.zeros_like(damping, dtype=torch.bool)
    for _ in range(n_steps):
        information = near.information
        if newton:
            information = _observed(box, likelihood, voxels, at, information)
        step, decrement = _step(box, near.gradient, information, at, damping)
        settled = (decrement < _TOLERANCE) & (damping < 1)
        proposal = box.move(at, step)
        then = look(box, likelihood, voxels, proposal)
        better = then.value > near.value
        # no better point nearby although the slope is all but level: rounding is all that is left
        done |= settled | (~better & (decrement < 100 * _TOLERANCE))
        at, near = proposal.where(better, at), then.where(better, near)
        damping = torch.where(better, damping * 0.1, damping * 5).clamp(1e-7, 1e7)
        if bool(done.all()):
            break
    return at, near, damping, done


def _observed(box: UnitBox, likelihood: HasInformation, voxels: Voxels, at: Point, expected: Tensor) -> Tensor:
    """Minus the second derivatives of the log-likelihood where they are positive definite, the expected ones elsewhere.

    Where residuals are large and the signal bends, Fisher scoring creeps; these steps do not.
    """
    n = box.n_latents
    i, j = torch.tril_indices(n, n, device=expected.device)
    steps = torch.eye(n, dtype=expected.dtype, device=expected.device) * _H
    steps = torch.cat([torch.zeros_like(steps[:1]), steps, steps[i] + steps[j]])
    signal = box.signal(box.theta(box.around(at, steps)), voxels.inputs)
    log_prob = likelihood.information(signal, voxels.y, voxels.noise)[0]
    if voxels.weights is not None:
        log_prob = log_prob * voxels.weights
    value = log_prob.sum(-1)
    inward = box.inward(at)
    observed = torch.empty_like(expected)
    entries = (value[1 + i] + value[1 + j] - value[0] - value[n + 1 :]) / _H**2 * inward[i] * inward[j]
    observed[i, j] = observed[j, i] = entries
    return torch.where(positive_definite(observed), observed, expected)


def _step(box: UnitBox, gradient: Tensor, information: Tensor, at: Point, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The damped step ``(L, N)`` and twice the nats it promises; a parameter that is pressed to its bound rests."""
    t = at.tissue
    free = torch.ones_like(gradient)
    pressed = ((t <= 0) & (gradient[: box.n_tissue] < 0)) | ((t >= 1) & (gradient[: box.n_tissue] > 0))
    free[: box.n_tissue] = (~pressed).to(free)
    gradient = gradient * free
    curvature = information * free * free.unsqueeze(1)
    i = torch.arange(len(free), device=free.device)
    curvature[i, i] = curvature[i, i] * (1 + damping) + (1 - free) + 1e-9
    step = solve(curvature, gradient).clamp(-_LONGEST, _LONGEST)
    return step, (gradient * step).sum(0)
