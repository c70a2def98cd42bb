"""Pair plots of one voxel, chosen on a map: the draws that ``posterior.nc`` holds, drawn by the page itself."""

import base64
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri.report import words
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import colours_of
from pyroqmri.report.folder_of_maps import FolderOfMaps
from pyroqmri.report.geometry import View, canonical_index, view_at

STEPS = 999  # a draw is kept as a whole number from 0 to STEPS, its place between the voxel's least and largest
_DRAWS, _PARAMETERS, _SLICES = 100, 6, 6


@dataclass(frozen=True)
class Draws:
    """Draws ``(P, S, V)`` of some parameters in some voxels, and the voxels' indices ``(V, 3)`` in the image."""

    names: list[str]
    values: NDArray
    index: NDArray[np.integer]


@dataclass(frozen=True)
class Pairs:
    """What the page's script draws from, as JSON, and what its map shows."""

    data: Markup
    first: Markup


def pair_data(atlas: Atlas, names: list[str]) -> Pairs | None:
    """Draws of some voxels and the maps to choose them on; None without draws that know where they lie in the image."""
    draws = read_draws(atlas.results, names)
    if draws is None:
        return None
    view, place = _view(atlas, draws.index)
    shown = [i for i, p in enumerate(place) if p[view.axis] in view.slices]
    pixels = view.pixels(place[shown], atlas.mask.shape)
    parameters = [atlas.results.parameter(name) for name in draws.names]
    images, (height, width) = _images(atlas, draws.names[0], view)
    content: dict[str, Any] = {
        "width": width,
        "height": height,
        "aspect": view.aspect,
        "slices": list(view.slices),
        "images": images,
        "names": [words.parts(p.symbol) for p in parameters],
        "units": [words.unit_text(p.unit) for p in parameters],
        "steps": STEPS,
        "voxels": [
            {
                "slice": view.slices.index(place[v][view.axis]),
                "row": int(row),
                "column": int(column),
                "ijk": draws.index[v].tolist(),
                **_voxel(draws.values[:, :, v]),
            }
            for v, (row, column) in zip(shown, pixels, strict=True)
        ],
    }
    # nothing in a string may look like a tag: it could end the script, or begin another
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    unit = words.unit_text(parameters[0].unit)
    return Pairs(Markup(text), words.html(parameters[0].symbol) + (f" ({unit})" if unit else ""))


def read_draws(results: FolderOfMaps, names: list[str]) -> Draws | None:
    """The first few of these parameters' draws; None without the file, for one parameter, or without voxels' places."""
    path = results.folder / "posterior.nc"
    if not path.is_file():
        return None
    import xarray as xr

    try:
        with xr.open_dataset(path, group="posterior", engine="h5netcdf") as data:
            shown = [n for n in names if n in data][:_PARAMETERS]
            if len(shown) < 2 or not {"i", "j", "k"} <= set(data.coords):
                return None
            values = np.stack([data[n].to_numpy()[0] for n in shown])
            index = np.stack([data[a].to_numpy() for a in "ijk"], -1)
    except (OSError, ValueError, KeyError):
        return None  # a page is made of what is there
    fine = np.isfinite(values).all((0, 1)) & (index < results.grid_shape).all(-1)
    return Draws(shown, values[:, :, fine], index[fine]) if fine.any() else None


def _view(atlas: Atlas, index: NDArray[np.integer]) -> tuple[View, NDArray[np.integer]]:
    """The slices that hold most of the voxels, and where voxels lie in the canonical volume."""
    place = canonical_index(index, atlas.mask.shape, atlas.results.affine)
    axis = atlas.view.axis
    count = np.bincount(place[:, axis])
    slices = np.sort(np.argsort(-count, kind="stable")[: min(_SLICES, int((count > 0).sum()))])
    return view_at(atlas.mask, atlas.results.canonical_affine, axis, slices.tolist(), atlas.results.oriented), place


def _voxel(values: NDArray) -> dict[str, Any]:
    """Mean with sd, and correlations, of all draws ``(P, S)``, and some draws to be seen."""
    low, high = values.min(1), values.max(1)
    span = np.maximum(high - low, 1e-12)
    some = values[:, :: max(1, values.shape[1] // _DRAWS)]
    related = np.divide(
        np.cov(values), np.outer(values.std(1, ddof=1), values.std(1, ddof=1)), out=np.zeros((len(low),) * 2),
        where=np.outer(high > low, high > low),
    )  # fmt: skip
    return {
        "ends": [[float(f"{a:.6g}"), float(f"{b:.6g}")] for a, b in zip(low, high, strict=True)],
        "draws": np.rint(STEPS * (some - low[:, None]) / span[:, None]).astype(int).tolist(),
        "said": [_mean_and_sd(p) for p in values],
        "r": related.round(2).tolist(),
    }


def _mean_and_sd(values: NDArray) -> str:
    """Mean and sd of draws, to the sd's second digit."""
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    digits = max(0, 1 - int(np.floor(np.log10(sd)))) if sd > 0 else 4
    return f"{mean:.{digits}f} ± {sd:.{digits}f}".replace("-", "−")


def _images(atlas: Atlas, name: str, view: View) -> tuple[list[str], tuple[int, int]]:
    """The parameter's mean on the slices as PNG in data URLs, and their height and width."""
    from matplotlib.image import imsave

    scale = atlas.scale(atlas.results.parameter(name), "mean")
    means, inside = view.images(atlas.results.volume(name, "mean")), view.images(atlas.mask)
    found = []
    for mean, mask in zip(means, inside, strict=True):
        rgba = colours_of(np.where(mask, mean, np.nan), scale)
        stream = BytesIO()
        imsave(stream, rgba, format="png", metadata={"Software": None})  # type: ignore[arg-type]
        found.append(f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}")
    return found, means[0].shape[:2]
