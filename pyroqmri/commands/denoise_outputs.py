"""What a denoiser says of a scan, written into a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri import __version__
from pyroqmri.acquisition import Acquisition
from pyroqmri.denoising import Denoised, DenoiserFit, ResidualCheck, tensor_quantities
from pyroqmri.denoising.latents import Latents
from pyroqmri.io import Scan
from pyroqmri.maps import map_name, scatter, write_bytes, write_json, write_volume
from pyroqmri.measurements.status import STATUS

RECORD = "denoise.json"
_UNITS = {"FA": "1", "MD": "um2/ms"}


def write_denoised(
    fit: DenoiserFit, scan: Scan, denoised: Denoised, check: ResidualCheck, latents: Latents, folder: Path
) -> None:
    """Write the denoised image with its gradients, the residual, the status, FA and MD before and after, the record."""
    common = {"Recipe": fit.recipe.name, "Sources": [scan.ref.path.name]}
    image = {"Description": "denoised measurements, zero outside the mask", **common}
    _volume(scan, folder, "desc-denoised_dwi", denoised.signal, image)
    _volume(scan, folder, "desc-residual_dwi", denoised.residual, {"Description": "image minus denoised", **common})
    levels = {"Description": "status of each voxel", "Levels": {str(k): v for k, v in STATUS.items()}, **common}
    _volume(scan, folder, "desc-status_mask", denoised.status, levels, np.uint8)
    _write_gradients(scan.acquisition, folder, _name(scan, "desc-denoised_dwi"))
    medians = _write_tensors(scan, denoised, folder, common)
    write_json(folder / "dataset_description.json", {
        "Name": "pyroqmri denoised image", "BIDSVersion": "1.10.0", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "pyroqmri", "Version": __version__}],
    })  # fmt: skip
    # images that lie in no folder of a subject have no place in BIDS
    ignored = ("*_dwi.*", "*_mask.*", "*_dwimap.*", "report.html", "denoise.json", "/fit")
    write_bytes(folder / ".bidsignore", "".join(f"{name}\n" for name in ignored).encode())
    record = {
        "prefix": scan.ref.prefix,
        "n_voxels": len(scan.y),
        "sigma": float(denoised.sigma.nanmedian()),
        "residual": check.record(),
        "latents": latents.record() | {"traversal": latents.traversal.tolist()},
        "tensor_medians": medians,
        "status_counts": {str(c): int((denoised.status == c).sum()) for c in denoised.status.unique().tolist()},
    }
    write_json(folder / RECORD, record)


def _name(scan: Scan, ending: str) -> str:
    return "_".join(part for part in (scan.ref.prefix, ending) if part)


def _volume(
    scan: Scan, folder: Path, ending: str, values: Any, sidecar: dict[str, Any], dtype: Any = np.float32
) -> None:
    name = _name(scan, ending)
    volume = scatter(values, scan.mask, dtype)
    write_volume(folder / f"{name}.nii.gz", volume, np.asarray(scan.ref.affine), scan.ref.oriented)
    write_json(folder / f"{name}.json", sidecar)


def _write_gradients(acq: Acquisition, folder: Path, name: str) -> None:
    """FSL-style files beside the image, so that other commands find them."""
    if acq.bval is not None:
        write_bytes(folder / f"{name}.bval", (" ".join(f"{1000 * b:g}" for b in acq.bval.tolist()) + "\n").encode())
    if acq.bvec is not None:
        rows = [" ".join(f"{x:.6f}" for x in row) for row in acq.bvec.mT.tolist()]
        write_bytes(folder / f"{name}.bvec", ("\n".join(rows) + "\n").encode())


def _write_tensors(scan: Scan, denoised: Denoised, folder: Path, common: dict[str, Any]) -> dict[str, Any]:
    """FA and MD of the image as it came and of the denoised one; their medians."""
    medians: dict[str, Any] = {}
    for when, y in (("noisy", torch.from_numpy(scan.y)), ("denoised", denoised.signal)):
        found = tensor_quantities(scan.acquisition, torch.nan_to_num(y).clamp_min(0))
        for name in _UNITS.keys() & found.keys():
            what = {"Description": f"{name} of a weighted linear tensor fit, {when} image", "Units": _UNITS[name]}
            ending = map_name("", "dti", f"desc-{when}", f"param-{name}", "dwimap")
            _volume(scan, folder, ending, found[name], what | common)
            medians.setdefault(name, {})[when] = float(found[name].median())
    return medians
