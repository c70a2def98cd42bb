"""Levenberg-Marquardt and Fisher scoring inside bounds, many voxels at once."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import torch
from torch import Tensor

from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.voxelwise.cholesky import positive_definite, solve
from pyroqmri.voxelwise.unit_box import Point, UnitBox, products, summed

# nats still to gain: an estimate is then a thousandth of its sd from the mode; float32 only comes near
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
# rounds of so many steps: Fisher scoring's, or Newton's, which cost more and do not creep where residuals are large
Rounds = Sequence[tuple[int, bool]]
_TRIAL = ((5, False),)  # from each start, until the best is chosen
_NEWTON = (4, True)
_ROUGH = ((4, False), (4, False), _NEWTON, _NEWTON, _NEWTON)  # in float32
LARGE = 12  # unknowns, from which Newton's steps cost more than they save
_LONG = (20, False)
_STALLED = 1e-3  # nats that such a round has to gain: at bounds that depend on one another the last steps creep
_EXACT = ((1, False), (1, False), (2, False))  # then Newton's
_BYTES = 2**21  # of simulated measurements at once, which fit a core's cache
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


@dataclass(frozen=True)
class Problem:
    """What is maximised: the log-likelihood of N voxels over the box of a signal."""

    box: UnitBox
    likelihood: Likelihood
    voxels: Voxels

    def __len__(self) -> int:
        return len(self.voxels)

    def __getitem__(self, index: Tensor) -> "Problem":
        return Problem(self.box, self.likelihood, self.voxels[index])

    def to(self, dtype: torch.dtype) -> "Problem":
        """The same problem in another precision."""
        likelihood = copy.deepcopy(self.likelihood).to(dtype)
        return Problem(self.box.to(dtype), likelihood, self.voxels.map(lambda t: t.to(dtype)))

    def look(self, point: Point, bent: bool = False) -> Local:
        """The log-likelihood to second order; the slopes of single measurements are the likelihood's own.

        With ``bent`` the information counts how the signal bends, where it stays positive definite.
        """
        voxels = self.voxels
        signal, slope = self.box.signal_slopes(point, voxels.inputs)
        found = self.likelihood.of(voxels).information(signal, voxels.y, voxels.noise)
        log_prob, score, fisher = found.weighted(voxels.weights)
        information = products(slope, slope * fisher)
        gradient = summed(slope, score)
        if bent:
            observed = information - self.box.bends(point, voxels.inputs, score, gradient)
            information = torch.where(positive_definite(observed), observed, information)
        return Local(log_prob.sum(-1), gradient, information)


def climb(problem: Problem, start: Point, rounds: Rounds) -> tuple[Point, Tensor, Tensor]:
    """Modes inside the box, the log-likelihood there, and whether each voxel converged ``(N,)``.

    After each round voxels that are done leave: what is left is gathered and goes on together.
    """
    at = Point(start.tissue.clone(), None if start.axis is None else start.axis.clone())
    value, done = at.tissue.new_zeros(len(at)), torch.zeros(len(at), dtype=torch.bool, device=at.tissue.device)
    damping = torch.full_like(value, 1e-3)
    left = torch.arange(len(at), device=value.device)
    for i, (steps, bent) in enumerate(rounds):
        size = max(256, chunk_size(problem.box, problem.voxels) // (1 + problem.box.n_latents // 2 if bent else 1))
        for index in left.split(size):
            before = value[index]
            found = _steps(problem[index], at[index], damping[index], steps, bent)
            point, value[index], damping[index], done[index] = found
            at.put(index, point)
            done[index] |= ((steps, bent) == _LONG) & (i > 0) & (value[index] - before < _STALLED)
        left = left[~done[left]]
        if len(left) == 0:
            break
    return at, value, done


def best_of(problem: Problem, starts: Sequence[Point], n_steps: int) -> tuple[Point, Tensor]:
    """Modes from the start that leads highest in a few steps, and whether each voxel converged ``(N,)``.

    The way there is walked in float32, which takes half the time; no more than half of the steps are.
    """
    large = problem.box.n_latents > LARGE or len(problem.box.signal.directions) > 1
    if large and len(starts) == 1:
        at, _, done = climb(problem, starts[0].to(problem.voxels.y.dtype), _at_most(n_steps, repeat(_LONG)))
        return at, done
    rough, most = problem.to(torch.float32), n_steps // 2
    trial = _at_most(most, _TRIAL)
    at, value, done = climb(rough, starts[0], trial)
    for start in starts[1:]:
        other, then, ended = climb(rough, start, trial)
        better = then > value
        at, value, done = other.where(better, at), torch.where(better, then, value), torch.where(better, ended, done)
    left = torch.nonzero(~done).squeeze(-1)
    more = _at_most(most - _length(trial), _ROUGH)
    at.put(left, climb(rough[left], at[left], more)[0])
    rest = _at_most(n_steps - _length(trial) - _length(more), chain(_EXACT, repeat(_NEWTON)))
    at, _, done = climb(problem, at.to(problem.voxels.y.dtype), rest)
    return at, done


def _length(rounds: Rounds) -> int:
    return sum(steps for steps, _ in rounds)


def _at_most(n_steps: int, rounds: Iterable[tuple[int, bool]]) -> Rounds:
    """Rounds as far as so many steps go; none is a look without a step."""
    found: list[tuple[int, bool]] = []
    for steps, bent in rounds:
        found.append((min(steps, n_steps), bent))
        n_steps -= found[-1][0]
        if n_steps == 0:
            break
    return found


def chunk_size(box: UnitBox, voxels: Voxels) -> int:
    """How many voxels to simulate at once."""
    return max(256, _BYTES // ((box.n_latents + 1) * voxels.y.shape[1] * voxels.y.element_size()))


def _steps(
    problem: Problem, at: Point, damping: Tensor, n_steps: int, bent: bool
) -> tuple[Point, Tensor, Tensor, Tensor]:
    """Up to ``n_steps`` damped steps; each is kept only where the likelihood rises."""
    box, near = problem.box, problem.look(at, bent)
    done = torch.zeros_like(damping, dtype=torch.bool)
    for k in range(n_steps + 1):
        step, decrement = _step(box, near.gradient, near.information, at, damping)
        done |= (decrement < _TOLERANCE[damping.dtype]) & (damping < 1)
        if k == n_steps or bool(done.all()):
            break
        proposal = box.move(at, step)
        then = problem.look(proposal, bent)
        better = then.value > near.value
        done |= ~better & (damping > 1e4)  # no better point at any length: rounding is all that is left
        at, near = proposal.where(better, at), then.where(better, near)
        damping = torch.where(better, damping * 0.1, damping * 10).clamp(1e-4, 1e7)
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
