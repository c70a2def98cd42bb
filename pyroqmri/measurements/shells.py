"""Shells: volumes of one b-value, jitter and all."""

import numpy as np
import torch

B0_BELOW = 50.0  # s/mm2


def shells_of(b: np.ndarray) -> list[np.ndarray]:
    """Volumes ``(n,)`` of each shell, in rising b, of b-values ``(M,)`` in s/mm2 above the b0 limit.

    A volume joins the shell below it when its b-value is within 50 s/mm2 or 5 % (whichever is
    larger) of that shell's mean; below 500 s/mm2, where perfusion scans set b-values a few
    tens apart, within 5 %. A group as wide as the gap to its neighbour is no shell but a
    ladder of b-values, and stays apart.
    """
    order = np.flatnonzero(b >= B0_BELOW)
    order = order[np.argsort(b[order], kind="stable")]
    groups: list[list[int]] = []
    for i in order:
        mean = b[groups[-1]].mean() if groups else -np.inf
        tolerance = 0.05 * mean if mean < 500 else max(50.0, 0.05 * mean)
        if groups and b[i] - mean <= tolerance:
            groups[-1].append(i)
        else:
            groups.append([i])
    shells: list[np.ndarray] = []
    for k, group in enumerate(groups):
        width = b[group[-1]] - b[group[0]]
        below = b[group[0]] - (b[groups[k - 1][-1]] if k else 0.0)
        above = b[groups[k + 1][0]] - b[group[-1]] if k + 1 < len(groups) else np.inf
        apart = width >= min(below, above)
        members = np.array(group)
        shells += [members[b[members] == value] for value in np.unique(b[members])] if apart else [members]
    return shells


def gather_shells(b: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """b-values ``(M,)`` in s/mm2 with each shell's jitter replaced by its mean, and a note on what was gathered."""
    gathered, said = b.astype(float), []
    for shell in shells_of(b):
        low, high = b[shell].min(), b[shell].max()
        if high > low:
            gathered[shell] = b[shell].mean()
            said.append(f"{low:.5g}-{high:.5g} -> {b[shell].mean():.5g} ({len(shell)} volumes)")
    if not said:
        return gathered, []
    shown = "; ".join(said[:8]) + (f"; and {len(said) - 8} more" if len(said) > 8 else "")
    return gathered, [f"jittered b-values gathered into shells, tolerance 50 s/mm2 or 5 %: {shown}"]


def shell_indices(bval: torch.Tensor | np.ndarray) -> list[np.ndarray]:
    """Volumes of each shell in rising b, of b-values ``(M,)`` in ms/um2; b0 volumes (below 0.05) belong to none."""
    return shells_of(np.round(np.asarray(bval, dtype=float) * 1000, 3))


def describe(b: np.ndarray) -> str:
    """The protocol in words."""
    values, counts = np.unique(b[b >= B0_BELOW], return_counts=True)
    n_b0 = int((b < B0_BELOW).sum())
    low = np.unique(b[b < B0_BELOW])
    among = f" (b {' '.join(f'{v:g}' for v in low[:8])} all count as b0)" if len(low) > 1 else ""
    if len(values) > 12:
        shells = f"{len(values)} different b-values from {values[0]:.5g} to {values[-1]:.5g} s/mm2"
    else:
        shells = ", ".join(f"{n} x b {v:.5g}" for v, n in zip(values, counts, strict=True)) + " s/mm2"
    return f"{n_b0} b0 volume{'' if n_b0 == 1 else 's'}{among}" + (f"; {shells}" if len(values) else "")
