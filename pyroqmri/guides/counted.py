"""The posterior of a signal whose parts are counted: a mode for each number of them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.guides.base import Guide
from pyroqmri.guides.structured import precision_of
from pyroqmri.laplace.mode import Mode, find_mode
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import frame_around
from pyroqmri.priors import Counted as CountedPrior
from pyroqmri.priors import Population
from pyroqmri.voxel_model import VoxelModel

CHUNK = 512  # voxels whose modes are searched together
ROUNDS, VOXELS = 4, 600  # of expectation-maximisation, and voxels that it looks at
ALIKE = 0.05  # half the relative difference of two fractions that change places
PLAUSIBLE, LEAST = 8.0, 0.04  # nats below the best component, and the share of points of one that is less far
FIRST = 0.06  # fraction that an added part starts with
SMALL, SMALL_SD, SMALL_SHARE = -1.3, 0.8, 0.15  # latents of a fraction too small for an axis, and odds of that


class Counted(Guide):
    r"""Laplace approximation under each number of parts, weighted by its evidence.

    .. math:: q(z \mid y) \propto \sum_c w_c\, p(y \mid u_c)\, p(u_c \mid c)\, |T_c|\;
              \mathcal N(z; u_c, T_c T_c^\top)

    Each class has a further component in which its last part is small and its axis anywhere, which no normal around
    a mode covers, and one for each pair of neighbouring parts whose axes have changed places, for of parts of like
    size either may be the larger. Importance weights then put all of them right. There is nothing to train: the
    population that the prior learns comes from expectation-maximisation over these approximations at the start.

    Parameters
    ----------
    model
        The voxel model, with prior ``counted`` and the identity decoder.
    n_measurements
        Length of a voxel's measurements; not needed.
    steps
        Towards each mode, at most.
    """

    uses_classes = True
    any_protocol = True
    trains = False

    def __init__(self, model: VoxelModel, n_measurements: int, steps: int = 40) -> None:
        super().__init__(model)
        del n_measurements
        if not isinstance(model.prior, CountedPrior) or not model.is_identity:
            raise InputError("guide counted needs prior counted and decoder identity, as hierarchical has for sticks")
        if not model.signal.signal.countable:
            raise InputError("guide counted needs a signal with parts to count, such as ball_sticks")
        self.steps = steps

    def prepare(self, y):
        voxels = y if isinstance(y, Voxels) else Voxels(y)
        if voxels.frame is None:
            signal = self.model.signal
            axes = signal.signal.initial_axis(signal.acquisition, voxels.y)
            voxels = replace(voxels, frame=frame_around(axes))
        return self.model.prepare(voxels)

    @torch.no_grad()
    def start(self, voxels):
        prior = self.model.prior
        assert isinstance(prior, CountedPrior)
        few = voxels[torch.linspace(0, len(voxels) - 1, min(len(voxels), VOXELS)).round().long().unique()]
        starts = self._starts(few)
        for _ in range(ROUNDS):
            mode, logits = self._modes(few, starts, range(len(starts)))
            starts, covariance = mode.z, mode.scale_tril.square().sum(-1)
            prior.learn(logits.softmax(0), mode.z, covariance)

    @torch.no_grad()
    def z_dist(self, voxels):
        parts = []
        for i in range(0, max(1, len(voxels)), CHUNK):
            part = voxels[i : i + CHUNK]
            mode, logits = self._best_modes(part)
            changed = self._changed_places(part, mode)
            others = self._modes(part, torch.stack([z for _, z in changed]), [c for c, _ in changed])
            parts.append(self._mixture(mode, logits, *others))
        logits, loc, tril = (torch.cat([getattr(q, k) for q in parts]) for k in ("logits", "loc", "scale_tril"))
        return GaussianMixture(logits, loc, tril)

    def _best_modes(self, voxels: Voxels) -> tuple[Mode, Tensor]:
        """Modes ``(C, N, L)`` with every number of parts, and their log weights ``(C, N)``, each from two starts.

        The second one adds a part where the residual of one part less asks for it.
        """
        starts = self._starts(voxels)
        mode, logits = self._modes(voxels, starts, range(len(starts)))
        numbers = range(2, len(starts))
        added = torch.stack([self._added(voxels, mode.z[c - 1], c) for c in numbers])
        other, their_logits = self._modes(voxels, added, numbers)
        better = their_logits > logits[2:]
        for name in ("z", "objective", "precision", "converged"):
            mine, its = getattr(mode, name), getattr(other, name)
            mine[2:] = torch.where(better.view(*better.shape, *[1] * (mine.dim() - 2)), its, mine[2:])
        logits[2:] = torch.where(better, their_logits, logits[2:])
        return mode, logits

    def _added(self, voxels: Voxels, z: Tensor, c: int) -> Tensor:
        """Latents ``(N, L)`` with part ``c``, small, along the axis that the residual of ``z`` without it asks for."""
        signal = self.model.signal
        assert voxels.frame is not None and signal.direction is not None
        theta = signal.constrain(z, voxels.frame)
        found = signal.unconstrained_slopes(z, voxels.frame, voxels.inputs)
        assert found is not None
        residual, slopes = voxels.y - self.model.likelihood.moments(found[0], voxels.noise)[0], found[1]
        if voxels.weights is not None:
            residual, slopes = residual * voxels.weights, slopes * voxels.weights.unsqueeze(-1)
        names = signal.signal.countable
        tangent = torch.linalg.qr(slopes[..., self._present(c - 1)])[0]
        axis = signal.signal.missing_axis(signal.acquisition, theta, residual, tangent)
        theta = theta | {names[c - 1]: torch.minimum(theta[names[c - 2]] / 2, torch.full_like(theta["D"], FIRST))}
        axes = signal.axes_of(theta | {signal.directions[c - 1].name: axis})
        assert axes is not None
        steps = signal.direction.unconstrain(axes, voxels.frame)
        steps[:, c:] = 0.0
        tissue = signal.unconstrain(theta).clamp(-4.0, 2.5)
        return torch.cat([tissue, steps.flatten(-2)], -1)

    def _present(self, c: int) -> list[int]:
        """Latents that matter with ``c`` parts."""
        signal, absent = self.model.signal, self.model.prior.countable[c:]  # type: ignore[index]
        return [i for i in range(signal.n_tissue + 2 * c) if i not in absent]

    def _modes(self, voxels: Voxels, starts: Tensor, numbers: Sequence[int]) -> tuple[Mode, Tensor]:
        """Modes ``(C, N, L)`` with these numbers of parts from starts as many, and their log weights ``(C, N)``."""
        population = Population(*(part[list(numbers)] for part in self.model.prior.classes()))
        short = voxels if voxels.short is None else voxels.short
        precision = precision_of(population)
        mode = find_mode(
            lambda z: self.model.expand_short(z, short), starts, population.loc.unsqueeze(1), precision, self.steps
        )
        sds = population.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        log_det = mode.precision.logdet().nan_to_num(1e3) + 2 * sds
        return mode, population.log_weights.unsqueeze(-1) + mode.objective - log_det / 2

    def _changed_places(self, voxels: Voxels, mode: Mode) -> list[tuple[int, Tensor]]:
        """Numbers of parts, and latents ``(N, L)`` to start from, with the axes of two neighbouring parts exchanged."""
        signal, found = self.model.signal, []
        names, axes = signal.signal.countable, [p.name for p in signal.directions]
        assert voxels.frame is not None and signal.direction is not None
        for c in range(2, len(names) + 1):
            theta = signal.constrain(mode.z[c], voxels.frame)
            for k in range(c - 1):
                half = (theta[names[k]] + theta[names[k + 1]]) / 2
                there = theta | {names[k]: (1 + ALIKE) * half, names[k + 1]: (1 - ALIKE) * half}
                there |= {axes[k]: theta[axes[k + 1]], axes[k + 1]: theta[axes[k]]}
                all_axes = signal.axes_of(there)
                assert all_axes is not None
                steps = signal.direction.unconstrain(all_axes, voxels.frame)
                steps[:, c:] = mode.z[c][:, signal.n_tissue :].unflatten(-1, (-1, 2))[:, c:]
                tissue = signal.unconstrain(there).clamp(-4.0, 2.5)
                found.append((c, torch.cat([tissue, steps.flatten(-2)], -1)))
        return found

    def _mixture(self, mode: Mode, logits: Tensor, changed: Mode, their_logits: Tensor) -> GaussianMixture:
        """All components, batch ``(N,)``."""
        signal, countable = self.model.signal, self.model.prior.countable  # type: ignore[union-attr]
        loc, tril = [*mode.z, *changed.z], [*mode.scale_tril, *changed.scale_tril]
        weights = [*logits, *their_logits]
        log_w = self.model.prior.classes().log_weights
        for k, i in enumerate(countable):  # type: ignore[arg-type]
            own = torch.tensor([i, *range(signal.n_tissue + 2 * k, signal.n_tissue + 2 * k + 2)])
            z, factor = mode.z[k].clone(), mode.scale_tril[k].clone()
            z[:, own], factor[:, own, :], factor[:, :, own] = 0.0, 0.0, 0.0
            z[:, i], factor[:, own, own] = SMALL, 1.0
            factor[:, i, i] = SMALL_SD
            loc.append(z)
            tril.append(factor)
            weights.append(logits[k] + log_w[k + 1] - log_w[k] + torch.tensor(SMALL_SHARE).log())
        # what Laplace's evidence underrates would have too few points to be put right by their weights
        shares = torch.stack(weights, -1).log_softmax(-1)
        plausible = shares > shares.amax(-1, keepdim=True) - PLAUSIBLE
        shares = torch.where(plausible, shares.clamp_min(math.log(LEAST)), shares)
        return GaussianMixture(shares, torch.stack(loc, 1), torch.stack(tril, 1))

    def _starts(self, voxels: Voxels) -> Tensor:
        """Latents ``(C, N, L)`` to start from with each number of parts, in the voxels' own frames."""
        model = self.model
        assert voxels.frame is not None
        signal, population = model.signal, model.prior.classes()
        guesses = signal.signal.guesses(signal.acquisition, voxels.y)
        found = []
        for c in range(len(guesses) + 1):
            guess = guesses[max(0, c - 1)]
            tissue = signal.unconstrain(guess).clamp(-2.5, 2.5)
            axes = signal.axes_of(guess)
            assert axes is not None and signal.direction is not None
            steps = signal.direction.unconstrain(axes, voxels.frame).clone()
            for k, i in enumerate(model.prior.countable):  # type: ignore[arg-type]
                if k >= c:
                    tissue[:, i], steps[:, k] = population.loc[c, i], 0.0
            found.append(torch.cat([tissue, steps.flatten(-2)], -1))
        return torch.stack(found)
