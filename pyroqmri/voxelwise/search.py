"""The search for each voxel's estimate, block by block."""

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.laplace.start import Shortening
from pyroqmri.likelihoods import GaussianLikelihood, Likelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.progress import progress_bar
from pyroqmri.signals import BoundSignal
from pyroqmri.voxelwise.dipy_fit import dipy_fit
from pyroqmri.voxelwise.estimates import PointEstimates
from pyroqmri.voxelwise.levenberg_marquardt import LARGE, Problem, best_of
from pyroqmri.voxelwise.log_linear import SMALLEST, has_closed_form, weighted_fit
from pyroqmri.voxelwise.multistart import nearest
from pyroqmri.voxelwise.unit_box import Point, UnitBox

_ELEMENTS = 2**22  # measurements in a block, which bounds the memory
_FEWEST = 1024  # voxels in a block
_CHOICES = {"method": ("auto", "closed_form", "levenberg_marquardt"), "engine": ("torch", "dipy")}


@dataclass(frozen=True)
class Search:
    """Settings of the search for an estimate.

    Parameters
    ----------
    method
        ``closed_form`` is weighted linear least squares of the logarithm, ``levenberg_marquardt``
        the search inside the bounds; ``auto`` takes the first where the signal has one that is final and the
        noise is Gaussian, and searches the voxels that it puts outside their bounds or that have negative values.
    engine
        ``torch``, or ``dipy`` for dipy's own fit of this signal.
    steps
        Of the search, at most.
    starts
        Points that the search begins from; 0 is as many as surfaces of the kind need: two for a signal
        with a direction, whose axis a tensor fit gives, one for
        a kurtosis tensor, which a regression gives, else three.
    """

    method: str = "auto"
    engine: str = "torch"
    steps: int = 400
    starts: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"search.steps must be above zero, got {self.steps}")
        if self.starts < 0:
            raise InputError(f"search.starts must be a number of points, or 0 for the usual, got {self.starts}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"search.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")


class _Block:
    """How a block of voxels is fitted: to parameters, and whether the search of each voxel ended."""

    def __init__(self, signal: BoundSignal, likelihood: Likelihood, settings: Search) -> None:
        self.settings, self.single, self._likelihood = settings, signal, likelihood
        self.counts = likelihood.n_average
        gaussian = isinstance(likelihood, GaussianLikelihood)
        self.linear = has_closed_form(signal)
        final = self.linear and (signal.signal.log_linear.final or settings.method == "closed_form")  # type: ignore[union-attr]
        self.closed = final and gaussian and settings.method != "levenberg_marquardt"
        if settings.method == "closed_form" and not self.closed:
            raise InputError(
                f"search.method 'closed_form' needs gaussian noise and a signal whose logarithm is linear in free "
                f"parameters, which {signal.signal.__name__} here is not: use 'auto'"
            )

    # what only a search needs
    @cached_property
    def signal(self) -> BoundSignal:
        return copy.deepcopy(self.single).double()

    @cached_property
    def likelihood(self) -> Likelihood:
        return copy.deepcopy(self._likelihood).double()

    @cached_property
    def short(self) -> Shortening:
        return Shortening(self.signal, self.counts is not None or not self.likelihood.smooth)

    @cached_property
    def box(self) -> UnitBox:
        return UnitBox(self.short.signal)

    def box_of(self, voxels: Voxels) -> UnitBox:
        """The box of the signal at the entries of the voxels, compressed where they can be."""
        return self.box if self.short.serves(voxels) or not self.short.active else UnitBox(self.signal)

    def __call__(self, voxels: Voxels) -> tuple[dict[str, Tensor], Tensor]:
        if self.settings.engine == "dipy":
            return self._inside(dipy_fit(self.single, voxels, self.counts))
        if not self.closed:
            return self._search(voxels)
        theta = weighted_fit(self.single, voxels, self.counts)
        if self.settings.method == "closed_form":
            return self._inside(theta)
        # data that keep their sign have values without a logarithm
        low = voxels.y < SMALLEST
        outside = ~self._fits(theta) | (low if voxels.weights is None else low & (voxels.weights > 0)).any(-1)
        converged = torch.ones_like(outside)
        index = torch.nonzero(outside).squeeze(-1)
        if len(index):
            found, converged[index] = self._search(voxels[index])
            for name, value in found.items():
                theta[name][index] = value.to(theta[name])
        return theta, converged

    def _fits(self, theta: dict[str, Tensor]) -> Tensor:
        point = UnitBox(self.single).raw(theta)
        return (point.amin(0) >= 0) & (point.amax(0) <= 1)

    def _inside(self, theta: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Parameters moved to their bounds where they lie outside."""
        found = self.box.theta(self.box.point({name: value.double() for name, value in theta.items()}))
        return found, torch.ones_like(found[self.box.tissue[0].name], dtype=torch.bool)

    def _search(self, voxels: Voxels) -> tuple[dict[str, Tensor], Tensor]:
        voxels = voxels.map(lambda t: t.double())
        starts: list[Point] = []
        if self.linear:
            theta = weighted_fit(self.signal, voxels, self.counts)
            starts.append(Point(self.box.point(theta).tissue.clamp(0.005, 0.995), None))
        box, voxels = self.box_of(voxels), self.short(voxels)
        if guess := box.signal.first_guess(voxels.y):
            near = box.point(guess)
            starts.append(Point(near.tissue.clamp(0.005, 0.995), near.axis))
        wanted = self.settings.starts
        if wanted == 0:
            wanted = 3 if self.signal.direction is None and not guess else 2
            if (self.linear and self.signal.n_latents > LARGE) or len(self.signal.directions) > 1:
                wanted = 1  # no few points come near in so many dimensions, and a regression does, or a search for axes
        if len(starts) < wanted:
            starts += nearest(box.to(torch.float32), voxels.map(lambda t: t.float()), wanted - len(starts))
        point, done = best_of(
            Problem(box, self.likelihood, voxels), [s.to(torch.float32) for s in starts], self.settings.steps
        )
        return box.theta(point), done


@torch.no_grad()
def search(
    signal: BoundSignal, likelihood: Likelihood, batch: Batch, settings: Search, progress: bool = False
) -> PointEstimates:
    """The estimate of each voxel: least squares when the likelihood is Gaussian, its maximum otherwise.

    Runs where ``signal`` is; blocks go there and come back, so memory does not grow with the scan.
    """
    fit = _Block(signal, likelihood, settings)
    device = next(signal.buffers()).device
    n = len(batch.voxels)
    size = max(_FEWEST, _ELEMENTS // max(1, batch.voxels.y.shape[1]))
    found: list[tuple[dict[str, Tensor], Tensor]] = []
    with progress_bar("fitting", n, progress) as report:
        for i in range(0, n, size):
            theta, converged = fit(batch.voxels[i : i + size].to(device))
            found.append(({k: v.float().cpu() for k, v in theta.items()}, converged.cpu()))
            report(min(i + size, n))
    names = [p.name for p in signal.free] + [*signal.fixed, *signal.tied]
    if not found:
        empty = {p.name: torch.zeros(0, 3) if p.is_direction else torch.zeros(0) for p in signal.free}
        empty |= {name: torch.zeros(0) for name in (*signal.fixed, *signal.tied)}
        return PointEstimates(signal, likelihood, batch, empty, torch.zeros(0, dtype=torch.bool))
    theta = {name: torch.cat([part[name] for part, _ in found]) for name in names}
    return PointEstimates(signal, likelihood, batch, theta, torch.cat([done for _, done in found]))
