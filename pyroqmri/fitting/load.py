"""A fit read back from disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from pyroqmri.errors import InputError, brief
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.parts import Part, check_part, is_same_kind, kind_of, refuse_unnamed_code
from pyroqmri.fitting.rebuild import build_parts
from pyroqmri.fitting.record import FitRecord, acquisition_in, acquisition_of, check_bounds, checked_record
from pyroqmri.fitting.schema import check_recipe
from pyroqmri.fitting.shared import fit_folder
from pyroqmri.io.fit_folder import WEIGHTS, SavedFit, read_fit_folder, refuse_weights
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.noise_field import NoiseField
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.posterior.recalibration import Recalibration
from pyroqmri.recipe import Recipe


def load_fit(
    folder: str | Path,
    *,
    trust: bool = False,
    prior: Part | None = None,
    decoder: Part | None = None,
    guide: Part | None = None,
    likelihood: Part | None = None,
) -> Fit:
    """Read a fit that was saved.

    Parameters
    ----------
    folder
        Where it lies, the folder of maps with the fit in it, or the name of a fit that comes with the package
        (``pyroqmri fits list``).
    trust
        Import the classes from outside the package that the fit names (``my_module:MyPrior``); runs their modules.
    prior, decoder, guide, likelihood
        The classes, or factories, that the fit was trained with in place of the package's own.

    Raises
    ------
    InputError
        When the folder holds no fit, its files are not the ones that were written together, or it needs a class from
        outside the package that was neither given nor trusted.
    """
    parts = {"prior": prior, "decoder": decoder, "guide": guide, "likelihood": likelihood}
    return read_fit(Path(folder), trust, {table: part for table, part in parts.items() if part is not None})


def read_fit(folder: Path, trust: bool = False, objects: Mapping[str, Part] | None = None) -> Fit:
    """Read a fit back; see :func:`pyroqmri.load_fit`."""
    saved = read_fit_folder(fit_folder(folder))
    if saved.record.get("estimator") == "denoiser":
        raise InputError(f"{folder} contains a denoiser, which has no parameters; read it with pyroqmri.load_denoiser")
    recipe = _with_parts(saved.recipe, objects or {})
    if not trust:
        refuse_unnamed_code(recipe, folder)
    check_recipe(recipe)
    return _fit_of(saved, recipe, checked_record(saved, FitRecord))


def _with_parts(recipe: Recipe, objects: Mapping[str, Part]) -> Recipe:
    """The recipe with classes given in place of the kinds that it names, which have to be theirs."""
    tables = {name: dict(entries) for name, entries in recipe.tables.items()}
    for table, part in objects.items():
        check_part(table, part)
        if table not in tables:
            raise InputError(f"the fit by {recipe.name} has no {table}, and one was given")
        kind = tables[table].get("kind")
        if not is_same_kind(table, part, kind):
            raise InputError(f"the fit was trained with {table} {brief(kind)}, and {kind_of(table, part)} was given")
        tables[table]["kind"] = kind_of(table, part)  # what a fit saved again is to name
    return replace(recipe, tables=tables, objects=dict(objects))


def _fit_of(saved: SavedFit, recipe: Recipe, record: FitRecord) -> Fit:
    acq, sigma, tensors = acquisition_of(record), record.sigma, dict(saved.tensors)
    factor = 1.0 if sigma.learned_factor is None else sigma.learned_factor
    level = tensors.pop("noise.level", sigma.value / factor)
    if isinstance(level, torch.Tensor):
        known = level[~level.isnan()]  # the others are voxels without a noise level, which were not fitted
        if level.dim() != 1 or not bool(((known > 0) & known.isfinite()).all()):
            raise InputError(f"{saved.folder / WEIGHTS} has a noise level that is not above zero; train again")
    field = NoiseField.of(tensors)
    ours = [w for w in record.warnings if w not in record.alarms]  # alarms are of one image
    if tensors:
        check_bounds(saved.folder, record.signal, record.bounds)
    preparation = Preparation.of(saved.record["preparation"], acq)
    with refuse_weights(saved.folder):
        parts = build_parts(recipe, record.signal, acq, preparation, record.fixed, record.tied, tensors)
    return Fit(
        recipe, record.signal, acq, preparation, NoiseLevel(level, sigma.method, sigma.note, field=field), parts.signal,
        parts.likelihood, parts.model, parts.guide, record.fixed, record.tied, record.seed, record.trace,
        record.seconds, record.n_voxels, [*saved.warnings, *ours], Recalibration.of(saved.record.get("recalibration")),
        parts.network, tuple(record.inputs), tuple(record.covariates), tuple(record.uninformed),
        residual_noise=record.residual_noise, own_protocol=tuple(record.own_protocol),
        rests_on_shape=record.rests_on_shape,
        learned_on=None if record.learned_on is None else acquisition_in("learned_on", record.learned_on),
    )  # fmt: skip
