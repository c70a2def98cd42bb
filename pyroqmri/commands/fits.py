"""Fits to share: their cards, and folders of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pyroqmri.calibration.check import check
from pyroqmri.calibration.ranks import LEVELS
from pyroqmri.calibration.simulated_voxels import own_tissue
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.fitting.save import save_fit
from pyroqmri.fitting.shared import fit_folder, shared_fits
from pyroqmri.io.fit_archive import unpacked
from pyroqmri.io.fit_folder import RECIPE, RECORD, WEIGHTS, fit_place, read_fit_folder
from pyroqmri.protocol_checks.words import protocol_in_words
from pyroqmri.signals import SIGNALS
from pyroqmri.whole_files import write_bytes

VOXELS = 4000  # drawn to state a population


def fit_rows(folder: PathLike | None = None) -> list[tuple[str, ...]]:
    """A row for each fit that comes with the package, or lies in ``folder``: name, signal, recipe, voxels, licence."""
    rows = []
    for name, path in shared_fits(folder).items():
        record = read_fit_folder(path).record
        card = record.get("card") or {}
        rows.append(
            (name, str(record.get("signal")), str(record.get("recipe")), str(record.get("n_voxels")),
             str(card.get("licence", "not stated")), str(card.get("source", "")))
        )  # fmt: skip
    return rows


def fit_card(place: PathLike) -> list[tuple[str, str]]:
    """The card of a fit as pairs of a heading and a text.

    Parameters
    ----------
    place
        Name of a shared fit, a folder of one, or a zip archive of it.

    Raises
    ------
    InputError
        When there is no such fit, or its files are damaged.
    """
    with unpacked(_existing(place)) as folder:
        return _card(folder)


def _card(folder: Path) -> list[tuple[str, str]]:
    fit, record = load_fit(folder), read_fit_folder(folder).record
    card: dict[str, Any] = record.get("card") or {}
    signal = SIGNALS[fit.signal_name]
    learned = fit.acquisition if fit.learned_on is None else fit.learned_on
    size = sum((fit_place(folder) / name).stat().st_size for name in (RECIPE, WEIGHTS, RECORD))
    rows = [
        ("signal", f"{fit.signal_name} ({', '.join(signal.requires)})"),
        ("recipe", f"{fit.recipe.name}, likelihood {fit.recipe.kind('likelihood')}, S0 {fit.preparation.s0}"),
        ("learned from", f"{fit.n_voxels} voxels; {card.get('source', 'source not stated')}"),
        ("protocol", f"{len(learned)} volumes: {protocol_in_words(learned, (*signal.requires, *signal.optional))}"),
        *[("population", row) for row in population_rows(fit)],
        ("noise", f"sigma {fit.sigma:.4g} in the scan's units ({fit.noise.method})"),
        *[("calibration", row) for row in card.get("calibration", ["not recorded"])],
        ("licence", str(card.get("licence", "not stated"))),
        ("citation", str(card.get("citation", "not stated"))),
        ("size", f"{size / 1000:.0f} kB"),
    ]
    return [*rows, *[("warning", warning) for warning in fit.warnings]]


def population_rows(fit: Fit) -> list[str]:
    """The population of each parameter in physical units: its median and the middle 68 % of voxels."""
    if fit.model is None:
        return ["none: the recipe estimates each voxel by itself"]
    own = own_tissue(fit, VOXELS, 0)
    rows, levels = [], torch.tensor([0.16, 0.5, 0.84])
    for p in fit.signal.tissue:
        scale = own.s0 if p.name in fit.signal.in_scan_units else 1.0
        low, middle, high = (own.theta[p.name].float() * scale).quantile(levels).tolist()
        unit = "" if p.unit == "1" else f" {p.unit}"
        rows.append(f"{p.name} {middle:.3g}{unit}, 68 % of voxels {low:.3g} to {high:.3g}")
    return rows


def use_fit(name: PathLike, out: PathLike, overwrite: bool = False) -> Path:
    """Copy a shared fit to a folder of its own.

    Parameters
    ----------
    name, out, overwrite
        As in :func:`fit_card` and :func:`pyroqmri.commands.fit_image`.
    """
    place = _existing(name)
    with unpacked(place) as there, output_folder(out, overwrite=overwrite, inputs=[place]) as folder:
        source = fit_place(there)
        read_fit_folder(source)  # damaged files are not handed on
        for file in (RECIPE, WEIGHTS, RECORD):
            write_bytes(folder / file, (source / file).read_bytes())
    return Path(out)


def share_fit(
    fit_dir: PathLike,
    *,
    out: PathLike,
    licence: str,
    citation: str,
    source: str,
    voxels: int = 2000,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write a fit alone, without maps or voxels, with its card and calibration: a folder to hand on.

    Parameters
    ----------
    fit_dir
        Folder of the fit, or of the maps with the fit in it.
    licence, citation, source
        Of the data that it learned from: under which terms, what to cite, which scan on which scanner.
    voxels, seed
        Simulated voxels of the calibration rows; 0 for none.
    """
    for name, text in (("licence", licence), ("citation", citation), ("source", source)):
        if not text.strip():
            raise InputError(f"{name} is empty; state the {name} of the data that the fit learned from")
    fit = load_fit(fit_dir)
    if isinstance(fit.noise.level, torch.Tensor) or fit.noise.field is not None:
        raise InputError(f"{fit_dir} has a noise level per voxel, which is of one scan; share the fit of a maps folder")
    card = {"licence": licence, "citation": citation, "source": source, "calibration": _calibration(fit, voxels, seed)}
    with output_folder(out, overwrite=overwrite, inputs=[fit_dir]) as folder:
        save_fit(fit, folder, {"card": card})
    return Path(out)


def _calibration(fit: Fit, n: int, seed: int) -> list[str]:
    if fit.model is None:
        return ["not checked: no population of its own"]
    if n == 0:
        return ["not checked"]
    found = check(fit, n=n, seed=seed, truth="own")
    rows: Sequence[Any] = found.cells
    at = LEVELS.index(0.9)
    names = [c.parameter if c.group == "all" else f"{c.parameter} in {c.group}" for c in rows]
    said = [
        f"{name}: {LEVELS[at]:.0%} intervals contain {cell.coverage[at]:.1%} of {cell.n} simulated voxels"
        for name, cell in zip(names, rows, strict=True) if cell.counts
    ]  # fmt: skip
    return [*said, found.verdict]


def _existing(place: PathLike) -> Path:
    folder = fit_folder(place)
    if not folder.exists():
        known = ", ".join(shared_fits()) or "none"
        raise InputError(f"there is no fit {str(place)!r}, as a folder or by name; fits that come along: {known}")
    return folder
