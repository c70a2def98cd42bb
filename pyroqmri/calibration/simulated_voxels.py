"""Voxels whose truth is known, to check a fit on: of its own population, or of tissue."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import refuse_field
from pyroqmri.fitting.parts import part_of
from pyroqmri.measurements.arguments import as_seed
from pyroqmri.measurements.s0 import settled_s0
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import SCAN_UNIT, frame_around
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.simulate import CLASSES, NOISES, add_noise, draw_inputs, simulate, tissue, uniform

S0_SPREAD = 0.1  # of tissue, where S0 is inferred


@dataclass(frozen=True)
class SimulatedVoxels:
    """Simulated voxels.

    Parameters
    ----------
    name
        What they are, in words.
    truth
        Each quantity ``(n,)``, axes ``(n, 3)``.
    y
        Measurements ``(n, M)``.
    sigma
        Noise level to tell the fit, in the units of ``y``.
    snr
        S0 over the noise level.
    labels, classes
        Tissue of each voxel ``(n,)`` and names, or None and nothing.
    counts
        Whether the fit has to hold in each tissue.
    inputs
        Per-voxel inputs of the signal, each ``(n,)``.
    position, judged
        Of an image: integer indices ``(n, 3)``, and which of its voxels are looked at.
    """

    name: str
    truth: dict[str, Tensor]
    y: Tensor
    sigma: float
    snr: float
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    counts: bool = False
    inputs: dict[str, Tensor] = field(default_factory=dict)
    position: Tensor | None = None
    judged: Tensor | None = None


@torch.no_grad()
def own_voxels(
    fit: Fit, n: int, seed: int, snr: float | None = None, given: Mapping[str, Any] | None = None
) -> SimulatedVoxels:
    """Voxels of the population that a fit learned, measured on its protocol at its noise level.

    S0 is that of its median training voxel where S0 was measured. ``given`` are per-voxel inputs as in
    :func:`pyroqmri.simulate.draw_inputs`.

    Raises
    ------
    InputError
        When the fit has no population.
    """
    refuse_field(fit.recipe.name, fit.is_field)
    own = own_tissue(fit, n, seed, given)
    sigma = fit.sigma if snr is None else own.level / snr
    y = measured(fit, own.clean, sigma, seed)
    return own.voxels(fit, "voxels of the fit's own population", y, sigma)


@dataclass(frozen=True)
class OwnTissue:
    """Voxels of a fit's population before they are measured.

    Parameters
    ----------
    theta
        Parameters in the model's units, each ``(n,)``.
    clean
        Noise-free measurements ``(n, M)`` in the scan's units.
    s0, level
        The scan's scale, and the mean signal without encoding.
    inputs
        Per-voxel inputs of the signal, each ``(n,)``.
    """

    theta: dict[str, Tensor]
    clean: Tensor
    s0: float
    level: float
    inputs: dict[str, Tensor]

    def voxels(self, fit: Fit, name: str, y: Tensor, sigma: float) -> SimulatedVoxels:
        """The voxels with measurements ``y`` ``(n, M)``, of which the fit is given ``sigma``."""
        given = sigma / float(fit.likelihood.factor.detach())
        return SimulatedVoxels(name, _quantities(fit, self.theta, self.s0), y, given, self.level / sigma,
                               inputs=_taken(fit, self.inputs))  # fmt: skip


@torch.no_grad()
def own_tissue(fit: Fit, n: int, seed: int, given: Mapping[str, Any] | None = None, shift: float = 0.0) -> OwnTissue:
    """Voxels of the population that a fit learned; ``shift`` moves every latent of tissue by so many sd.

    Raises
    ------
    InputError
        When the fit has no population.
    """
    model = fit.model
    if model is None:
        raise InputError(f"recipe {fit.recipe.name} has no population of its own; check it on tissue (--truth tissue)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(as_seed(seed))
        with pyro.plate("voxels", n):
            z = model.prior.latents(model.prior.classes(), Voxels(model.sigma.new_zeros(n, 0)))
        tissue_latents = slice(0, model.prior.n_tissue)
        z[:, tissue_latents] += shift * z[:, tissue_latents].std(0)
        return tissue_of(fit, z, seed, given)


def tissue_of(fit: Fit, z: Tensor, seed: int, given: Mapping[str, Any] | None = None) -> OwnTissue:
    """Voxels of given latents ``(n, L)``; frames of their axes are from torch's random state."""
    model, n = fit.model, len(z)
    assert model is not None
    n_axes = max(1, len(model.signal.directions))
    frame = frame_around(torch.randn(n, n_axes, 3).squeeze(1)).to(z)
    m = len(model.signal.acquisition)
    theta = {k: v.cpu() for k, v in model.theta(z, Voxels(z.new_zeros(n, m), frame=frame)).items()}
    s0 = fit.noise.sigma / float(model.sigma) if fit.preparation.s0 == "measured" else fit.preparation.scale
    scaled = fit.signal.in_scan_units
    level = s0 * (float(theta[scaled[0]].mean()) if scaled else 1.0)
    inputs = draw_inputs(SIGNALS[fit.signal_name], given, n, seed + 5)
    return OwnTissue(theta, clean_signal(fit, theta, s0, inputs), s0, level, inputs)


def clean_signal(fit: Fit, theta: dict[str, Tensor], s0: float, inputs: dict[str, Tensor]) -> Tensor:
    """Noise-free measurements ``(n, M)`` of a fit's whole protocol in the scan's units."""
    whole = BoundSignal(SIGNALS[fit.signal_name], fit.acquisition, fit.fixed, fit.tied, fit.signal.infer_s0)
    return whole(theta, inputs) * s0


@torch.no_grad()
def scan_voxels(fit: Fit, n: int, seed: int, given: Mapping[str, Any] | None = None) -> SimulatedVoxels:
    """Voxels of a fit's population with the noise that the residuals of its scan show.

    A parametric bootstrap: the noise is that of magnitudes wherever the scan has no sign, and its level that of the
    residuals, whatever the fit was given.

    Raises
    ------
    InputError
        When the fit has no population, or its record no noise of residuals.
    """
    noise = fit.residual_noise
    if noise is None:
        raise InputError(
            "the residuals of this fit's scan are not recorded (fewer than 200 voxels, means over directions, no spare "
            "measurements or an earlier version); check it on its own population (--truth own)"
        )
    own = own_tissue(fit, n, seed, given)
    coils = fit.preparation.coils
    kind = ("ncchi" if coils > 1 else "rician") if noise.magnitude else "gaussian"
    generator = torch.Generator().manual_seed(seed + 104729)
    y = add_noise(own.clean, fit.sigma * noise.ratio, kind, generator, coils, fit.acquisition.n_averages)
    found = own.voxels(fit, "voxels with the noise of the scan's residuals", y, fit.sigma)
    return replace(found, snr=found.snr / noise.ratio)


def _taken(fit: Fit, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that a fit was trained with; of the others it takes the signal's default."""
    return {name: value for name, value in inputs.items() if name in fit.inputs}


def measured(fit: Fit, clean: Tensor, sigma: float, seed: int) -> Tensor:
    """Noise-free measurements ``(n, M)`` with the noise of the fit's likelihood."""
    kind = fit.recipe.kind("likelihood")
    if kind in NOISES:
        generator = torch.Generator().manual_seed(seed + 104729)
        return add_noise(clean, sigma, kind, generator, fit.preparation.coils, fit.acquisition.n_averages)
    # a likelihood of the user's own, at the noise level without the learned factor in it
    own = part_of(fit.recipe, "likelihood")(fit.acquisition.averages, None, **fit.recipe.table("likelihood"))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 104729)
        return own(clean, torch.full((len(clean), 1), sigma)).sample()


def _quantities(fit: Fit, theta: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Parameters and what is derived of them; S0 and amplitudes in the units of the measurements."""
    truth = theta | {name: theta[name] * scale for name in fit.signal.in_scan_units}
    return truth | SIGNALS[fit.signal_name].derived(truth)


def tissue_voxels(
    of: Fit | tuple[Any, ...],
    n: int,
    seed: int,
    snr: float | None = None,
    given: Mapping[str, Any] | None = None,
    coils: float = 1.0,
) -> SimulatedVoxels:
    """Voxels of white and grey matter and csf in equal shares, or uniform where a signal has no tissue values.

    ``of`` is a fit, or ``(signal, acquisition, s0, {"fixed": ..., "tied": ...}, noise)``. S0 is 1 for all voxels; where
    it is to be inferred it varies by S0_SPREAD, and a known one is what it is. ``given`` are per-voxel inputs as in
    :func:`pyroqmri.simulate.draw_inputs`, and ``coils`` are those of the noise where ``of`` is no fit.
    """
    if isinstance(of, Fit):
        held = {"fixed": of.fixed, "tied": of.tied}
        kind, coils = of.recipe.kind("likelihood"), of.preparation.coils
        noise = kind if kind in NOISES else "rician"
        name, acquisition, s0 = of.signal_name, of.acquisition, of.preparation.s0
        if snr is None:
            snr = own_snr(of)
        factor = float(of.likelihood.factor.detach())
    else:
        (name, acquisition, s0, held, noise), factor = of, 1.0
    if snr is None:
        raise InputError("tissue cannot be simulated without a noise level; give --snr")
    signal = SIGNALS[name]
    theta, labels = _tissue(signal, n, as_seed(seed), held)
    s0 = settled_s0(signal, s0, acquisition)  # voxels to train on and voxels to check differ in S0 alike
    reference = float(s0) if isinstance(s0, int | float) else 1.0
    level = reference * torch.ones(n)
    if s0 == "inferred":
        generator = torch.Generator().manual_seed(seed + 3)
        level = level * (1 + S0_SPREAD * torch.randn(n, generator=generator)).clamp(0.5, 1.5)
    inputs = draw_inputs(signal, given, n, seed + 5)
    sigma = reference / snr
    y = simulate(signal, acquisition, theta | {"S0": level}, sigma=sigma, noise=noise, coils=coils,
                 seed=seed + 1000, inputs=inputs)  # fmt: skip
    truth = theta | {p.name: theta[p.name] * level for p in signal.parameters if p.unit == SCAN_UNIT}
    truth |= signal.derived(truth) | {"S0": level}
    what = "simulated white matter, grey matter and csf" if labels is not None else "voxels uniform inside the bounds"
    return SimulatedVoxels(
        what,
        truth,
        y,
        sigma / factor,
        snr,
        labels,
        CLASSES if labels is not None else (),
        inputs=_taken(of, inputs) if isinstance(of, Fit) else inputs,
    )


def own_snr(fit: Fit) -> float:
    """S0 over sigma of a fit's median training voxel."""
    if fit.model is None:
        raise InputError("the signal-to-noise ratio of this fit is unknown; give --snr")
    own = float(fit.model.sigma) * float(fit.likelihood.factor.detach())
    if fit.preparation.s0 != "inferred":
        return 1 / own
    index = [p.name for p in fit.signal.tissue].index(fit.signal.in_scan_units[0])
    prior = fit.model.prior.classes()
    weights, loc = prior.log_weights.softmax(-1).detach(), prior.loc[:, index].detach()
    s0 = (weights * fit.signal.tissue[index].constrain(loc)).sum()
    return float(s0) / own


def _tissue(signal: Any, n: int, seed: int, held: Mapping[str, Mapping[str, Any]]) -> tuple[dict, Tensor | None]:
    theta, labels = tissue(signal, n, seed) if signal.typical_tissue else (uniform(signal, n, seed), None)
    theta |= {name: torch.full((n,), float(value)) for name, value in held["fixed"].items()}
    return theta | {name: theta[target] for name, target in held["tied"].items()}, labels
