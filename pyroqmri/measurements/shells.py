"""Shells: volumes of one b-value, jitter and all."""

import numpy as np
import torch

from pyroqmri.acquisition import WEIGHTED_ABOVE, Acquisition

B0_BELOW = 1000 * WEIGHTED_ABOVE  # s/mm2
TOLERANCE = 0.05  # of a shell's mean
ROUNDED = 0.015  # of a shell's mean: what scanners round
_LISTED = 12  # shells; of more only the range is printed
_LARGEST_GRID = 50  # |q|^2 of the farthest point of a grid in q-space


def shells_of(b: np.ndarray) -> list[np.ndarray]:
    """Volumes ``(n,)`` of each shell, in rising b, of b-values ``(M,)`` in any unit; each volume is in one.

    A volume joins the shell below it when its b-value is within 5 % of that shell's mean. A group wider than half the
    gap to its neighbour is no shell but a part of a ladder (or of a grid in q-space), and every b-value of it is a
    shell of its own.
    """
    order = np.argsort(b, kind="stable")
    groups: list[list[int]] = []
    total = 0.0  # of the last group
    for i, value in zip(order.tolist(), b[order].tolist(), strict=True):
        mean = total / len(groups[-1]) if groups else -np.inf
        if groups and value - mean <= TOLERANCE * mean:
            groups[-1].append(i)
            total += value
        else:
            groups.append([i])
            total = value
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
    known = vars(acq)  # settings do not change, and much rests on their groups
    if "_alike" not in known:
        known["_alike"] = _alike(acq)
    return list(known["_alike"])


def _alike(acq: Acquisition) -> list[np.ndarray]:
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
    shells = shells_of(b)
    weighted = [shell for shell in shells if b[shell].mean() > 0]
    kind = _kind(np.array([b[shell].mean() for shell in weighted]))
    if len(weighted) <= _LISTED:
        return ", ".join(f"{len(s)} x b {b[s].mean():.5g}" for s in shells) + f" s/mm2{kind}"
    few, many = (f(len(shell) for shell in weighted) for f in (min, max))
    each = "1 volume" if many == 1 else f"{many} volumes" if few == many else f"{few} to {many} volumes"
    zeros = f"{len(shells[0])} x b 0, " if len(shells) > len(weighted) else ""
    span = f"{b[weighted[0]].mean():.5g} to {b[weighted[-1]].mean():.5g} s/mm2"
    return f"{zeros}{len(weighted)} different b-values from {span}, {each} each{kind}"


def _kind(values: np.ndarray) -> str:
    """What many b-values in rising order are, after a colon."""
    if len(values) < 6:
        return ""
    multiple = values / values[0]
    possible = _sums_of_squares(int(multiple[-1].round()))
    whole = np.abs(multiple - multiple.round()).max() < 0.1 and bool(np.isin(multiple.round(), possible).all())
    if whole and 8 <= multiple[-1].round() <= _LARGEST_GRID and len(values) > 0.6 * len(possible):
        return f": a grid in q-space (DSI, multiples of {values[0]:.4g}), no shells"
    if len(values) <= _LISTED:
        return ""
    steps = np.diff(values)
    even = f" in steps of {steps.mean():.4g}" if np.ptp(steps) < 0.1 * steps.mean() else ""
    return f": a ladder{even}, no shells"


def _sums_of_squares(most: int) -> np.ndarray:
    """Numbers from 1 to ``most`` that are |q|^2 of a point with integer coordinates."""
    squares = np.square(np.arange(min(most, _LARGEST_GRID) + 1))
    sums = np.unique(squares[:8, None, None] + squares[:8, None] + squares[:8])
    return sums[(sums > 0) & (sums <= most)]
