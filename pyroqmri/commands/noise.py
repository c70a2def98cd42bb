"""The noise level of a scan as the caller gives it, or as the scan shows it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri.commands.inputs import NOISE_VOXELS
from pyroqmri.commands.protocol_files import PathLike
from pyroqmri.errors import InputError
from pyroqmri.fitting.coils import LEARN
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.noise_level import WORDS, field_level, noise_level, provisional
from pyroqmri.io import Scan, read_map
from pyroqmri.measurements.air import coils_in_air
from pyroqmri.measurements.arguments import as_tensor
from pyroqmri.measurements.noise import NoiseEstimate, NoiseLevel, estimate_sigma
from pyroqmri.measurements.noise_field import field_of_groups
from pyroqmri.measurements.own_protocol import WEIGHTS
from pyroqmri.measurements.voxel_inputs import complete_inputs

_NOISE_MAP = re.compile(r"(^|[_.-])(sigma|noise|noisemap|noiselevel|sd_noise)([_.-]|$)")


def given_noise(scan: Scan, sigma: PathLike | float, resample: bool = False, coils: float | str = 1.0) -> Any:
    """The noise level as :func:`pyroqmri.fit` takes it: a number, the ``(N,)`` values of a map, or an estimate.

    An estimate is a field, the :class:`NoiseLevel` of all voxels of the scan, where one is asked for or the scan shows
    one; what needs the residuals of a signal stays the word ``field``.

    Parameters
    ----------
    resample
        Interpolate a map that lies on another grid.
    coils
        Channels whose sum of squares a magnitude is the root of; where they are to be learned, nothing is estimated.

    Raises
    ------
    InputError
        When a map cannot be read, or is not above zero anywhere in the mask.
    """
    if sigma in WORDS:
        scan.notes.extend(_maps_beside(Path(scan.ref.path)))
        word = "field" if sigma == "field" else None  # fit has one more way, from the residuals of the signal itself
        if isinstance(coils, str):
            return word
        try:
            found = estimate_sigma(
                _seen(scan, slice(None, None, _every(scan))), scan.acquisition, background=scan.background, coils=coils,
                partial=WEIGHTS in scan.inputs,
            )  # fmt: skip
        except InputError as error:
            scan.notes.append(f"noise level: {error}".partition("; give sigma")[0])
            return word
        return provisional(found) if sigma == "learn" else _field_or_number(scan, found, coils, sigma == "field")
    if isinstance(sigma, int | float):
        return float(sigma)
    values, notes, doubted = read_map(sigma, scan.ref, scan.mask, "sigma map", resample=resample, positive=True)
    scan.notes.extend(notes)
    scan.warnings.extend(doubted)
    return values


def _field_or_number(scan: Scan, found: NoiseEstimate, coils: float, wanted: bool) -> Any:
    """The estimate of a scan as one number, or as a field where it is ``wanted`` or the scan shows one."""
    if not wanted and found.method != "shells":
        return provisional(found)
    rows, position = slice(None, None, _every(scan)), np.argwhere(scan.mask)
    try:
        partial = WEIGHTS in scan.inputs
        field = field_of_groups(_seen(scan, rows), scan.acquisition, position[rows], coils, partial, wanted)
    except InputError:
        return "field" if wanted else provisional(found)
    if not (wanted or field.worth_it):
        return provisional(found)
    return replace(field_level(field, position, "shells and repeats"), warnings=found.warnings)


def _seen(scan: Scan, rows: slice) -> np.ndarray:
    """Measurements of some voxels ``(n, M)``, NaN where they do not count in full."""
    weights = scan.inputs.get(WEIGHTS)
    return scan.y[rows] if weights is None else np.where(weights[rows] < 1, np.nan, scan.y[rows])


def air_coils(scan: Scan) -> float | str:
    """The number of coils whose noise the air of a scan is, or ``learn`` where there is no such air; adds a note."""
    air = np.asarray([] if scan.background is None else scan.background, dtype=float)
    try:
        found = max(1.0, round(coils_in_air(air), 1))
    except InputError as error:
        scan.notes.append(f"the number of coils is taken from the measurements: {error}")
        return LEARN
    scan.notes.append(f"{found:g} coils, from the spread of {len(air)} values in air")
    return found


def _maps_beside(image: Path) -> list[str]:
    """A sentence on what lies beside an image and is called a noise map."""
    try:
        names = sorted(path.name for path in image.parent.iterdir() if path.name.endswith((".nii", ".nii.gz")))
    except OSError:
        return []
    own = image.name.partition(".nii")[0].rpartition("_")[0]
    named = [name for name in names if name != image.name and name.startswith(own) and _NOISE_MAP.search(name.lower())]
    if not named:
        return []
    return [f"{', '.join(named[:3])} beside the image is named as a noise map: use it with --sigma FILE if it is one"]


def settle_noise(fit: Fit, scan: Scan, level: Any) -> NoiseLevel:
    """One number and its story for the noise of a scan that a fit is applied to."""
    y = torch.from_numpy(scan.y[:: _every(scan)])
    rows = slice(None, None, _every(scan))
    sample = (
        level[rows] if isinstance(level, np.ndarray) else level.of(rows) if isinstance(level, NoiseLevel) else level
    )
    inputs = {name: as_tensor(value[:: _every(scan)]) for name, value in scan.inputs.items()}
    known = complete_inputs(fit.signal.signal, inputs, len(y))
    position = torch.from_numpy(np.argwhere(scan.mask))
    place = position[rows] if isinstance(level, str) else None
    noise = noise_level(y, fit.acquisition, sample, fit.preparation, fit.signal, known, place)
    scan.warnings.extend(noise.warnings)
    return noise.at(position) if noise.field is not None else replace(noise, level=noise.sigma)


def _every(scan: Scan) -> int:
    return max(1, len(scan.y) // NOISE_VOXELS)
