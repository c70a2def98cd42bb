"""What an output folder holds, read back from its files alone."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pyroqmri.errors import InputError
from pyroqmri.io.map_names import from_file
from pyroqmri.maps import read_image
from pyroqmri.measurements.status import STATUS
from pyroqmri.parameter import SCAN_UNIT, Direction, Parameter
from pyroqmri.report.fit_record import check_record
from pyroqmri.report.geometry import View, best_view, canonical, canonical_axes, orientation
from pyroqmri.signals import SIGNALS
from pyroqmri.signals.bound import S0
from pyroqmri.signals.tensor import ELEMENTS

_NAME = re.compile(
    r"(?:(?P<prefix>.+)_)?model-(?P<model>.+?)_"
    r"(?:param-(?P<param>.+)_stat-(?P<stat>[^_]+)|desc-(?P<desc>[^_]+))_[^_]+"
)
_LARGEST_JSON = 1 << 28


@dataclass(frozen=True)
class Entry:
    """One map file."""

    path: Path
    sidecar: dict[str, Any]


@dataclass(frozen=True)
class FolderOfMaps:
    """Maps and records of one fit.

    Parameters
    ----------
    folder
        Where they lie.
    signal
        Name of the signal model.
    prefix
        The image's name, as far as the maps carry it.
    entries
        Maps by ``(parameter, statistic)`` or ``("", description)``.
    record
        ``fit/fit.json``, empty without it.
    recipe
        Text of ``fit/recipe.toml``, if there.
    """

    folder: Path
    signal: str
    prefix: str
    entries: dict[tuple[str, str], Entry]
    record: dict[str, Any]
    recipe: str | None

    def has(self, name: str, stat: str) -> bool:
        """Whether this map is there."""
        return (name, stat) in self.entries

    def volume(self, name: str, stat: str) -> NDArray:
        """A map in canonical orientation; times are in ms whatever their file has."""
        return self._cached(self.entries[name, stat].path, self._factor(name, stat))

    def _factor(self, name: str, stat: str) -> float:
        known = self._tables.get(name)
        written = str(self.entries[name, stat].sidecar.get("Units", ""))
        return from_file(known.unit, written) if isinstance(known, Parameter) else 1.0

    def sidecar(self, name: str, stat: str) -> dict[str, Any]:
        """What the map says of itself; empty without a sidecar."""
        return self.entries[name, stat].sidecar

    @property
    def names(self) -> list[str]:
        """Parameters with a scalar mean map, in the order of the signal's tables; elements of a tensor come last."""
        found = {name for name, stat in self.entries if stat == "mean" and name not in self.directions}
        table = [*self._tables, *sorted(found)]
        if ELEMENTS[0] in found:
            table.sort(key=lambda name: not self.is_derived(name))
        return [name for name in dict.fromkeys(table) if name in found]

    @property
    def directions(self) -> list[str]:
        """Parameters that are axes."""
        declared = [name for name, p in self._tables.items() if p.is_direction]
        return [name for name in declared if (name, "mean") in self.entries]

    def parameter(self, name: str) -> Parameter:
        """Symbol, unit, bounds: from the signal's table, else from the sidecar."""
        known = self._tables.get(name)
        # S0 and amplitudes have the scan's units, which their sidecars state
        if isinstance(known, Parameter) and known.unit != SCAN_UNIT:
            return known
        said = self.entries[name, "mean"].sidecar
        doc = str(said.get("Description", name)).rsplit(": ", 1)[0]
        return Parameter(name, str(said.get("Symbol", name)), str(said.get("Units", "1")), *_bounds(said), doc)

    def is_derived(self, name: str) -> bool:
        """Whether the signal computes this quantity from its parameters."""
        return self.signal in SIGNALS and name in {p.name for p in SIGNALS[self.signal].derived_parameters}

    @cached_property
    def _tables(self) -> dict[str, Parameter | Direction]:
        if self.signal not in SIGNALS:
            return {}
        model = SIGNALS[self.signal]
        return {p.name: p for p in (*model.parameters, *model.derived_parameters, S0)}

    @cached_property
    def _cached(self) -> Callable[[Path, float], NDArray]:
        def read(path: Path, factor: float) -> NDArray:
            values = np.asarray(read_image(path).dataobj)
            if values.shape[:3] != self.grid_shape:
                raise InputError(
                    f"{path} has the shape {values.shape}, and other maps beside it {self.grid_shape}; write it again"
                )
            return canonical(values if factor == 1 else values * values.dtype.type(factor), self.affine)[0]

        # a figure asks for the same map several times; all maps of a whole brain would not fit
        return lru_cache(maxsize=4)(read)

    @cached_property
    def _grid(self) -> nib.Nifti1Image:
        return read_image(next(iter(self.entries.values())).path)

    @property
    def affine(self) -> NDArray:
        """From voxels of the files to mm."""
        return orientation(self._grid)[0]

    @property
    def oriented(self) -> bool:
        """Whether the files say which way the body lies."""
        return orientation(self._grid)[1]

    @cached_property
    def canonical_affine(self) -> NDArray:
        """From voxels of the canonical volumes to mm."""
        return canonical(np.zeros(self._grid.shape[:3], np.uint8), self.affine)[1]

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Shape of the files' volumes."""
        return tuple(self._grid.shape[:3])

    @property
    def axes(self) -> tuple[int, int, int]:
        """The canonical axis of each axis of the files."""
        return canonical_axes(self.affine)

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """Status codes in canonical orientation; without a status map, 1 where any mean is not zero."""
        if self.has("", "status"):
            return np.asarray(self.volume("", "status"), np.uint8)
        means = [self.volume(name, "mean") for name in self.names]
        return np.any([m != 0 for m in means], axis=0).astype(np.uint8)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels that were fitted or tried."""
        return self.status > 0

    def view(self, n_slices: int) -> View:
        """The slices to show."""
        return best_view(self.mask, self.canonical_affine, n_slices, self.oriented)

    @property
    def levels(self) -> dict[int, str]:
        """Meaning of each status code."""
        said = self.sidecar("", "status").get("Levels") if self.has("", "status") else None
        if not isinstance(said, dict):
            return STATUS
        return {int(code): str(text) for code, text in said.items() if code.isdecimal() and len(code) <= 3}

    @property
    def classes(self) -> list[str]:
        """Names of the tissue classes."""
        n = int(self.volume("C", "prob").shape[-1])
        said = self.sidecar("C", "prob").get("Classes")
        named = isinstance(said, list) and len(said) == n
        return [str(name) for name in said or ()] if named else [f"class {c + 1}" for c in range(n)]

    @property
    def warnings(self) -> list[str]:
        """What the fit's record warns of."""
        said = self.record.get("warnings", [])
        return [str(warning) for warning in said] if isinstance(said, list) else []

    @property
    def counts(self) -> dict[int, int]:
        """Voxels of each status code inside the mask."""
        codes, counts = np.unique(self.status[self.mask], return_counts=True)
        return {int(code): int(count) for code, count in zip(codes, counts, strict=True)}


def read_folder(folder: Path) -> FolderOfMaps:
    """Read an output folder; every file is optional but for one map.

    Raises
    ------
    InputError
        When the folder holds no map, or a record that is no JSON or not that of a fit.
    """
    place = folder / "fit" / "fit.json"
    record = check_record(_read_json(place), place)
    recipe = folder / "fit" / "recipe.toml"
    found = []
    for path in sorted(folder.glob("*model-*.nii.gz")):
        match = _NAME.fullmatch(path.name.removesuffix(".nii.gz"))
        if match is not None:
            found.append((match, Entry(path, _read_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json")))))
    wanted = record.get("signal", found[0][0]["model"] if found else "")
    found = [(m, e) for m, e in found if m["model"] == wanted]
    if not found:
        raise InputError(
            f"{folder} contains no maps named *model-{wanted if wanted else 'S'}_param-*_stat-mean_*.nii.gz; "
            "give the output folder of a fit"
        )
    entries = {(m["param"], m["stat"]) if m["param"] else ("", m["desc"]): e for m, e in found}
    text = recipe.read_text(errors="replace") if recipe.is_file() else None
    prefix = found[0][0]["prefix"]
    return FolderOfMaps(folder, wanted, "" if prefix is None else prefix, entries, record, text)


def _bounds(sidecar: dict[str, Any]) -> tuple[float, float]:
    try:
        lower, upper = map(float, sidecar["Bounds"])
    except (KeyError, TypeError, ValueError):
        return -1e30, 1e30
    return lower, upper


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():  # nor a pipe, which would wait for ever
        return {}
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise InputError(f"{path} has more than {_LARGEST_JSON >> 20} MiB; restore it or remove it")
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file ({error}); restore it or remove it") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is a JSON {type(found).__name__} in place of an object; restore it or remove it")
    return found
