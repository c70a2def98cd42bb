"""Shells: volumes of one b-value, jitter and all."""

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition

B0_BELOW = 50.0  # s/mm2; volumes below it need no direction
TOLERANCE = 0.05  # of a shell's mean
ROUNDED = 0.015  # of a shell's mean: what scanners round
_NO_SUMS = (7, 15, 23, 28, 31, 39, 47)  # of three squares, which a grid in q-space therefore leaves out


def shells_of(b: np.ndarray) -> list[np.ndarray]:
    """Volumes ``(n,)`` of each shell, in rising b, of b-values ``(M,)`` in any unit; each volume is in one.

    A volume joins the shell below it when its b-value is within 5 % of that shell's mean. A group wider than half the
    gap to its neighbour is no shell but a part of a ladder (or of a grid in q-space), and every b-value of it is a
    shell of its own.
    """
    order = np.argsort(b, kind="stable")
    groups: list[list[int]] = []
    for i in order:
        mean = b[groups[-1]].mean() if groups else -np.inf
        if groups and b[i] - mean <= TOLERANCE * mean:
            groups[-1].append(i)
        else:
            groups.append([i])
    shells: list[np.ndarray] = []
    for k, group in enumerate(groups):
        width = b[group[-1]] - b[group[0]]
        below = b[group[0]] - (b[groups[k - 1][-1]] if k else 0.0)
        above = b[groups[k + 1][0]] - b[group[-1]] if k + 1 < len(groups) else np.inf
        members = np.array(group)
        if width > 0 and width >= 0.499 * min(below, above):
            shells += [members[b[members] == value] for value in np.unique(b[members])]
        else:
            shells.append(members)
    return shells


def shell_indices(bval: torch.Tensor | np.ndarray) -> list[np.ndarray]:
    """Volumes of each shell in rising b, b = 0 among them, of b-values ``(M,)`` in ms/um2."""
    # rounded, because float32 makes two of one b-value
    return shells_of(np.round(np.asarray(bval, dtype=float) * 1000, 3))


def alike(acq: Acquisition) -> list[np.ndarray]:
    """Volumes of one shell whose other settings are equal, directions aside, in rising b; each volume is in one.

    Equal are settings to 1e-4 (ms, rad, ppm), also those that a signal ignores.
    """
    keys = [np.zeros(len(acq))]
    if acq.bval is not None:
        for k, shell in enumerate(shell_indices(acq.bval.cpu())):
            keys[0][shell] = k
    others = (v.double().cpu().numpy() for name, v in acq.settings().items() if name not in ("bval", "bvec"))
    _, label = np.unique(np.round(np.stack([*keys, *others], 1), 4), axis=0, return_inverse=True)
    label = label.ravel()
    return [np.flatnonzero(label == k) for k in range(label.max() + 1)]


def gather_shells(b: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """b-values ``(M,)`` in s/mm2, those that scanners round replaced by their shell's mean, and what was done."""
    gathered, rounded, wide = b.astype(float), [], []
    for shell in shells_of(b):
        low, high, mean = b[shell].min(), b[shell].max(), b[shell].mean()
        if high == low:
            continue
        words = f"{low:.5g}-{high:.5g} -> {mean:.5g} ({len(shell)} volumes)"
        if max(high - mean, mean - low) <= ROUNDED * mean:
            gathered[shell] = mean
            rounded.append(words)
        else:
            wide.append(words)
    notes = [f"b-values rounded to their shell's mean: {_some(rounded)}"] if rounded else []
    if wide:
        notes.append(f"shells of b-values within 5 %, which the volumes keep: {_some(wide)}")
    return gathered, notes


def _some(words: list[str]) -> str:
    return "; ".join(words[:8]) + (f"; and {len(words) - 8} more" if len(words) > 8 else "")


def describe(b: np.ndarray) -> str:
    """The protocol of b-values ``(M,)`` in s/mm2 in words."""
    values, counts = np.unique(b, return_counts=True)
    weighted, per_value = values[values > 0], counts[values > 0]
    shells = [shell for shell in shells_of(b) if b[shell].mean() > 0]
    if len(shells) <= 12:
        return ", ".join(f"{len(s)} x b {b[s].mean():.5g}" for s in ([*_zeros(b), *shells])) + " s/mm2"
    few, many = per_value.min(), per_value.max()
    each = f"{few}" if few == many else f"{few} to {many}"
    kind = _kind(weighted)
    zeros = f"{counts[0]} x b 0, " if values[0] == 0 else ""
    span = f"{weighted[0]:.5g} to {weighted[-1]:.5g} s/mm2"
    return f"{zeros}{len(weighted)} different b-values from {span}, {each} volumes each{kind}"


def _zeros(b: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(b == 0)] if (b == 0).any() else []


def _kind(values: np.ndarray) -> str:
    """What many b-values in rising order are, after a colon."""
    multiple = values / values[0]
    whole = np.abs(multiple - multiple.round()).max() < 0.1 and 8 <= multiple.max().round() > len(values)
    if whole and not np.isin(multiple.round(), _NO_SUMS).any():
        return f": a grid in q-space (DSI, multiples of {values[0]:.4g}), no shells"
    steps = np.diff(values)
    if np.ptp(steps) < 0.1 * steps.mean():
        return f": a ladder in steps of {steps.mean():.4g}, no shells"
    return ": a ladder, no shells"
