"""The posterior of a signal whose parts are counted: a mode for each number of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.guides.base import Guide
from pyroqmri.guides.structured import precision_of
from pyroqmri.laplace.mode import Expansion, find_modes
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import frame_around
from pyroqmri.priors import Counted as CountedPrior
from pyroqmri.voxel_model import VoxelModel

CHUNK = 512  # voxels whose modes are searched together
ROUNDS, VOXELS = 4, 600  # of expectation-maximisation, and voxels that it looks at
ALIKE = 0.05  # half the relative difference of two fractions that change places
PLAUSIBLE, LEAST = 8.0, 0.04  # nats below the best component, and the share of points of one that is less far
TOLERANCE = 0.01  # nats that a search may leave: the weights put the rest right
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
            found = self._modes(few, starts, range(len(starts)))
            starts = found.z
            prior.learn(found.logits.softmax(0), found.z, found.scale_tril.square().sum(-1))

    @torch.no_grad()
    def z_dist(self, voxels):
        parts = []
        for i in range(0, max(1, len(voxels)), CHUNK):
            parts.append(self._mixture(self._all_modes(voxels[i : i + CHUNK])))
        logits, loc, tril = (torch.cat([getattr(q, k) for q in parts]) for k in ("logits", "loc", "scale_tril"))
        return GaussianMixture(logits, loc, tril)

    def _all_modes(self, voxels: Voxels) -> "_Modes":
        """Modes with every number of parts; of a number there may be several.

        One comes from the search for peaks. The others add a part to the best mode with one part less, along each axis
        on which its residual asks for one, for a weak part may be in several places; the last have changed places.
        """
        starts = self._starts(voxels)
        found = self._modes(voxels, starts, range(len(starts)))
        for c in range(2, len(starts)):
            added = self._added(voxels, found.best(c - 1).z[0], c)
            found = found + self._modes(voxels, added, [c] * len(added))
        changed = self._changed_places(voxels, found)
        return found + self._modes(voxels, torch.stack([z for _, z in changed]), [c for c, _ in changed])

    def _added(self, voxels: Voxels, z: Tensor, c: int) -> Tensor:
        """Latents ``(J, N, L)`` with part ``c``, small, along each axis that the residual of ``z`` asks for."""
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
        theta = theta | {names[c - 1]: torch.minimum(theta[names[c - 2]] / 2, torch.full_like(theta["D"], FIRST))}
        tissue, several = signal.unconstrain(theta).clamp(-4.0, 2.5), []
        for axis in signal.signal.missing_axes(signal.acquisition, theta, residual, tangent).unbind(1):
            axes = signal.axes_of(theta | {signal.directions[c - 1].name: axis})
            assert axes is not None
            steps = signal.direction.unconstrain(axes, voxels.frame)
            steps[:, c:] = 0.0
            several.append(torch.cat([tissue, steps.flatten(-2)], -1))
        return torch.stack(several)

    def _present(self, c: int) -> list[int]:
        """Latents that matter with ``c`` parts."""
        signal, absent = self.model.signal, self.model.prior.countable[c:]  # type: ignore[index]
        return [i for i in range(signal.n_tissue + 2 * c) if i not in absent]

    def _modes(self, voxels: Voxels, starts: Tensor, numbers: Sequence[int]) -> "_Modes":
        """Modes with these numbers of parts, from as many starts ``(K, N, L)``."""
        population = self.model.prior.classes()
        precision, sds = precision_of(population), population.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        short = voxels if voxels.short is None else voxels.short

        def evaluate(z: Tensor, index: Tensor) -> Expansion:
            return self.model.expand_short(z, short if len(index) == len(short) else short[index])

        z, tril, logits = [], [], []
        for c, start in zip(numbers, starts, strict=True):
            mode = find_modes(evaluate, start, population.loc[c], precision[c], self.steps, TOLERANCE)
            log_det = mode.precision.logdet().nan_to_num(1e3) + 2 * sds[c]
            z.append(mode.z)
            tril.append(mode.scale_tril)
            logits.append(population.log_weights[c] + mode.objective - log_det / 2)
        return _Modes(list(numbers), torch.stack(z), torch.stack(tril), torch.stack(logits))

    def _changed_places(self, voxels: Voxels, modes: "_Modes") -> list[tuple[int, Tensor]]:
        """Numbers of parts, and latents ``(N, L)`` to start from, with the axes of two neighbouring parts exchanged."""
        signal, found = self.model.signal, []
        names, axes = signal.signal.countable, [p.name for p in signal.directions]
        assert voxels.frame is not None and signal.direction is not None
        for c in range(2, len(names) + 1):
            z = modes.best(c).z[0]
            theta = signal.constrain(z, voxels.frame)
            for k in range(c - 1):
                half = (theta[names[k]] + theta[names[k + 1]]) / 2
                there = theta | {names[k]: (1 + ALIKE) * half, names[k + 1]: (1 - ALIKE) * half}
                there |= {axes[k]: theta[axes[k + 1]], axes[k + 1]: theta[axes[k]]}
                all_axes = signal.axes_of(there)
                assert all_axes is not None
                steps = signal.direction.unconstrain(all_axes, voxels.frame)
                steps[:, c:] = z[:, signal.n_tissue :].unflatten(-1, (-1, 2))[:, c:]
                tissue = signal.unconstrain(there).clamp(-4.0, 2.5)
                found.append((c, torch.cat([tissue, steps.flatten(-2)], -1)))
        return found

    def _mixture(self, modes: "_Modes") -> GaussianMixture:
        """All components, batch ``(N,)``."""
        signal, countable = self.model.signal, self.model.prior.countable  # type: ignore[union-attr]
        loc, tril, weights = [*modes.z], [*modes.scale_tril], [*modes.logits]
        log_w = self.model.prior.classes().log_weights
        for k, i in enumerate(countable):  # type: ignore[arg-type]
            own = torch.tensor([i, *range(signal.n_tissue + 2 * k, signal.n_tissue + 2 * k + 2)])
            best = modes.best(k)
            z, factor = best.z[0].clone(), best.scale_tril[0].clone()
            z[:, own], factor[:, own, :], factor[:, :, own] = 0.0, 0.0, 0.0
            z[:, i], factor[:, own, own] = SMALL, 1.0
            factor[:, i, i] = SMALL_SD
            loc.append(z)
            tril.append(factor)
            weights.append(best.logits[0] + log_w[k + 1] - log_w[k] + torch.tensor(SMALL_SHARE).log())
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


@dataclass(frozen=True)
class _Modes:
    """K modes of each of N voxels.

    Attributes
    ----------
    numbers
        Of parts, one a mode.
    z, scale_tril, logits
        The modes ``(K, N, L)``, their Cholesky factors ``(K, N, L, L)`` and log weights ``(K, N)``.
    """

    numbers: list[int]
    z: Tensor
    scale_tril: Tensor
    logits: Tensor

    def __add__(self, other: "_Modes") -> "_Modes":
        """These and the other's."""
        return _Modes(
            self.numbers + other.numbers,
            *(torch.cat([getattr(self, k), getattr(other, k)]) for k in ("z", "scale_tril", "logits")),
        )

    def best(self, c: int) -> "_Modes":
        """The likeliest mode of each voxel with ``c`` parts, K = 1."""
        of = torch.tensor([k == c for k in self.numbers])
        row = torch.arange(self.z.shape[1])
        best = self.logits[of].argmax(0)
        return _Modes([c], *(getattr(self, k)[of][best, row][None] for k in ("z", "scale_tril", "logits")))
