"""A fit on another protocol than it learned on: other settings, directions or numbers of measurements."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_pair, build_signal
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.protocol import Comparison, compare_protocols
from pyroqmri.fitting.rebuild import build_parts, weights_of
from pyroqmri.guides import Guide
from pyroqmri.measurements.arguments import as_measurements
from pyroqmri.measurements.preparation import Batch, Preparation, averages_shells, prepare_for, shortest_te
from pyroqmri.protocol_checks.judge import judge_protocol
from pyroqmri.protocol_checks.words import protocol_in_words
from pyroqmri.signals import SIGNALS
from pyroqmri.svi import Training, fit_svi, seeded
from pyroqmri.voxel_model import VoxelModel

GAIN = 2.0  # ratio of two scans' S0 from which one is in other units
REACH = 1.25  # ratio of the largest b-values from which D and K are other quantities


def is_other(fit: Fit, acquisition: Acquisition) -> bool:
    """Whether a scan's settings, beside its gradient directions, are others than those of the fit."""
    return compare_protocols(fit.acquisition, acquisition, fit.signal_name).difference is not None


def needs_training(fit: Fit, acquisition: Acquisition) -> bool:
    """Whether the fit's guide or network has to be trained before it is used on a scan."""
    found = compare_protocols(fit.acquisition, acquisition, fit.signal_name)
    same = found.difference is None and found.same_directions
    return not same and not _any_protocol(fit) and (found.difference is not None or _sees_measurements(fit))


def on_protocol(
    fit: Fit,
    y: Any,
    acquisition: Acquisition,
    sigma: Any = None,
    inputs: Mapping[str, Any] | None = None,
    retrain: bool = False,
) -> Fit:
    """The fit for voxels ``(N, M)`` of a scan, whatever its protocol, with what that does not determine.

    Parameters
    ----------
    y, sigma, inputs
        As in :meth:`pyroqmri.Fit.posterior`.
    acquisition
        The scan's M settings.
    retrain
        Train the guide, or the network, on this protocol where it depends on the one it was trained on.

    Raises
    ------
    InputError
        When the signal cannot use the scan, or the recipe has to be trained again and ``retrain`` is not set.
    """
    y = as_measurements(y, acquisition)
    if not (retrain and needs_training(fit, acquisition)):
        other = fit.on(acquisition)
    elif fit.network is not None:
        return _network_again(fit, y, acquisition, sigma, inputs)
    else:
        other = _guide_again(fit, y, acquisition, sigma, inputs)
    changed = other.learned_on is not None and is_other(fit, acquisition)
    return judged(other, other.batch(y, sigma, inputs)) if changed else other


def transferred(fit: Fit, acquisition: Acquisition, found: Comparison) -> Fit:
    """The fit with its signal, likelihood and guide at another protocol; its population is the one that was learned.

    Raises
    ------
    InputError
        When the signal cannot use the protocol, or the recipe has to be trained on it.
    """
    if not _any_protocol(fit):
        raise InputError(
            f"{found.difference}, and recipe {fit.recipe.name} is trained for one protocol; train it on this one with "
            "--retrain (retrain=True), or use a recipe whose guide takes any, such as hierarchical"
        )
    other = at_settings(fit, acquisition)
    parts = build_parts(
        fit.recipe, fit.signal_name, other.acquisition, other.preparation, fit.fixed, fit.tied, weights_of(fit)
    )  # fmt: skip
    return replace(other, **parts._asdict())


def at_settings(fit: Fit, acquisition: Acquisition) -> Fit:
    """The fit with its signal, likelihood and preparation at another protocol; its guide and network are still to be.

    Raises
    ------
    InputError
        When the signal cannot use the protocol.
    """
    acquisition, preparation = _averaged(fit, acquisition), _preparation(fit, acquisition)
    signal = build_signal(fit.signal_name, acquisition, preparation, fit.fixed, fit.tied, fit.recipe.ranges)
    likelihood = build_likelihood(fit.recipe, acquisition, preparation)
    likelihood.log_factor.data.copy_(fit.likelihood.log_factor.detach())
    return replace(
        fit, acquisition=acquisition, preparation=preparation, signal=signal, likelihood=likelihood,
        learned_on=_origin(fit), warnings=_warnings(fit), seconds=dict(fit.seconds), recalibration=None, uninformed=(),
        causes=(), residual_noise=None,
    )  # fmt: skip


def judged(fit: Fit, batch: Batch) -> Fit:
    """The fit with the names of what its present protocol does not determine, and warnings of that."""
    found = judge_protocol(fit.signal, fit.likelihood, fit.acquisition, fit.signal_name, batch.voxels.noise)
    return replace(fit, uninformed=found.uninformed, warnings=[*fit.warnings, *found.warnings])


def transfer_note(fit: Fit) -> str:
    """Which protocol a fit learned on and which one it is applied to, in words; empty where they are one."""
    if fit.learned_on is None:
        return ""
    model = SIGNALS[fit.signal_name]
    used = (*model.requires, *model.optional)
    before, now = (f"{len(a)} volumes: {protocol_in_words(a, used)}" for a in (fit.learned_on, fit.acquisition))
    return f"learned on another protocol ({before}), applied to this one ({now})"


def _any_protocol(fit: Fit) -> bool:
    return fit.network is None and (fit.guide is None or fit.guide.any_protocol)


def _sees_measurements(fit: Fit) -> bool:
    return fit.network is not None or (fit.guide is not None and fit.guide.sees_measurements)


def _origin(fit: Fit) -> Acquisition:
    return fit.acquisition if fit.learned_on is None else fit.learned_on


def _averaged(fit: Fit, acquisition: Acquisition) -> Acquisition:
    """The protocol with the fit's averages where it has none of its own and they are one number."""
    counts = fit.acquisition.n_averages
    same = acquisition.averages is None and fit.acquisition.averages is not None and bool((counts == counts[0]).all())
    return acquisition.averaged(float(counts[0])) if same else acquisition


def _preparation(fit: Fit, acquisition: Acquisition) -> Preparation:
    """How the other protocol's measurements are treated: as those of the training, shells and echoes being its own."""
    signal, table = SIGNALS[fit.signal_name], fit.recipe.tables.get("data", {})
    found = replace(
        fit.preparation,
        average=averages_shells(signal, table.get("average", "auto"), acquisition),
        shortest_te=shortest_te(acquisition, table.get("first_echo", 1)),
    )
    if signal.has_s0(fit.acquisition) != signal.has_s0(acquisition):
        lacks = "fit" if signal.has_s0(acquisition) else "image"
        raise InputError(f"the measurements of the {lacks} have no S0 and those of the other have one; train again")
    try:
        found.seen(acquisition)
    except InputError as error:
        raise InputError(f"the fit cannot be applied to this protocol: {error}") from error
    return found


def _warnings(fit: Fit) -> list[str]:
    """What was amiss where the fit learned, marked as that; causes of misfit are of one scan and stay there."""
    causes = {cause.sentence for cause in fit.causes}
    before = "where the fit learned: "
    return [w if w.startswith(before) else f"{before}{w}" for w in fit.warnings if w not in causes]


def reach_warnings(fit: Fit) -> list[str]:
    """A sentence where the largest b-value is not that of the training, which D and K depend on."""
    if fit.learned_on is None or fit.learned_on.bval is None or fit.acquisition.bval is None:
        return []
    before, now = (1000 * float(a.bval.max()) for a in (fit.learned_on, fit.acquisition))  # type: ignore[union-attr]
    if max(before, now) <= REACH * min(before, now):
        return []
    return [
        f"the fit learned on b up to {before:.0f} s/mm2 and this scan reaches {now:.0f}: in tissue the parameters of "
        f"{fit.signal_name} depend on the range of b, so that the population may lie beside that of this scan"
    ]


def gain_warnings(fit: Fit, y: Any) -> list[str]:
    """A sentence where measurements ``(N, M)`` of another protocol are in other units than a learned S0."""
    if fit.learned_on is None or fit.preparation.s0 != "inferred" or not fit.signal.infer_s0:
        return []
    signal, y = SIGNALS[fit.signal_name], as_measurements(y, fit.acquisition)
    own = prepare_for(signal, fit.acquisition, y, s0="inferred", average="volumes", magnitude=fit.preparation.magnitude)
    ratio = own.scale / fit.preparation.scale
    if 1 / GAIN <= ratio <= GAIN:
        return []
    return [
        f"S0 of this image is about {ratio:.2g} times that of the scan that the fit learned on, as with another "
        f"receiver gain, and the population of S0 is in its units; divide the image by {ratio:.2g}, or train on it"
    ]


def _guide_again(fit: Fit, y: torch.Tensor, acquisition: Acquisition, sigma: Any, inputs: Any) -> Fit:
    """The fit with a guide that is trained on the other protocol; what the model learned stays as it is."""
    other = at_settings(fit, acquisition)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        model, guide = build_pair(fit.recipe, other.signal, other.likelihood, 1.0)
    assert fit.model is not None
    own = {k: v for k, v in model.state_dict().items() if k.endswith("n_average")}
    theirs = {k: v.cpu() for k, v in fit.model.state_dict().items() if not k.endswith("n_average")}
    model.load_state_dict(theirs | own)
    other = replace(other, model=model, guide=guide)
    _train_guide(other, model, guide, other.batch(y, sigma, inputs))
    return other


def _train_guide(fit: Fit, model: VoxelModel, guide: Guide, batch: Batch) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    voxels = guide.prepare(batch.voxels)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    guide.start(voxels)
    model.load_state_dict(state)  # some guides start the population too, which is known here
    for parameter in learned:
        parameter.requires_grad_(False)
    with seeded(fit.seed, voxels.y):
        voxels = guide.training_set(voxels)
    fit.trace = fit_svi(model, guide, voxels, Training(**fit.recipe.table("training")), seed=fit.seed)
    for parameter in learned:
        parameter.requires_grad_(True)
    fit.seconds["retrain"] = fit.trace.seconds
    fit.warnings += [fit.trace.not_converged] if fit.trace.not_converged else []


def _network_again(fit: Fit, y: torch.Tensor, acquisition: Acquisition, sigma: Any, inputs: Any) -> Fit:
    """A network of the fit's recipe, trained on the other protocol."""
    from pyroqmri.fitting.train import fit as train

    level = fit.noise.level if sigma is None else sigma
    again = train(
        y, _averaged(fit, acquisition), signal=fit.signal_name, recipe=fit.recipe, sigma=level, s0=fit.preparation.s0,
        seed=fit.seed, fixed=fit.fixed, tied=fit.tied, inputs=inputs,
    )  # fmt: skip
    again.learned_on = _origin(fit)
    return again
