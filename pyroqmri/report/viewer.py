"""What the page's slice viewer shows: maps of every voxel in the mask, packed small, and how they are coloured."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pyroqmri.measurements.status import BRIEF, FINE, STATUS
from pyroqmri.posterior.goodness_of_fit import P_MISFIT
from pyroqmri.report import words
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import Scale, colours_of, status_colour
from pyroqmri.report.fit_numbers import p_name
from pyroqmri.report.packer import Packer
from pyroqmri.report.sampled_voxels import sampled_voxels

MOST_BYTES = 6_000_000  # of all maps before they are packed; of larger scans every second, third ... slice is shown
_MISFIT = "#d1495b"
_LEVELS = 250  # colours of a scale
_TOP = 1000.0  # a map's 98th percentile, in half floats, which have three digits between 0.0001 and 65,504


@dataclass(frozen=True)
class Viewer:
    """The viewer's description as JSON, its numbers and the program that draws, both compressed and in base64."""

    data: Markup
    numbers: str
    program: str
    every: int  # every which slice is shown
    n_sampled: int  # voxels that are kept in full
    n_voxels: int
    predictive: bool  # whether these have draws
    s0: bool  # and whether their S0 is shown


def viewer_of(atlas: Atlas, names: list[str], main: list[str]) -> Viewer:
    """Everything about the voxels of a fit that its page can show on a click.

    Parameters
    ----------
    names
        Scalar quantities, those first that are read first.
    main
        Those that are listed and plotted for each voxel; the others are listed when their map is shown.
    """
    results, packer = atlas.results, Packer()
    stats = [(n, stat) for n in names for stat in ("mean", "sd") if results.has(n, stat)]
    checks = [("", c) for c in ("ppc", "khat") if results.has("", c)]
    axis = atlas.view.axis
    every = int(np.ceil(2 * atlas.mask.sum() * (len(stats) + len(checks)) / MOST_BYTES)) or 1
    box = _box(atlas.mask, axis, every)
    inside = atlas.mask[box]
    content = _frame(atlas, box) | {
        "status": packer.add(results.status[box]),
        "levels": {code: [(STATUS | results.levels).get(code, "unknown code"), status_colour(code),
                          BRIEF.get(code, "unknown")] for code in results.counts},
        "parameters": [
            _parameter(atlas, name, box, inside, packer) | {"main": name in main} for name in names
        ],
        "p": _check(atlas, "ppc", box, inside, packer, p_scale(p_name(results))),
        "khat": _check(atlas, "khat", box, inside, packer, Scale("Pareto k", "1", 0.0, 0.7, "cividis", "max")),
    }  # fmt: skip
    content["voxels"], n_sampled = sampled_voxels(results, main, packer)
    # nothing in a string may look like a tag: it could end the script, or begin another
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    program = base64.b64encode((Path(__file__).parent / "niivue" / "niivue.js.gz").read_bytes()).decode()
    kept = content["voxels"] or {"names": [], "s0": False}
    n = int(atlas.mask.sum())
    return Viewer(Markup(text), packer.text(), program, every, n_sampled, n, bool(kept["names"]), kept["s0"])


def p_scale(name: str) -> Scale:
    """Colours of p-values: what lies below :data:`P_MISFIT` has its own."""
    return Scale(name, "1", P_MISFIT, 1.0, "cividis", "min", _MISFIT)


def _box(mask: NDArray[np.bool_], axis: int, every: int) -> tuple[slice, ...]:
    """The part of a canonical volume that the mask fills, with every ``every``-th slice across ``axis``."""
    found = []
    for a in range(3):
        where = np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a)))
        start, stop = (int(where[0]), int(where[-1]) + 1) if len(where) else (0, mask.shape[a])
        found.append(slice(start, stop, every if a == axis else 1))
    return tuple(found)


def _frame(atlas: Atlas, box: tuple[slice, ...]) -> dict[str, Any]:
    """Where the box lies: in the body, and in the image's own voxels."""
    results = atlas.results
    affine = results.canonical_affine
    step = np.diag([float(s.step) for s in box] + [1.0])
    step[:3, 3] = [s.start for s in box]
    # from the canonical volume to the image's own indices, by the affines of both
    to_image = np.rint(np.linalg.inv(results.affine) @ affine @ step).astype(int)
    view = atlas.view
    return {
        "shape": [len(range(s.start, s.stop, s.step)) for s in box],
        "affine": (affine @ step).tolist(),
        "toImage": to_image[:3].tolist(),
        "axis": view.axis,
        "oriented": results.oriented,
        "start": _start(results.status[box], view.axis).tolist(),
    }


def _start(status: NDArray[np.integer], axis: int) -> NDArray[np.integer]:
    """The voxel that is shown first: on the slice with the most mask, nearest its middle of those that are fine."""
    inside = np.argwhere(status > 0)
    if len(inside) == 0:
        return np.zeros(3, int)
    here = inside[inside[:, axis] == np.bincount(inside[:, axis]).argmax()]
    distance = ((here - here.mean(0)) ** 2).sum(1).astype(float)
    distance[status[tuple(here.T)] != FINE] += status.size
    return here[np.argmin(distance)]


def _parameter(
    atlas: Atlas, name: str, box: tuple[slice, ...], inside: NDArray[np.bool_], packer: Packer
) -> dict[str, Any]:
    results, parameter = atlas.results, atlas.results.parameter(name)
    return {
        "name": name,
        "symbol": words.parts(parameter.symbol),
        "unit": words.unit_text(parameter.unit),
        "doc": parameter.doc,
        "maps": {
            stat: _map(results.volume(name, stat)[box][inside], atlas.scale(parameter, stat), packer)
            for stat in ("mean", "sd")
            if results.has(name, stat)
        },
    }


def _check(
    atlas: Atlas, description: str, box: tuple[slice, ...], inside: NDArray[np.bool_], packer: Packer, scale: Scale
) -> dict[str, Any] | None:
    if not atlas.results.has("", description):
        return None
    return {"name": scale.label} | _map(atlas.results.volume("", description)[box][inside], scale, packer)


def _map(values: NDArray, scale: Scale, packer: Packer) -> dict[str, Any]:
    """A map inside the mask as half floats, with the factor that makes numbers of them, and its colours."""
    size = np.abs(values[np.isfinite(values)])
    high = float(np.percentile(size, 98)) if size.size else 0.0
    factor = _TOP / high if high > 0 else 1.0
    with np.errstate(over="ignore"):
        scaled = np.clip(np.asarray(values, float) * factor, -65504, 65504).astype(np.float16)
    return {"at": packer.add(scaled), "factor": 1 / factor, **_colours(scale)}


def _colours(scale: Scale) -> dict[str, Any]:
    """Limits, and the colours between them as one string of hexadecimal digits."""
    lower, upper = (float(np.log(v)) if scale.log else v for v in (scale.lower, scale.upper))
    steps = np.linspace(lower, upper, _LEVELS)
    ladder = colours_of((np.exp(steps) if scale.log else steps)[None], scale)[0, :, :3]
    return {
        "lower": scale.lower,
        "upper": scale.upper,
        "colours": np.rint(255 * ladder).astype(np.uint8).tobytes().hex(),
        "under": scale.under,
        "extend": scale.extend,
    }
