"""The record of a fit, ``fit.json``: what it has to contain, checked entry by entry as it is read."""

import itertools
import math
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.denoising.training import DenoiserTrace
from pyroqmri.errors import InputError, brief
from pyroqmri.io.entries import as_kind
from pyroqmri.io.fit_folder import RECORD, SavedFit
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.misfit.causes import ResidualNoise
from pyroqmri.parameter import Parameter
from pyroqmri.signals import SIGNALS
from pyroqmri.svi import Trace

# signals whose bounds have changed since records without bounds were written
_WIDENED = {"ivim", "t1_inversion", "t1_inversion_signed", "t2_adc", "t2_biexp", "t2_decay", "t2_floor", "cest_lorentz"}


@dataclass
class NoiseRecord:
    """The noise level: in the scan's units, above zero."""

    value: float
    method: str
    note: str
    learned_factor: float | None = None


@dataclass
class MapRecord:
    """Quantiles of draws and of truths, which a recalibration goes through."""

    draws: list[float]
    truths: list[float]


@dataclass
class RecalibrationRecord:
    """The maps of a recalibration by parameter, and how it was learned."""

    maps: dict[str, MapRecord]
    made: dict[str, Any]
    levels: list[float] = field(default_factory=list)


@dataclass
class CommonRecord:
    """What the records of a fit and of a denoiser share; ``protocol`` has the settings by name."""

    signal: str
    recipe: str
    preparation: Preparation
    protocol: dict[str, list]
    sigma: NoiseRecord
    seed: int
    seconds: dict[str, float]
    n_voxels: int


@dataclass
class DenoiserRecord(CommonRecord):
    """The record of a denoiser."""

    trace: DenoiserTrace


@dataclass
class FitRecord(CommonRecord):
    """The record of a fit."""

    likelihood: str
    fixed: dict[str, float]
    tied: dict[str, str]
    trace: Trace
    warnings: list[str]
    alarms: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    covariates: list[str] = field(default_factory=list)
    own_protocol: list[str] = field(default_factory=list)
    uninformed: list[str] = field(default_factory=list)
    rests_on_shape: bool = False
    bounds: dict[str, list[float]] | None = None
    recalibration: RecalibrationRecord | None = None
    residual_noise: ResidualNoise | None = None
    learned_on: dict[str, list] | None = None


def bounds_of(signal: str) -> dict[str, list[float]]:
    """Lower and upper bound of each scalar parameter, and 1 where its coordinate is a logarithm."""
    scalars = (p for p in SIGNALS[signal].parameters if isinstance(p, Parameter))
    return {p.name: [p.lower, p.upper, float(p.log)] for p in scalars}


def check_bounds(folder: Path, signal: str, trained: dict[str, list[float]] | None) -> None:
    """Refuse weights whose coordinates mean other values here: those of a fit with other bounds.

    Raises
    ------
    InputError
        When the signal's bounds have changed since the fit was made; names the parameters.
    """
    now = bounds_of(signal)
    if trained is None:  # records had none before the bounds of these signals were widened
        changed = list(now) if signal in _WIDENED else []
    else:
        changed = [name for name in now if trained.get(name) != now[name]]
    if changed:
        raise InputError(
            f"{folder} was trained with other bounds of {', '.join(changed)} than {signal} has now, so that its "
            "weights mean other values; train again"
        )


Record = typing.TypeVar("Record", bound=CommonRecord)


def checked_record(saved: SavedFit, kind: type[Record]) -> Record:
    """The record of a saved fit as ``kind`` has it; entries that ``kind`` has not are left out.

    Raises
    ------
    InputError
        When an entry is missing, of another type, or no fit can have it; names the entry.
    """
    known = {f.name for f in fields(kind)}
    content = {key: value for key, value in saved.record.items() if key in known}
    trace = content.get("trace")
    losses = trace.get("held_out") if isinstance(trace, dict) and kind is FitRecord else None
    if isinstance(trace, dict) and isinstance(losses, list):  # NaN, where no voxel was kept aside, is no JSON
        content["trace"] = trace | {"held_out": [0.0 if x is None else x for x in losses]}
    if isinstance(content.get("signal"), str) and content["signal"] not in SIGNALS:
        raise InputError(
            f"{saved.folder} is a fit of the signal {brief(content['signal'])}, and there is none of that name here; "
            "register it first if it is your own, pyroqmri.register(signal={...})"
        )
    try:
        record: Record = as_kind(kind, content)
        _check_values(record, saved)
    except InputError as error:
        raise InputError(
            f"{saved.folder / RECORD} is not the record of a {saved.record.get('estimator', 'fit')}: {error}; copy the "
            "folder again, or train again"
        ) from error
    if isinstance(losses, list) and isinstance(record, FitRecord):
        record.trace.held_out = [math.nan if x is None else x for x in losses]
    return record  # type: ignore[return-value]


def acquisition_of(record: CommonRecord) -> Acquisition:
    """The settings that a fit is for."""
    return acquisition_in("protocol", record.protocol)


def acquisition_in(entry: str, settings: dict[str, list]) -> Acquisition:
    """The settings in an entry of a record."""
    unknown = [name for name in settings if name not in {f.name for f in fields(Acquisition)}]
    if unknown:
        raise InputError(f"entry {entry!r} has the unknown setting {brief(unknown[0])}")
    try:
        return Acquisition(**{name: torch.tensor(value) for name, value in settings.items()})
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"entry {entry!r} is no protocol: {error}") from error


def _check_values(record: CommonRecord, saved: SavedFit) -> None:
    """What the right type alone does not make right."""
    if record.recipe != saved.recipe.name:
        raise InputError(f"entry 'recipe' is {brief(record.recipe)}, and recipe.toml is {brief(saved.recipe.name)}")
    sigma, prepared = record.sigma, record.preparation
    above_zero: dict[str, Any] = {
        "sigma.value": sigma.value,
        "sigma.learned_factor": 1.0 if sigma.learned_factor is None else sigma.learned_factor,
        "preparation.scale": prepared.scale,
        "preparation.s0": 1.0 if prepared.s0 in ("measured", "inferred") else prepared.s0,
    }
    for name, value in above_zero.items():
        if isinstance(value, str) or not 1e-37 < value < 1e37:  # what float32 has
            raise InputError(f"entry {name!r} must be above zero and finite, got {brief(value)}")
    acquisition_of(record)
    if isinstance(record, FitRecord):
        acquisition_in("learned_on", record.learned_on or record.protocol)
        _check_fit(record, saved)


def _check_fit(record: FitRecord, saved: SavedFit) -> None:
    kind = saved.recipe.tables["likelihood"]["kind"]
    if record.likelihood != kind:
        raise InputError(f"entry 'likelihood' is {brief(record.likelihood)}, and that of recipe.toml is {brief(kind)}")
    model = SIGNALS[record.signal]
    known = {p.name for p in (*model.parameters, *model.derived_parameters)} | {"S0"}
    for name, found in ({} if record.recalibration is None else record.recalibration.maps).items():
        pairs = (found.draws, found.truths)
        rising = all(a < b for values in pairs for a, b in itertools.pairwise(values))
        if name not in known or len(found.draws) != len(found.truths) or len(found.draws) < 3 or not rising:
            raise InputError(f"entry 'recalibration.maps.{name}' is no map of a parameter through rising quantiles")
