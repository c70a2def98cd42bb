"""Where the population starts: expectation-maximisation from several points, the best by evidence."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyroqmri.laplace.mode import Mode
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population, Prior

MIN_MODES = 30  # fewer are not divided
FEW, MANY = 500, 2000  # voxels that starts are compared on, and that the best one goes on with
ROUNDS, FEW_ROUNDS = 40, 20  # at most, at the end and where starts are compared
FIRST_ROUNDS = 2  # before modes are near those of the round before
FIRST_STEPS, STEPS = 6, 2
WEAK_COUNT, WEAK_SD = 5, 0.3  # covariances are drawn this much towards a third of the box, so that no class collapses
FASTER, FASTEST = 1.3, 12.0  # growth and limit of the length of a round, in those of plain expectation-maximisation
PATIENCE, GAIN = 5, 0.005  # rounds that must gain so many nats a voxel together

Laplace = Callable[[Voxels, Population, int, Tensor | None], tuple[Mode, Tensor]]


@torch.no_grad()
def start_population(prior: Prior, laplace: Laplace, voxels: Voxels, starts: Sequence[Tensor]) -> None:
    """Set the population to what expectation-maximisation reaches from the best of several starts.

    Parameters
    ----------
    prior
        Whose population is set in place; the first start is where it is now.
    laplace
        Modes under each class, and log weights of the classes ``(C, N)``; of voxels, a population, steps at most and
        latents ``(C, N, L)`` to start from as well, or None.
    voxels
        Prepared voxels.
    starts
        Modes ``(n, P)`` that ``prior.start`` is to take instead.
    """
    if not any(True for _ in prior.parameters()):
        return
    if starts:
        few = _evenly(voxels, FEW)
        found = [(climb_evidence(prior, laplace, few, FEW_ROUNDS), _values(prior))]
        for modes in starts:
            prior.start(modes)
            found.append((climb_evidence(prior, laplace, few, FEW_ROUNDS), _values(prior)))
        _set(prior, max(found, key=lambda pair: pair[0])[1])
    climb_evidence(prior, laplace, _evenly(voxels, MANY), ROUNDS)


def ends_of_ridge(modes: Tensor) -> list[Tensor]:
    """The lowest and the highest third of modes ``(n, P)`` along the axis on which they differ most.

    Where measurements leave a ridge open, noise spreads the modes all along it and their median is any of its points;
    components that could change places have an optimum at either end.
    """
    if len(modes) < MIN_MODES:
        return []
    some = modes[:: max(1, len(modes) // MANY)]
    offset = (some - some.median(0).values) / some.std(0).clamp_min(1e-6)
    order = (offset @ torch.linalg.eigh(offset.mT @ offset).eigenvectors[:, -1]).argsort()
    third = len(order) // 3
    return [some[order[:third]], some[order[-third:]]]


@torch.no_grad()
def climb_evidence(prior: Prior, laplace: Laplace, voxels: Voxels, rounds: int) -> float:
    """Expectation-maximisation with Laplace approximations in place of the posterior; mean log evidence a voxel.

    Where data leave much open it is slow: each round goes further than its own maximum for as long as the evidence
    rises, and back to that maximum where it falls. Each round's modes start at those of the round before.

    Source: Salakhutdinov & Roweis 2003, "Adaptive overrelaxed bound optimization methods", ICML.
    """
    near, length, best, plain, trace = None, 1.0, -torch.inf, _values(prior), list[float]()
    for round_ in range(rounds):
        modes, logits = laplace(voxels, prior.classes(), FIRST_STEPS if round_ < FIRST_ROUNDS else STEPS, near)
        evidence = float(logits.logsumexp(0).nanmean())
        if not evidence >= best and length > 1:
            _set(prior, plain)
            length, best = 1.0, -torch.inf
            continue
        best, near = evidence, modes.z
        trace.append(evidence)
        if len(trace) > PATIENCE and trace[-1] - trace[-1 - PATIENCE] < GAIN:
            break
        before = _values(prior)
        _maximise(prior, modes, logits)
        plain = _values(prior)
        _set(prior, [old + length * (new - old) for old, new in zip(before, plain, strict=True)])
        length = min(length * FASTER, FASTEST) if round_ > FIRST_ROUNDS else length
    _set(prior, plain)
    return max(trace)


def _maximise(prior: Prior, modes: Mode, logits: Tensor) -> None:
    """Set the population to moments of the posteriors of all voxels."""
    n = prior.n_tissue
    z, tril = modes.z[..., :n], modes.scale_tril[..., :n, :]
    # a voxel without a finite mode says nothing of the population
    whole = (z.isfinite().all(-1) & tril.isfinite().all(-1).all(-1) & ~logits.isnan()).all(0)
    z, tril, share = z[:, whole], tril[:, whole], logits[:, whole].softmax(0)
    total = share.sum(-1)
    loc = (share.unsqueeze(-1) * z).sum(1) / total.unsqueeze(-1).clamp_min(1e-3)
    offset = z - loc.unsqueeze(1)
    scatter = tril @ tril.mT + offset.unsqueeze(-1) * offset.unsqueeze(-2)
    weak = WEAK_COUNT * WEAK_SD**2 * torch.eye(n, dtype=z.dtype, device=z.device)
    covariance = ((share[..., None, None] * scatter).sum(1) + weak) / (total[:, None, None] + WEAK_COUNT)
    prior.update((total + 1) / (total + 1).sum(), loc, covariance)


def _evenly(voxels: Voxels, n: int) -> Voxels:
    return voxels[torch.linspace(0, len(voxels) - 1, min(n, len(voxels))).long().to(voxels.y.device)]


def _values(prior: Prior) -> list[Tensor]:
    return [p.detach().clone() for p in prior.parameters()]


def _set(prior: Prior, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(prior.parameters(), values, strict=True):
        parameter.copy_(value)
