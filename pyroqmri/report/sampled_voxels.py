"""Voxels of ``voxels.npz`` as the page's viewer takes them: small numbers, and what lies along the axis of a plot."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyroqmri.report import words
from pyroqmri.report.folder_of_maps import FolderOfMaps
from pyroqmri.report.packer import Packer
from pyroqmri.report.voxel_file import VOXELS, ShownVoxels, read_voxels

_PARAMETERS = 6  # plots in pairs of more would be too small to see
# setting, what an axis is called, factor to the unit there; the first that varies is the axis
_AXES = (
    ("offset", "offset (ppm)", 1.0), ("ti", "inversion time (ms)", 1.0), ("te", "echo time (ms)", 1.0),
    ("bval", "b (s/mm²)", 1000.0), ("flip", "flip angle (°)", 180 / np.pi), ("tr", "repetition time (ms)", 1.0),
)  # fmt: skip


def sampled_voxels(results: FolderOfMaps, names: list[str], packer: Packer) -> tuple[dict[str, Any] | None, int]:
    """The voxels that are kept in full, and how many they are; None and 0 without any."""
    found = read_voxels(results.folder / VOXELS, results.grid_shape)
    if found is None:
        return None, 0
    sample = found.sample
    values = np.stack([sample.y, sample.fitted, sample.low, sample.high])
    low, high = float(values.min()), float(values.max())
    span, along = max(high - low, 1e-12), _axis(found)
    content = {
        "ijk": packer.add(found.ijk.astype(np.uint16)),
        "n": len(found.ijk),
        "values": packer.add(np.rint((values - low) / span * 65535).astype(np.uint16)),
        "low": low,
        "step": span / 65535,
        "reference": packer.add(sample.reference.astype(np.float32)),
        **along,
        # a measured S0 lies at b = 0 of an axis of b-values
        "s0": results.record.get("s0") == "measured" and along["label"].startswith("b ") and not along["shells"],
        **_draws(results, found, names, packer),
    }
    return content, len(found.ijk)


def _axis(found: ShownVoxels) -> dict[str, Any]:
    """Where the measurements lie in a plot: along a setting, or by shell where they differ by direction."""
    settings = {name: np.asarray(value, float) for name, value in found.settings.items()}
    n = found.sample.y.shape[1]
    many = {name: len(np.unique(settings[name].round(6))) for name, *_ in _AXES if name in settings}
    name, label, factor = max(_AXES, key=lambda axis: many.get(axis[0], 0))
    if many.get(name, 0) < 2:
        return {"x": list(range(n)), "label": "measurement", "groups": [0] * n, "shells": False}
    x = (settings[name] * factor).round(4)
    directions = settings.get("bvec")
    if directions is not None and name == "bval":
        shells = np.rint(x / 50) * 50  # b-values of one shell differ a little
        if len(np.unique(shells)) <= 8 and len(shells) > 2 * len(np.unique(shells)):
            return {"x": shells.tolist(), "label": label, "groups": [0] * n, "shells": True}
    return {"x": x.tolist(), "label": label, "groups": _groups(settings, name), "shells": False}


def _groups(settings: dict[str, NDArray], along: str) -> list[int]:
    """Measurements that differ by the setting ``along`` alone have one number: their fit is one line."""
    others = [value.reshape(len(value), -1) for name, value in settings.items() if name != along]
    if not others:
        return [0] * len(settings[along])
    return np.unique(np.hstack(others).round(4), axis=0, return_inverse=True)[1].reshape(-1).tolist()


def _draws(results: FolderOfMaps, found: ShownVoxels, names: list[str], packer: Packer) -> dict[str, Any]:
    """Draws of the first few quantities, each a whole number from 0 to 255 between a voxel's least and largest."""
    shown = [name for name in names if name in found.sample.draws][:_PARAMETERS]
    shown = [name for name in shown if np.isfinite(found.sample.draws[name]).all()]
    if not shown:
        return {"names": []}
    values = np.stack([found.sample.draws[name] for name in shown])  # (P, S, V)
    low, high = values.min(1), values.max(1)
    steps = np.rint(255 * (values - low[:, None]) / np.maximum(high - low, 1e-30)[:, None])
    parameters = [results.parameter(name) for name in shown]
    return {
        "names": shown,
        "symbols": [words.parts(p.symbol) for p in parameters],
        "units": [words.unit_text(p.unit) for p in parameters],
        "nDraws": values.shape[1],
        "ends": packer.add(np.stack([low, high], -1).astype(np.float32)),  # (P, V, 2)
        "draws": packer.add(steps.astype(np.uint8)),
    }
