"""Posterior maps on disk: NIfTI volumes, sidecars and the names they carry.

The names are part of the contract with scripts outside this repository::

    P_model-S_param-NAME_stat-{mean,sd,q05,q95}_SUFFIX.nii.gz  (+ .json), in BIDS units: times in s
    P_model-S_param-NAME_stat-contraction_dwimap.nii.gz        how much narrower than the population, 1 to 0
    P_model-S_param-NAME_stat-neighbours_dwimap.nii.gz         share of what is known that neighbours state (spatial)
    P_model-S_param-n_stat-{mean,cone90}_SUFFIX.nii.gz         axes (4-D, 3 volumes) and their cone in degrees
    P_model-S_param-C_stat-prob_dwimap.nii.gz                  mixture responsibilities, 4-D
    P_model-S_desc-{ppc,residual,khat,alone}_dwimap.nii.gz           P_model-S_desc-status_mask.nii.gz
"""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from pyroqmri import __version__
from pyroqmri.errors import InputError
from pyroqmri.io.map_names import ASYMPTOTIC, POINT, STATISTICS, file_unit, map_suffix
from pyroqmri.io.neighbour_maps import neighbour_maps
from pyroqmri.measurements.status import FINE, NOT_CONVERGED, STATUS
from pyroqmri.signals import SIGNALS
from pyroqmri.voxelwise.estimates import PointEstimates
from pyroqmri.whole_files import write_bytes

if TYPE_CHECKING:
    from pyroqmri.posterior.estimates import Estimates

_PACKAGES = ("torch", "pyro-ppl", "numpy", "nibabel", "dipy", "arviz")
_PPC = "posterior predictive p-value: near 0 where the signal does not describe the measurements"
_RESIDUAL_P = "p-value of the residual sum of squares: near 0 where the signal does not describe the measurements"
_CONTRACTION = (
    "1 - (posterior sd / population sd)^2: near 1 where the voxel's own measurements determine it, near 0 where the "
    "value is that of the population"
)
_RESIDUAL = "root-mean-square residual in units of the noise: 1 where noise is all there is"


class Grid(Protocol):
    """Where voxels lie: what :class:`pyroqmri.io.ImageRef` offers of a scan."""

    @property
    def prefix(self) -> str:
        """What the names of its maps begin with."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        ...

    @property
    def affine(self) -> NDArray:
        """From voxels to mm."""
        ...


def map_name(prefix: str, signal: str, *entities: str) -> str:
    """File name without extension, ``P_model-S_...``; an empty prefix leaves no underscore behind."""
    return "_".join(part for part in (prefix, f"model-{signal}", *entities) if part)


def scatter(values: Any, mask: NDArray[np.bool_], dtype: Any = np.float32) -> NDArray:
    """Volume ``(X, Y, Z)`` or ``(X, Y, Z, K)`` of voxel values ``(N,)`` or ``(N, K)``, zero outside the mask."""
    values = np.asarray(values)
    if len(values) != int(mask.sum()):
        raise InputError(
            f"the mask has {int(mask.sum())} voxels and the posterior {len(values)}; give the mask it was made with"
        )
    volume = np.zeros(mask.shape + values.shape[1:], dtype)
    volume[mask] = values
    return volume


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file, indented, non-ASCII as it is."""
    return write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_volume(path: Path, volume: NDArray, affine: NDArray, oriented: bool = True) -> Path:
    """Write ``.nii.gz`` in voxel-to-mm ``affine``, or with voxel sizes alone; the same volume gives the same bytes."""
    image = nib.Nifti1Image(volume, affine if oriented else None)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    image.header.set_xyzt_units("mm")
    return write_bytes(path, igzip.compress(image.to_bytes(), compresslevel=1, mtime=0))  # no time stamp


def read_image(path: Path) -> nib.Nifti1Image:
    """Read a ``.nii.gz`` that :func:`write_volume` wrote, with its values.

    Raises
    ------
    InputError
        When it is damaged.
    """
    try:
        image = nib.Nifti1Image.from_bytes(igzip.decompress(path.read_bytes()))
        # here, because a file that is cut short fails only now
        return nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    except Exception as error:  # nibabel and gzip raise many kinds of exception for a damaged file
        raise InputError(f"{path} cannot be read as a .nii.gz map ({error}); write it again") from error


class _Writer:
    """Volumes and sidecars of one posterior in one folder."""

    def __init__(self, out: Path, grid: Grid, mask: NDArray[np.bool_], signal: str, common: dict[str, Any]) -> None:
        if tuple(mask.shape) != tuple(grid.shape[:3]):
            raise InputError(f"the mask is {tuple(mask.shape)} and the image {tuple(grid.shape[:3])}; they must agree")
        self.out, self.grid, self.mask, self.signal, self.common = out, grid, mask, signal, common
        self.affine, self.oriented = np.asarray(grid.affine), getattr(grid, "oriented", True)
        self.written: list[Path] = []
        self.lacking = np.zeros(int(mask.sum()), bool)  # voxels without a number in some map

    def add(self, values: Any, entities: Sequence[str], sidecar: dict[str, Any], dtype: Any = np.float32) -> None:
        """Write ``values`` (N,) or (N, K) and what they mean; what is not finite becomes NaN."""
        volume = scatter(values, self.mask, dtype)
        lost = ~np.isfinite(volume)
        if lost.any():
            volume[lost] = np.nan
        self.lacking |= lost[self.mask].reshape(len(self.lacking), -1).any(1)
        name = map_name(self.grid.prefix, self.signal, *entities)
        self.written.append(write_volume(self.out / f"{name}.nii.gz", volume, self.affine, self.oriented))
        self.written.append(write_json(self.out / f"{name}.json", {**sidecar, **self.common}))


def write_maps(
    posterior: "Estimates",
    scan_ref: Grid,
    mask: NDArray[np.bool_],
    out: Path,
    *,
    signal_name: str,
    suffix: str,
    recipe: str,
    likelihood: str,
    sources: Sequence[str],
    class_names: Sequence[str] | None = None,
    khat: bool = False,
) -> tuple[list[Path], NDArray[np.uint8]]:
    """Write every map of a posterior, each with its sidecar, and the BIDS files of the folder.

    Parameters
    ----------
    posterior
        What a fit says of the N voxels of ``mask``, in the order of ``image[mask]``.
    scan_ref
        Shape, affine and name prefix of the scan.
    mask
        Fitted voxels ``(X, Y, Z)``.
    out
        An existing or new folder.
    signal_name, suffix, recipe, likelihood, sources
        Go into names and sidecars.
    class_names
        Names of the C mixture components, in order.
    khat
        Also write the PSIS diagnostic, which costs many draws a voxel.

    Returns
    -------
    list of Path
        All files written: float32 maps, 0 outside the mask and NaN inside it only where the status map has a code.
    ndarray
        The status code of each voxel ``(N,)``, as its map has it.

    Raises
    ------
    InputError
        When mask, image and posterior do not belong together.
    """
    out.mkdir(parents=True, exist_ok=True)
    common = {"Model": signal_name, "Recipe": recipe, "Likelihood": likelihood, "Sources": list(sources)}
    writer = _Writer(out, scan_ref, np.asarray(mask, bool), signal_name, common)
    _write_parameters(writer, posterior, suffix)
    _write_direction(writer, posterior, suffix)
    _write_checks(writer, posterior, class_names, khat)
    for values, entities, sidecar in neighbour_maps(posterior):
        writer.add(values, entities, sidecar)
    status = _write_status(writer, posterior.status)  # type: ignore[attr-defined]
    return [*writer.written, *write_bids(out)], status


def _words(posterior: "Estimates") -> dict[str, str]:
    if not posterior.has_sd:
        return POINT
    return ASYMPTOTIC if isinstance(posterior, PointEstimates) else STATISTICS


def _write_parameters(writer: _Writer, posterior: "Estimates", suffix: str) -> None:
    words = _words(posterior)
    values: dict[str, Mapping[str, Any]] = {"mean": posterior.mean}
    if posterior.has_sd:
        values |= {"sd": posterior.sd, "q05": posterior.quantile(0.05), "q95": posterior.quantile(0.95)}
    for name in posterior.names:
        parameter = posterior.parameters[name]
        unit, factor = file_unit(parameter.unit)
        for stat, value in values.items():
            sidecar = {
                "Parameter": name, "Symbol": parameter.symbol, "Statistic": stat, "Units": unit,
                "Description": f"{parameter.doc}: {words[stat]}",
                "Bounds": [factor * parameter.lower, factor * parameter.upper],
            }  # fmt: skip
            written = value[name] if factor == 1 else np.asarray(value[name]) * factor
            writer.add(written, (f"param-{name}", f"stat-{stat}", map_suffix(name, suffix)), sidecar)
    for name, value in getattr(posterior, "contraction", {}).items():
        doc = f"{posterior.parameters[name].doc}: {_CONTRACTION}"
        sidecar = {"Parameter": name, "Statistic": "contraction", "Units": "1", "Description": doc}
        writer.add(value, (f"param-{name}", "stat-contraction", "dwimap"), sidecar)


def _write_direction(writer: _Writer, posterior: Any, suffix: str) -> None:
    model = SIGNALS.get(writer.signal)
    table = () if model is None else (*model.parameters, *model.derived_parameters)
    docs = {p.name: p.doc for p in table if p.is_direction}
    for name, axis in posterior.axes.items():
        _write_axis(writer, posterior, suffix, name, docs.get(name, "axis"), axis)


def _write_axis(writer: _Writer, posterior: Any, suffix: str, name: str, doc: str, axis: Any) -> None:
    sidecar = {
        "Parameter": name,
        "Statistic": "mean",
        "Units": "1",
        "Description": f"{doc}: mean axis, a unit vector without a sign; the volumes are its x, y and z components",
        "Frame": "the axes of the gradient table (bvec)",
    }
    writer.add(axis, (f"param-{name}", "stat-mean", suffix), sidecar)
    if not hasattr(posterior, "cone"):  # point estimates know no cone
        return
    sidecar = {
        "Parameter": name,
        "Statistic": "cone90",
        "Units": "degrees",
        "Description": f"{doc}: half-angle of the cone around the mean axis that contains 90 % of the posterior",
    }
    writer.add(posterior.cone(0.9, name), (f"param-{name}", "stat-cone90", suffix), sidecar)


def _write_checks(writer: _Writer, posterior: Any, class_names: Sequence[str] | None, khat: bool) -> None:
    """Maps that are no parameters: their suffix is dwimap whatever the parameters' is (contract)."""
    ppc, classes = posterior.ppc, posterior.responsibilities
    if ppc is not None:
        doc = _RESIDUAL_P if _words(posterior) is ASYMPTOTIC else _PPC
        writer.add(ppc, ("desc-ppc", "dwimap"), {"Units": "1", "Description": doc})
        writer.add(posterior.residual, ("desc-residual", "dwimap"), {"Units": "1", "Description": _RESIDUAL})
    if khat:
        doc = "Pareto k of the importance weights: above 0.7 the approximate posterior is unreliable"
        writer.add(posterior.khat, ("desc-khat", "dwimap"), {"Units": "1", "Description": doc})
    if classes is not None:
        names = [f"class {i + 1}" for i in range(classes.shape[1])] if class_names is None else list(class_names)
        name, doc = "C", "probability of each tissue class, one volume per class"
        if writer.signal in SIGNALS and SIGNALS[writer.signal].countable:
            name, doc = "nsticks", "probability of each number of sticks, from none on, one volume per number"
        sidecar = {"Parameter": name, "Statistic": "prob", "Units": "1", "Description": doc, "Classes": names}
        writer.add(classes, (f"param-{name}", "stat-prob", "dwimap"), sidecar)


def _write_status(writer: _Writer, status: Any) -> NDArray[np.uint8]:
    """Written last: a voxel that lacks a number in any map never passes for a fine one."""
    codes = np.asarray(status).astype(np.uint8)
    codes[writer.lacking & (codes == FINE)] = NOT_CONVERGED
    sidecar = {
        "Description": "status of each voxel",
        "Levels": {str(code): text for code, text in STATUS.items()},
        "Counts": {str(code): int((codes == code).sum()) for code in STATUS if (codes == code).any()},
    }
    writer.add(codes, ("desc-status", "mask"), sidecar, np.uint8)
    return codes


def write_bids(out: Path) -> list[Path]:
    """The two files that make the folder a BIDS derivative whose own names are passed over by validators."""
    description = {
        "Name": "pyroqmri parameter maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "pyroqmri", "Version": __version__}],
    }
    ours = ("report.html", "methods.txt", "references.bib", "posterior.nc", "voxels.npz", "/fit")
    ignored = "\n".join(("*_model-*", "model-*", "*_dwimap.*", "*_stat-*", *ours, ""))
    return [
        write_json(out / "dataset_description.json", description),
        write_bytes(out / ".bidsignore", ignored.encode()),
    ]


def package_versions() -> dict[str, str]:
    """Versions of what a fit was made with."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
