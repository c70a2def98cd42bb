"""What each candidate measurement says of voxels drawn from a fit's population."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.parts import part_of
from pyroqmri.laplace.mode import jacobian
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.s0 import s0_volumes
from pyroqmri.parameter import frame_around
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.voxel_model import VoxelModel

FLAT = 1e3  # sd of the logarithm of an S0 that is measured: nothing is known of it but by measurements


@dataclass(frozen=True)
class PopulationInformation:
    r"""Fisher information of M candidates at S voxels drawn from a population; it adds up over measurements.

    Attributes
    ----------
    slopes
        Derivatives of each measurement by the latents, times the root of the information on its signal, float64
        ``(S, M, L)``: a choice has the information :math:`\sum_m f_m f_m^\top`. A measured S0 is the last latent.
    covariance
        Of the latents before any measurement ``(S, L, L)``: that of the class that a voxel was drawn from.
    targets
        Derivatives of the quantities that count by the latents ``(S, K, L)``.
    scalars
        Derivatives of all scalar quantities by the latents ``(S, Q, L)``, named by ``names``, in their ``units``.
    b0
        Candidates ``(M,)`` that S0 is measured on; none where it is no measured one.
    apart
        Each target counts by itself, its correlation with others nothing.
    """

    slopes: Tensor
    covariance: Tensor
    targets: Tensor
    scalars: Tensor
    names: tuple[str, ...]
    units: tuple[str, ...]
    b0: Tensor
    apart: bool = False

    def spread(self, index: Tensor) -> Tensor:
        """Covariance ``(S, L, L)`` of the latents after the measurements ``index``."""
        some = self.slopes[:, index]
        # at most as many columns as measurements, so that a flat S0 costs no digits of the others
        gram = torch.eye(some.shape[1]).double() + some @ self.covariance @ some.mT
        gain = torch.linalg.solve(gram, some @ self.covariance)
        return self.covariance - self.covariance @ some.mT @ gain

    def sd(self, index: Tensor) -> dict[str, float]:
        """Root of the mean posterior variance over the population of each scalar quantity, by the Laplace posterior."""
        variance = ((self.scalars @ self.spread(index)) * self.scalars).sum(-1).clamp_min(0)
        return dict(zip(self.names, variance.mean(0).sqrt().tolist(), strict=True))


@torch.no_grad()
def population_information(
    fit: Fit,
    candidates: Acquisition,
    parameters: Sequence[str] | None = None,
    draws: int = 256,
    seed: int = 0,
    snr: float | None = None,
    each: bool = False,
) -> PopulationInformation:
    """Draw voxels of a fit's population, with axes in all directions, and expand every candidate around them.

    Parameters
    ----------
    candidates
        M settings.
    parameters
        Quantities that count; all latents when None.
    draws
        Voxels, S.
    snr
        S0 over the noise level; the fit's own when None.
    each
        Quantities count one by one, all free scalars where ``parameters`` is None.

    Raises
    ------
    InputError
        When the fit has no population, or a name is no quantity of the signal.
    """
    if fit.model is None:
        raise InputError(
            f"recipe {fit.recipe.name} has no population to plan measurements for; use a fit of a voxel model, such as "
            "recipe hierarchical"
        )
    model, bound = _at(fit, candidates)
    z, tril = _drawn(model, draws, seed)
    n_tissue = model.prior.n_tissue
    frame = None
    if bound.direction is not None:
        generator = torch.Generator().manual_seed(seed + 1)
        axes = torch.randn(draws, len(bound.directions), 3, generator=generator).double()
        frame = frame_around(axes.squeeze(1))
        z[:, n_tissue:] = 0.0  # a frame of each axis's own: axes are uniform, and zero is on them
    own = _known_inputs(bound, draws)
    noise = z.new_full((draws, 1), float(model.sigma) * (1.0 if snr is None else _own_snr(fit) / snr))
    signal, slope = jacobian(lambda u: bound(bound.constrain(model.decoder(u), frame), own), z)
    fisher = _likelihood(fit, candidates).information(signal, signal.clamp_min(1e-6), noise).fisher
    covariance = tril @ tril.mT
    scalars, names, units = _scalars(model, bound, z, frame)
    counted = [p.name for p in bound.tissue] if each and parameters is None else parameters
    targets = _targets(model, bound, counted, scalars, names)
    b0 = torch.zeros(len(candidates), dtype=torch.bool)
    if fit.preparation.s0 == "measured":
        b0 = s0_volumes(candidates, fit.preparation.negligible_b)
        slope = torch.cat([slope, signal.unsqueeze(-1)], -1)
        last = torch.full((draws, 1), FLAT**2).double()
        covariance = torch.diag_embed(torch.cat([torch.zeros(draws, z.shape[1]).double(), last], -1)) + _padded(
            covariance, rows=True
        )
        scalars, targets = _padded(scalars), _padded(targets)
    slopes = slope * fisher.clamp_min(0).sqrt().unsqueeze(-1)
    _check_finite(slopes, candidates, fit.signal_name)
    return PopulationInformation(slopes, covariance, targets, scalars, names, units, b0, each)


def _at(fit: Fit, candidates: Acquisition) -> tuple[VoxelModel, BoundSignal]:
    """The fit's model in float64, and its signal at single candidates, b0 among them."""
    model = copy.deepcopy(fit.model).double().cpu()  # type: ignore[union-attr]
    whole = Acquisition(**{name: value.cpu() for name, value in candidates.settings().items()})
    signal = BoundSignal(
        SIGNALS[fit.signal_name], whole, fit.fixed, fit.tied, fit.signal.infer_s0, fit.signal.ranges
    ).double()
    return model, signal


def _drawn(model: VoxelModel, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents ``(n, L)`` of a population's classes, and the factor of each one's class ``(n, L, L)``."""
    population = model.prior.classes()
    generator = torch.Generator().manual_seed(seed)
    weights = population.log_weights.softmax(-1)
    c = torch.multinomial(weights, n, replacement=True, generator=generator)
    tril = population.scale_tril[c]
    white = torch.randn(n, model.n_latents, generator=generator, dtype=torch.float64)
    return population.loc[c] + (tril @ white.unsqueeze(-1)).squeeze(-1), tril


def _likelihood(fit: Fit, candidates: Acquisition) -> Likelihood:
    """The fit's likelihood of single candidates, at the noise level that was learned."""
    counts = candidates.n_averages.cpu()
    made = part_of(fit.recipe, "likelihood")(
        counts if bool((counts > 1).any()) else None, None, **fit.recipe.table("likelihood")
    )
    made.log_factor.data.copy_(fit.likelihood.log_factor.detach())
    return made.double()


def _own_snr(fit: Fit) -> float:
    from pyroqmri.calibration.simulated_voxels import own_snr

    return own_snr(fit)


def _known_inputs(bound: BoundSignal, n: int) -> dict[str, Tensor]:
    return {name: torch.full((n,), bound.signal.common_input(name)).double() for name in bound.signal.inputs}


def _scalars(
    model: VoxelModel, bound: BoundSignal, z: Tensor, frame: Tensor | None
) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """Derivatives of the free and derived scalars, angles aside ``(S, Q, L)``, their names and units."""
    wanted = [p for p in bound.scalars if p.unit != "rad"]

    def quantities(u: Tensor) -> Tensor:
        theta: dict[str, Any] = bound.constrain(model.decoder(u), frame)
        theta |= bound.signal.derived(theta)
        return torch.stack([theta[p.name] for p in wanted], -1)

    return jacobian(quantities, z)[1], tuple(p.name for p in wanted), tuple(p.unit for p in wanted)


def _targets(
    model: VoxelModel, bound: BoundSignal, parameters: Sequence[str] | None, scalars: Tensor, names: tuple[str, ...]
) -> Tensor:
    """Derivatives of what counts by the latents ``(S, K, L)``."""
    latents = torch.eye(model.n_latents).double().expand(len(scalars), -1, -1)
    if parameters is None:
        return latents
    rows, n_tissue = [], model.prior.n_tissue
    places = {p.name: n_tissue + 2 * k for k, p in enumerate(bound.directions)}
    for name in parameters:
        if name in places:
            rows.append(latents[:, places[name] : places[name] + 2])
        elif name in names:
            i = names.index(name)
            rows.append(scalars[:, i : i + 1])
        else:
            raise InputError(f"there is no parameter {name!r} to plan for; the fit has {', '.join((*names, *places))}")
    found = torch.cat(rows, 1)
    unit = found / found.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    if found.shape[1] > model.n_latents or float(torch.linalg.svdvals(unit)[:, -1].median()) < 1e-4:
        raise InputError(f"{', '.join(parameters)} are not independent of one another; name fewer parameters")
    return found


def _padded(matrix: Tensor, rows: bool = False) -> Tensor:
    """A column of zeros, and a row, for the latent of S0."""
    return torch.nn.functional.pad(matrix, (0, 1, 0, int(rows)))


def _check_finite(slopes: Tensor, candidates: Acquisition, signal: str) -> None:
    bad = ~slopes.isfinite().all(-1).all(0)
    if bad.any():
        i = int(bad.nonzero()[0])
        settings = ", ".join(f"{k} {v[i].tolist()}" for k, v in candidates.settings().items())
        raise InputError(f"candidate {i} ({settings}) has no finite {signal} signal; leave it out")
