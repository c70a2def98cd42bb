"""Levenberg-Marquardt and Fisher scoring inside bounds, many voxels at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.estimators.box import Point, UnitBox
from pyroqmri.estimators.small import positive_definite, solve
from pyroqmri.laplace import HasInformation
from pyroqmri.voxels import Voxels

_TOLERANCE = 1e-6  # nats still to gain; an estimate is then a thousandth of its sd from the mode
_ROUND = 4  # steps until voxels that are done leave
_TRIAL = 5  # steps from each start until the best is chosen
_ALONE = 9  # of Fisher scoring, which is cheaper than Newton's steps, where there is one start
_ELEMENTS = 2**18  # simulated measurements at once, which fit a core's cache
_LONGEST = 0.5  # step, in widths of the box and in radians


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


def look(box: UnitBox, likelihood: HasInformation, voxels: Voxels, point: Point, bent: bool = False) -> Local:
    """The log-likelihood to second order; the slopes of single measurements are the likelihood's own.

    With ``bent`` the information counts how the signal bends, where it stays positive definite.
    """

    def simulate(theta: dict[str, Tensor]) -> Tensor:
        return box.signal(theta, voxels.inputs)

    signal, slope = box.slopes(simulate, point)
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
    if bent:
        i, j = torch.tril_indices(len(slope), len(slope), device=signal.device)
        bend = (box.bends(simulate, point, signal, slope).mul_(score)) @ ones
        observed = information.clone()
        observed[i, j] = observed[j, i] = information[i, j] - bend
        information = torch.where(positive_definite(observed), observed, information)
    return Local(log_prob @ ones, (slope * score) @ ones, information)


def climb(
    box: UnitBox, likelihood: HasInformation, voxels: Voxels, start: Point, rounds: Sequence[int], bent: bool
) -> tuple[Point, Tensor, Tensor]:
    """Modes inside the box, the log-likelihood there, and whether each voxel converged ``(N,)``.

    Between rounds of so many steps voxels that are done leave: what is left is gathered and goes on together.
    Steps are Fisher scoring's; with ``bent`` Newton's, which do not creep where residuals are large.
    """
    at = Point(start.tissue.clone(), None if start.axis is None else start.axis.clone())
    value, done = at.tissue.new_zeros(len(at)), torch.zeros(len(at), dtype=torch.bool, device=at.tissue.device)
    damping = torch.full_like(value, 1e-3)
    size = max(256, chunk_size(box, voxels) // (1 + box.n_latents // 2 if bent else 1))
    left = torch.arange(len(at), device=value.device)
    for steps in rounds:
        for index in left.split(size):
            found = _steps(box, likelihood, voxels[index], at[index], damping[index], steps, bent)
            point, value[index], damping[index], done[index] = found
            at.tissue[:, index] = point.tissue
            if at.axis is not None and point.axis is not None:
                at.axis[index] = point.axis
        left = left[~done[left]]
        if len(left) == 0:
            break
    return at, value, done


def best_of(
    box: UnitBox, likelihood: HasInformation, voxels: Voxels, starts: Sequence[Point], n_steps: int
) -> tuple[Point, Tensor]:
    """Modes from the start that leads highest in a few steps, and whether each voxel converged ``(N,)``."""
    trial = (min(_TRIAL if len(starts) > 1 else _ALONE, n_steps),)
    at, value, done = climb(box, likelihood, voxels, starts[0], trial, bent=False)
    for start in starts[1:]:
        other, then, ended = climb(box, likelihood, voxels, start, trial, bent=False)
        better = then > value
        at, value, done = other.where(better, at), torch.where(better, then, value), torch.where(better, ended, done)
    left = torch.nonzero(~done).squeeze(-1)
    rest = n_steps - trial[0]
    if rest < 1 or len(left) == 0:
        return at, done
    rounds = [min(_ROUND, rest - spent) for spent in range(0, rest, _ROUND)]
    point, _, done[left] = climb(box, likelihood, voxels[left], at[left], rounds, bent=True)
    at.tissue[:, left] = point.tissue
    if at.axis is not None and point.axis is not None:
        at.axis[left] = point.axis
    return at, done


def chunk_size(box: UnitBox, voxels: Voxels) -> int:
    """How many voxels to simulate at once."""
    return max(256, _ELEMENTS // ((box.n_latents + 1) * voxels.y.shape[1]))


def _steps(
    box: UnitBox, likelihood: HasInformation, voxels: Voxels, at: Point, damping: Tensor, n_steps: int, bent: bool
) -> tuple[Point, Tensor, Tensor, Tensor]:
    """Up to ``n_steps`` damped steps; each is kept only where the likelihood rises."""
    near = look(box, likelihood, voxels, at, bent)
    done = torch.zeros_like(damping, dtype=torch.bool)
    for _ in range(n_steps):
        step, decrement = _step(box, near.gradient, near.information, at, damping)
        settled = (decrement < _TOLERANCE) & (damping < 1)
        proposal = box.move(at, step)
        then = look(box, likelihood, voxels, proposal, bent)
        better = then.value > near.value
        # no better point at any length: rounding is all that is left
        done |= settled | (~better & (damping > 1e4))
        at, near = proposal.where(better, at), then.where(better, near)
        damping = torch.where(better, damping * 0.1, damping * 5).clamp(1e-7, 1e7)
        if bool(done.all()):
            break
    return at, near.value, damping, done


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
    step = solve(curvature, gradient)
    decrement = (gradient * step).sum(0)
    return step * (_LONGEST / step.abs().amax(0).clamp_min(_LONGEST)), decrement
