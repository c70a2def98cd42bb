"""Volumes that are unlike the rest of a scan: found by their residuals, named, and left out where that is asked for."""

from dataclasses import replace

import numpy as np
import torch

from pyroqmri.commands.left_out import check_left, volume_numbers
from pyroqmri.io import Scan
from pyroqmri.io.text import name_volumes
from pyroqmri.laplace.start import mode_under_prior
from pyroqmri.likelihoods import GaussianLikelihood
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.measurements.shells import shell_indices
from pyroqmri.signals import SIGNALS, BoundSignal

OUTLIERS = "outliers"
VOXELS = 1000  # that residuals are looked at in
FEWEST = 20  # volumes; with fewer a volume cannot be told from the signal's own misfit
LARGE, UNUSUAL = 1.5, 6.0  # residuals of an outlier over its shell's: at least so large, and so many robust sds away
_PEERS = 5  # volumes; fewer have no median of their own
_SHARES = (0.5, 0.9)  # of the voxels: a volume may be spoiled everywhere, or in some slices
_ROUNDS = 3
_STEPS = 12


def drop_volumes(scan: Scan, signal: str, wish: str) -> Scan:
    """The scan without some volumes: ``outliers``, or numbers from 0 on such as ``"12,40"``; a note says which.

    Raises
    ------
    InputError
        When a number is none of the scan's, or nothing would be left to fit.
    """
    return without(scan, unwanted_volumes(scan, signal, wish), wish)


def unwanted_volumes(scan: Scan, signal: str, wish: str) -> np.ndarray:
    """Whether each volume is to be left out ``(M,)``; ``wish`` as for :func:`drop_volumes`."""
    return outlier_volumes(scan, signal) if wish == OUTLIERS else volume_numbers(wish, len(scan.acquisition))


def without(scan: Scan, which: np.ndarray, wish: str) -> Scan:
    """The scan without the volumes ``which`` ``(M,)``, and a note that says so."""
    if not which.any():
        scan.notes.append("no volume is unlike the others, and none was left out")
        return scan
    why = "with residuals unlike those of its shell" if wish == OUTLIERS else "as asked for"
    check_left(which)
    keep = np.flatnonzero(~which)
    whole = scan.acquisition if scan.whole is None else scan.whole
    note = f"left out: {name_volumes(in_file(which, scan))}, {why}"
    return replace(
        scan, y=np.ascontiguousarray(scan.y[:, keep]), acquisition=scan.acquisition[torch.from_numpy(keep)],
        notes=[*scan.notes, note], volumes=scan.numbers[keep], whole=whole,
    )  # fmt: skip


def in_file(which: np.ndarray, scan: Scan) -> np.ndarray:
    """Volumes of a scan ``(M,)`` bool among all those of its file."""
    found = np.zeros(int(scan.numbers.max()) + 1, bool)
    found[scan.numbers[which]] = True
    return found


def outlier_note(scan: Scan, signal: str) -> list[str]:
    """A sentence that names outlier volumes, or nothing."""
    which = outlier_volumes(scan, signal)
    if not which.any():
        return []
    return [
        f"{name_volumes(in_file(which, scan))}: residuals unlike the other volumes'; --drop-outliers leaves them out"
    ]


def outlier_volumes(scan: Scan, signal: str) -> np.ndarray:
    """Whether each volume is unlike the others ``(M,)``, by the residuals of a least-squares fit to some voxels.

    A volume is an outlier when its residuals, in absolute value and at their median or 90th percentile over voxels,
    exceed those of the other volumes of its shell (of the nearest b-values, where it is alone) by LARGE times and by
    UNUSUAL robust standard deviations (of all volumes, where those of its shell are few). Those found are left out
    and the rest is fitted again. At most a fifth of the volumes can be outliers.
    """
    n = len(scan.acquisition)
    which = np.zeros(n, bool)
    if n < FEWEST or SIGNALS[signal].inputs:
        return which
    # at random: every n-th voxel may lie in every second slice
    some = np.sort(np.random.default_rng(0).permutation(len(scan.y))[:VOXELS])
    y = torch.from_numpy(scan.y[some]).float()
    bright = torch.isfinite(y).all(-1)
    y = y[bright & (y.mean(-1) > 0.3 * y[bright].mean(-1).quantile(0.9))] if bright.any() else y[:0]
    if len(y) < 20:
        return which
    for _ in range(_ROUNDS):
        found = which | _unlike(_residuals(y, scan, signal, ~which), scan, ~which)
        if found.sum() > n / 5 or (found == which).all():
            break
        which = found
    return which


@torch.no_grad()
def _residuals(y: torch.Tensor, scan: Scan, signal: str, use: np.ndarray) -> np.ndarray:
    """Measurement less what least squares on the volumes ``use`` expects, over the voxel's level, ``(N, M)``."""
    acquisition = scan.acquisition
    place = torch.from_numpy(np.flatnonzero(use))
    scale = float(torch.quantile(y.amax(-1), 0.98))
    preparation = Preparation("inferred", scale, False, True)
    batch = preparation(y[:, place], torch.tensor(0.05 * scale), acquisition[place])
    part = BoundSignal(SIGNALS[signal], acquisition[place], infer_s0=SIGNALS[signal].has_s0(acquisition))
    weak = 1e-2 * torch.eye(part.n_latents)
    mode, frame = mode_under_prior(batch.voxels, part, GaussianLikelihood(), weak, _STEPS)
    whole = BoundSignal(SIGNALS[signal], acquisition, infer_s0=part.infer_s0)
    expected = whole(whole.constrain(mode.z, frame)) * scale
    return ((y[batch.index] - expected) / expected.abs().amax(-1, keepdim=True).clamp_min(1e-6)).numpy()


def _unlike(residuals: np.ndarray, scan: Scan, use: np.ndarray) -> np.ndarray:
    which = np.zeros(len(use), bool)
    groups = _groups(scan, len(use))
    for size in np.log(np.quantile(np.abs(residuals), _SHARES, axis=0) + 1e-9):
        # what volumes of one b-value, or its neighbours, have in common is noise and the signal's misfit there
        apart = np.zeros(len(use))
        for mine, near in groups:
            apart[mine] = size[mine] - np.median(size[near])
        for mine, _ in groups:
            peers = mine & use if (mine & use).sum() >= _PEERS else use & (apart != 0)
            spread = 1.4826 * np.median(np.abs(apart[peers])) if peers.any() else 0.0
            which |= mine & (apart > max(np.log(LARGE), UNUSUAL * spread))
    return which


def _groups(scan: Scan, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Volumes of each shell, and those that share a misfit with them: its own, or the nearest in b of a lone one."""
    bval = scan.acquisition.bval
    if bval is None:
        everyone = np.ones(n, bool)
        return [(everyone, everyone)]
    b, found = bval.numpy(), []
    for shell in shell_indices(bval):
        mine, near = np.zeros(n, bool), np.zeros(n, bool)
        mine[shell] = True
        near[shell if len(shell) > 1 else np.argsort(np.abs(b - b[shell[0]]), kind="stable")[:_PEERS]] = True
        found.append((mine, near))
    return found
