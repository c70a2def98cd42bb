"""Which signal describes the demo's brain, voxel by voxel."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri.commands.compare import Choice, candidate_of, write_found
from pyroqmri.commands.inputs import per_voxel
from pyroqmri.commands.noise import given_noise
from pyroqmri.comparison import compare
from pyroqmri.comparison.ranking import SHARE_BAD
from pyroqmri.io import Scan
from pyroqmri.measurements.shells import shell_indices
from pyroqmri.progress import progress_bar
from pyroqmri.report.comparison import COMPARISON, winner_picture

FOLDER = "signals"
# to save time: the guides start as Laplace approximations, and evidence weights their draws
QUICK = {"training.steps": 20}
SIGNALS = ("ball_stick", "ball_sticks_gamma", "noddi", "dki")
EVERY = 6  # voxels in each direction of a slice
FEWEST_DIRECTIONS, FEWEST_VOXELS = 15, 100
SCORED = 40  # voxels of which single measurements are left out as well


@dataclass(frozen=True)
class BestSignal:
    """Where each signal is ahead.

    Attributes
    ----------
    signals
        That were compared, the one with the largest evidence over all voxels first.
    ahead, sure
        Share of voxels in which each has the largest evidence, and in which its probability is above 0.95.
    n
        Voxels that all could fit.
    every
        Voxels apart in each direction.
    uncertain
        Of signals whose evidence is unreliable, the share of voxels in which importance weights fail.
    """

    signals: list[str]
    ahead: list[float]
    sure: list[float]
    n: int
    every: int = EVERY
    uncertain: dict[str, float] = field(default_factory=dict)


def fullest_slice(scan: Scan) -> Scan:
    """The slice with most voxels, on the grid of all."""
    here = np.argwhere(scan.mask)[:, 2] == _fullest(scan)
    mask = np.zeros_like(scan.mask)
    mask[..., _fullest(scan)] = scan.mask[..., _fullest(scan)]
    notes = [*scan.notes, "one slice of the demo's scan is fitted by this signal, to save time"]
    return replace(scan, y=np.ascontiguousarray(scan.y[here]), mask=mask, notes=notes)


def _fullest(scan: Scan) -> int:
    return int(scan.mask.sum((0, 1)).argmax())


def coarse(scan: Scan, every: int | None = None) -> tuple[Scan, np.ndarray]:
    """Voxels of the fullest slice, ``every`` apart in each direction, and which of the scan's they are."""
    every, places = EVERY if every is None else every, np.argwhere(scan.mask)
    z = _fullest(scan)
    chosen = (places[:, 2] == z) & (places[:, :2] % every == 0).all(1)
    mask = np.ascontiguousarray(scan.mask[::every, ::every, z : z + 1])
    affine = np.array(scan.ref.affine, float)
    affine[:3, 3] += z * affine[:3, 2]
    affine[:3, :2] *= every
    shape = (mask.shape[0], mask.shape[1], 1)
    zooms = (*(every * size for size in scan.ref.header_zooms[:2]), *scan.ref.header_zooms[2:])
    ref = replace(scan.ref, shape=shape, affine=affine, header_zooms=zooms, qform=None)
    part = Scan(np.ascontiguousarray(scan.y[chosen]), mask, scan.acquisition, ref, [], scan.background)
    return part, np.flatnonzero(chosen)


def can_compare(scan: Scan) -> bool:
    """Whether a scan has two shells of 15 directions or more, and voxels enough to learn populations from."""
    acq = scan.acquisition
    assert acq.bval is not None
    shells = [shell for shell in shell_indices(acq.bval)[1:] if len(shell) >= FEWEST_DIRECTIONS]
    return len(shells) >= 2 and len(coarse(scan)[1]) >= FEWEST_VOXELS


def draw_best_signal(folder: Path) -> bytes:
    """The map of the signal that is ahead, as PNG."""
    return winner_picture(folder, json.loads((folder / COMPARISON).read_text()), 1).png


def compare_signals(scan: Scan, folder: Path, progress: bool) -> BestSignal:
    """Compare signals by evidence in some voxels of a scan, and write the maps and the page of that."""
    begin = time.monotonic()
    part, chosen = coarse(scan)
    noise = given_noise(scan, "estimate")
    level: Any = per_voxel(noise)
    level = noise if level is None else torch.as_tensor(level, dtype=torch.float32)[torch.from_numpy(chosen)]
    candidates = {
        name: candidate_of(Choice("hierarchical", name, None, "measured", QUICK), "estimate", 0, "auto")
        for name in SIGNALS
    }
    y, fits = torch.from_numpy(part.y), {}
    with progress_bar("comparing", len(SIGNALS), progress) as report:
        for done, (name, candidate) in enumerate(candidates.items()):
            report(done, name)
            fits[name] = candidate.train(y, part.acquisition, level)
        found = compare(fits, y, sigma=level, scored=SCORED)
        report(len(SIGNALS))
    call = {name: {"signal": name, "recipe": c.recipe.to_toml()} for name, c in candidates.items()}
    folder.mkdir()
    said = {"candidates": call, "noise": str(getattr(noise, "note", "estimate")), "halves": False}
    said["seconds"] = time.monotonic() - begin
    write_found(found, part, candidates, folder, said)
    shares = found.shares
    order = [row.name for row in found.ranking("evidence")[0]]
    ahead, sure = ([shares[name][i] for name in order] for i in (0, 1))
    uncertain = {name: share for name, share in found.khat_bad["evidence"].items() if share > SHARE_BAD}
    return BestSignal(order, ahead, sure, int(np.isfinite(found.winners).all(-1).sum()), EVERY, uncertain)
