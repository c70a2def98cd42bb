"""Mean of each parameter over each region of each image, with the voxels' uncertainty."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyroqmri.cohort.image import path_of
from pyroqmri.cohort.record import Record
from pyroqmri.cohort.status_table import read_table
from pyroqmri.errors import InputError
from pyroqmri.files import read_table as read_json_table
from pyroqmri.files import read_text
from pyroqmri.io.nifti import read_header, volumes
from pyroqmri.maps import read_image
from pyroqmri.measurements.status import FINE

WHOLE = "mask"  # the region where there is no atlas
_SAME_GRID = 1e-3  # mm


@dataclass(frozen=True)
class RegionValue:
    """One parameter in one region of one image.

    ``mean`` is over the voxels whose status is fine, ``sd`` its uncertainty from theirs, ``spread`` the scatter
    between voxels with the noise taken out; ``left_out`` are the other voxels of the region.
    """

    subject: str
    session: str
    label: str
    region: str
    parameter: str
    unit: str
    n_voxels: int
    left_out: int
    mean: float
    sd: float
    spread: float

    @classmethod
    def header(cls) -> tuple[str, ...]:
        """Columns of the table."""
        first = ("participant_id", "session_id")
        return (*first, *(field.name for field in fields(cls) if field.name not in ("subject", "session")))

    def row(self) -> tuple[str, ...]:
        """Cells of the table."""
        numbers = (f"{self.mean:.6g}", f"{self.sd:.3g}", f"{self.spread:.4g}")
        session = f"ses-{self.session}" if self.session else ""
        counts = (str(self.n_voxels), str(self.left_out))
        return (f"sub-{self.subject}", session, self.label, self.region, self.parameter, self.unit, *counts, *numbers)


def region_values(out: Path, record: Record, atlas: str | None = None) -> list[RegionValue]:
    """Values of every parameter of an image in every region.

    Parameters
    ----------
    out, record
        The output folder of the cohort, and a record of it that is done.
    atlas
        NIfTI image of labels in the image's space; ``{subject}``, ``{session}`` and ``{label}`` stand for the image's.

    Raises
    ------
    InputError
        When a map or the atlas is damaged, or the atlas is missing or on another grid.
    """
    maps = {name: out / name for name in record.files if name.endswith(".nii.gz")}
    status_path = next(path for name, path in maps.items() if "_desc-status_mask" in name)
    image = read_image(status_path)
    status = np.asarray(image.dataobj)
    regions = _regions(status, np.asarray(image.affine), atlas, record)
    found = []
    for name, path in maps.items():
        if "_stat-mean_" not in name:
            continue
        sidecar = read_json_table(path.with_name(path.name.replace(".nii.gz", ".json")), "sidecar")
        mean = np.asarray(read_image(path).dataobj, dtype=float)
        if mean.ndim != 3:  # axes have no mean over a region
            continue
        sd = _map(path, "sd")
        for region, inside in regions.items():
            value = _value(mean, sd, inside, status == FINE)
            if value is not None:
                who = (record.subject, record.session, record.label, region)
                parameter, unit = str(sidecar.get("Parameter", "")), str(sidecar.get("Units", ""))
                found.append(RegionValue(*who, parameter, unit, *value))
    return found


def _map(path: Path, stat: str) -> NDArray | None:
    other = path.with_name(path.name.replace("_stat-mean_", f"_stat-{stat}_"))
    return np.asarray(read_image(other).dataobj, dtype=float) if other.is_file() else None


def _value(
    mean: NDArray, sd: NDArray | None, inside: NDArray[np.bool_], fine: NDArray[np.bool_]
) -> tuple[int, int, float, float, float] | None:
    """Voxels used and left out, mean, its sd, and spread; None where no voxel can be used."""
    used = inside & fine & np.isfinite(mean)
    used &= np.isfinite(sd) if sd is not None else used
    n = int(used.sum())
    if n == 0:
        return None
    variance = np.zeros(n) if sd is None else sd[used] ** 2
    values = mean[used]
    # the scatter of tissue is that of the means and, on average, what each of them leaves open
    spread = np.sqrt(values.var() + variance.mean()) if n > 1 else 0.0
    return n, int(inside.sum()) - n, float(values.mean()), float(np.sqrt(variance.sum()) / n), float(spread)


def _regions(status: NDArray, affine: NDArray, atlas: str | None, record: Record) -> dict[str, NDArray[np.bool_]]:
    if atlas is None:
        return {WHOLE: status > 0}
    path = path_of(atlas, "--atlas", record.subject, record.session, record.label)
    header = read_header(path)
    if header.shape != status.shape or np.abs(header.affine - affine).max() > _SAME_GRID:
        raise InputError(f"atlas {path} is on another grid than the maps of {record.label}; resample it to the image")
    labels = header.scaled(next(iter(volumes(header)))).reshape(header.shape, order="F").round().astype(int)
    names = _names(path)
    present = [int(label) for label in np.unique(labels[status > 0]) if label != 0]
    return {names.get(label, str(label)): (labels == label) & (status > 0) for label in present}


def _names(path: Path) -> Mapping[int, str]:
    """Names of labels, from the table ``index``, ``name`` beside a BIDS segmentation, where there is one."""
    table = path.with_name(path.name.partition(".nii")[0] + ".tsv")
    if not table.is_file():
        return {}
    read_text(table, "table of labels")
    rows: list[dict[str, Any]] = read_table(table)
    try:
        return {int(row["index"]): row["name"] for row in rows}
    except (KeyError, ValueError) as error:
        raise InputError(f"table of labels {table} needs columns index and name with whole numbers as index") from error
