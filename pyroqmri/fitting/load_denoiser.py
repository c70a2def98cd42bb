"""A denoiser read back from disk."""

from pathlib import Path

from pyroqmri.denoising.autoencoders import build_autoencoder
from pyroqmri.denoising.fit import DenoiserFit
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.fitting.record import DenoiserRecord, acquisition_of, checked_record
from pyroqmri.fitting.schema import check_recipe
from pyroqmri.io.fit_folder import MAX_RECORD, RECORD, SavedFit, fit_place, read_fit_folder, refuse_weights
from pyroqmri.measurements.noise import NoiseLevel
from pyroqmri.measurements.preparation import Preparation


def is_denoiser(folder: str | Path) -> bool:
    """Whether a folder holds a saved denoiser."""
    try:
        return read_table(fit_place(folder) / RECORD, "record", MAX_RECORD).get("estimator") == "denoiser"
    except InputError:
        return False


def load_denoiser(folder: str | Path) -> DenoiserFit:
    """Read a denoiser that was saved.

    Raises
    ------
    InputError
        When the folder holds none, or its files are not the ones that were written together.
    """
    saved = read_fit_folder(folder, "denoiser")
    recipe = saved.recipe
    if saved.record.get("estimator") != "denoiser":
        raise InputError(f"{folder} is a fit of {recipe.name}, which denoises nothing; give a denoiser's")
    if recipe.estimator != "denoiser":  # before it is checked: parts of other estimators may name modules to import
        raise InputError(f"the recipe of this denoiser is one of a {recipe.estimator}; its folder was changed by hand")
    check_recipe(recipe)
    return _rebuilt(saved, checked_record(saved, DenoiserRecord))


def _rebuilt(saved: SavedFit, record: DenoiserRecord) -> DenoiserFit:
    acq, tensors = acquisition_of(record), dict(saved.tensors)
    network = build_autoencoder(saved.recipe, len(acq))
    with refuse_weights(saved.folder):
        centre = tensors.pop("centre")
        network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
    noise = NoiseLevel(record.sigma.value, record.sigma.method, record.sigma.note)
    preparation = Preparation.of(saved.record["preparation"], acq)
    return DenoiserFit(
        saved.recipe, record.signal, acq, preparation, noise, network, centre, record.seed, record.trace,
        record.seconds, record.n_voxels,
    )  # fmt: skip
