"""Which parameters a protocol cannot determine, at any noise or at that of the scan."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.laplace.mode import jacobian
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import Parameter
from pyroqmri.protocol_checks.information import Scaled, covariance, left_uncertain, scaled_information
from pyroqmri.protocol_checks.tissue import typical
from pyroqmri.protocol_checks.words import listed, protocol_in_words
from pyroqmri.signals import BoundSignal
from pyroqmri.signals.bound import S0

_NOISELESS = 1e-4  # of S0: what stays uncertain then is uncertain at any noise
# share of the plausible sd that may be left; a scan without a measurement to spare has nothing to average or to show
# a misfit with, and is held to less
_BLIND, _WEAK, _WEAK_EXACT, _DERIVED = 0.3, 0.95, 0.707, 0.3
_SAME = 0.01  # settings closer than this, over their largest, are one
_SAME_AXIS = 0.02


@dataclass(frozen=True)
class Undetermined:
    """Free parameters and derived quantities that a scan leaves open.

    Attributes
    ----------
    names
        Free parameters, in the signal's order, then derived quantities that rest on them.
    n_settings, n_unknown
        Distinct settings that a voxel is measured at, and numbers that are to follow from them, S0 among them.
    at_any_noise
        Whether more signal would not help.
    """

    names: tuple[str, ...]
    n_settings: int
    n_unknown: int
    at_any_noise: bool


@torch.no_grad()
def undetermined(signal: BoundSignal, likelihood: Likelihood, noise: float) -> Undetermined:
    """Judge what a signal's protocol can say of its parameters in common tissue.

    A parameter is named where the Cramer-Rao bound of its error exceeds the range that it plausibly has in every kind
    of tissue that is looked at: where one of them can be mapped the scan may be meant for it.

    Parameters
    ----------
    signal
        The signal at the settings that the model sees.
    likelihood
        Of those measurements; a measured S0 and averages are counted as it counts them.
    noise
        Noise level over S0.
    """
    signal, likelihood = copy.deepcopy(signal).double().cpu(), copy.deepcopy(likelihood).double().cpu()
    z, frame = typical(signal)
    weak, of_weak = _left(signal, likelihood, z, frame, noise)
    # with more signal nothing is left more open
    lower = bool((weak > _BLIND).any()) and noise > _NOISELESS
    blind, of_blind = _left(signal, likelihood, z, frame, _NOISELESS) if lower else (weak, of_weak)
    n_settings, n_unknown = count_settings(signal, likelihood.n_s0 is not None)
    limit = _WEAK_EXACT if n_settings <= n_unknown + 1 else _WEAK
    at_any_noise = blind > _BLIND
    open_ = at_any_noise | (weak > limit)
    named = [p.name for i, p in enumerate(signal.tissue) if open_[i] and p.name != S0.name]
    for k, p in enumerate(signal.directions):
        if bool(open_[signal.n_tissue + 2 * k : signal.n_tissue + 2 * k + 2].any()):
            named.append(p.name)
    if named:
        derived = _left_derived(signal, z, of_blind if bool(at_any_noise.any()) else of_weak)
        named += [name for name, left in derived.items() if left > _DERIVED]
    return Undetermined(tuple(named), n_settings, n_unknown, bool(at_any_noise.any()))


def _left(
    signal: BoundSignal, likelihood: Likelihood, z: Tensor, frame: Tensor | None, noise: float
) -> tuple[Tensor, Scaled]:
    """Share of the plausible sd that is left in the best tissue ``(L,)``, and the information behind it."""
    inputs = {name: z.new_full((len(z),), signal.signal.common_input(name)) for name in signal.signal.inputs}
    y = signal(signal.constrain(z, frame), inputs).clamp_min(noise)
    voxels = Voxels(y, z.new_full((len(z), 1), noise), frame, inputs)
    found = scaled_information(signal, likelihood, z, frame, voxels)
    left = left_uncertain(found.information).amin(0)
    unjudged = [p.name == S0.name or p.name in signal.signal.nuisance for p in signal.tissue]
    left[unjudged + [False] * (signal.n_latents - signal.n_tissue)] = 0.0
    return left, found


def _left_derived(signal: BoundSignal, z: Tensor, found: Scaled) -> dict[str, float]:
    """The same share of derived scalars, in the worst tissue; angles of a direction follow it and are left out."""
    names = [p.name for p in signal.signal.derived_parameters if isinstance(p, Parameter)]
    if not names or signal.direction is not None:
        return {}

    def derive(u: Tensor) -> Tensor:
        derived = signal.signal.derived(signal.constrain(u))
        return torch.stack([derived[name] for name in names], -1)

    slope = jacobian(derive, z)[1] * found.unit.unsqueeze(-2)
    variance = (slope @ covariance(found.information) * slope).sum(-1)
    left = (variance / slope.square().sum(-1).clamp_min(1e-30)).clamp_min(0).sqrt().amax(0)
    return dict(zip(names, left.tolist(), strict=True))


def count_settings(signal: BoundSignal, measured_s0: bool) -> tuple[int, int]:
    """Distinct settings that a signal's measurements have, and unknowns of a voxel; a measured S0 is one of each."""
    used = (*signal.signal.requires, *signal.signal.optional)
    extra = int(measured_s0)
    return len(distinct(signal.acquisition, used)) + extra, signal.n_latents + extra


def distinct(acquisition: Acquisition, names: tuple[str, ...]) -> Tensor:
    """Settings ``(n, C)`` that differ from one another, an axis and its opposite being one and none at b = 0."""
    columns = []
    for name, value in acquisition.settings().items():
        if name not in names:
            continue
        if name == "bvec":
            x, y, z = value.double().unbind(-1)
            encoded = torch.ones_like(x) if acquisition.bval is None else (acquisition.bval > 0).double()
            products = (x * x, y * y, z * z, x * y, x * z, y * z)
            columns += [torch.round(encoded * p / _SAME_AXIS) for p in products]
        else:
            columns.append(torch.round(value.double() / (_SAME * float(value.abs().max()) + 1e-30)))
    return torch.unique(torch.stack(columns, -1), dim=0)


def sentence(found: Undetermined, signal: BoundSignal, acquisition: Acquisition, noise: float) -> str:
    """What a scan leaves open, why, and what to do.

    Parameters
    ----------
    acquisition
        The scan's own settings, before S0 was measured on some of them.
    noise
        Noise level over S0.
    """
    used = (*signal.signal.requires, *signal.signal.optional)
    protocol = protocol_in_words(acquisition, used)
    if found.n_settings < found.n_unknown:
        settings = f"{found.n_settings} distinct setting{'' if found.n_settings == 1 else 's'}"
        why = f"it has {settings} ({protocol}) for {found.n_unknown} unknowns per voxel, S0 among them"
    elif found.at_any_noise:
        why = f"at its settings ({protocol}) different values give nearly the same measurements"
    else:
        why = f"at its settings ({protocol}) and noise (SNR {1 / noise:.2g}) the error exceeds the plausible range"
    scalars = [p.name for p in signal.tissue if p.name != S0.name]
    fixable = [name for name in scalars if name in found.names]
    fix = f", or fix a parameter (--fix {fixable[0]}=VALUE)" if fixable and len(scalars) > 1 else ""
    their = "its" if len(found.names) == 1 else "their"
    return (
        f"this scan cannot determine {listed(found.names)}: {why}; {their} values and errors are those of the prior or "
        f"of a bound, and every voxel has status 9; measure at other settings{fix}"
    )
