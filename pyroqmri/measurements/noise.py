"""The noise level of a scan, measured on the scan itself."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.air import FEWEST, air_sigma, coils_in_air
from pyroqmri.measurements.noise_field import NoiseField
from pyroqmri.measurements.noise_groups import Group, constant, groups_of, repeats_without_encoding
from pyroqmri.measurements.scatter import group_scatter, lowest, scatters, with_signal

Method = Literal["auto", "shells", "b0", "background"]
MAX_VOXELS, MIN_VOXELS = 20_000, 700  # that an estimate is made on, by what each has to give
_FREEDOM = 200_000  # degrees of freedom; sigma, from the median voxel, is then known to 0.2 %
DISAGREE = 1.5  # two estimates that differ by more are not both right
_SEVERAL, _SAME = 1.8, 1.25  # coils in air that are named, where sigma in tissue is within this factor of that in air
_ALIKE = 1.15  # two estimates that differ by less may differ by chance
_COMPARED = 50  # voxels; fewer tell too little to compare estimates


@dataclass(frozen=True)
class NoiseEstimate:
    """A noise level and how it was found.

    ``sigma`` is in the units of the signal, measured by ``method`` on ``n`` voxels
    (background: values); ``note`` says in a sentence what was done, ``warnings`` which estimates disagree.
    ``trusted`` is False where signal may have been taken for noise.
    """

    sigma: float
    method: str
    n: int
    note: str
    warnings: tuple[str, ...] = ()
    trusted: bool = True


@dataclass(frozen=True)
class NoiseLevel:
    """Noise in the scan's units: ``level`` is one number or ``(N,)``, ``sigma`` its median.

    ``warnings`` say which estimates disagree; a ``provisional`` level is still to be compared with the residuals of
    least squares. Where it is a smooth map learned from the scan, ``field`` gives it at any voxel. ``shared`` is how
    the noise of neighbouring voxels correlates along each image axis, where that was looked at.
    """

    level: float | torch.Tensor
    method: str
    note: str
    warnings: tuple[str, ...] = ()
    provisional: bool = False
    field: NoiseField | None = None
    shared: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def of(self, index: Any) -> "NoiseLevel":
        """The level of some of the voxels."""
        return replace(self, level=self.level[index]) if isinstance(self.level, torch.Tensor) else self

    def at(self, position: Any) -> "NoiseLevel":
        """The level at other voxel indices ``(N, 3)``, where it is a field."""
        return self if self.field is None else replace(self, level=self.field(torch.as_tensor(position)))

    @property
    def sigma(self) -> float:
        """One number for all voxels; those of a map that have none do not count."""
        return float(torch.as_tensor(self.level).nanmedian())


def estimate_sigma(
    y: np.ndarray | torch.Tensor,
    acquisition: Acquisition,
    *,
    method: Method = "auto",
    background: np.ndarray | None = None,
    coils: float = 1.0,
    partial: bool = False,
) -> NoiseEstimate:
    """Standard deviation of the Gaussian noise in each channel behind magnitude measurements.

    Where measurements are means of several magnitudes (``acquisition.averages``) it is that of a single one.

    Parameters
    ----------
    y
        Measurements ``(N, M)``; not divided by S0 unless all voxels by the same number.
    method
        ``shells``: scatter of each shell's volumes around a spherical-harmonic fit, or
        around their mean where they repeat one measurement. ``b0``: scatter of the b0
        volumes in the darker half of the voxels, because bright ones pulsate.
        ``background``: values in air, which follow a Rayleigh distribution.
        ``auto``: the first of these that the scan allows, compared with the others.
    background
        Values measured in air, ``(K,)``.
    coils
        Channels whose sum of squares a magnitude is the root of.
    partial
        Voxels of whose measurements some are NaN count as well: those are what does not count in them.

    Raises
    ------
    InputError
        When the scan does not allow the method, or shows no noise at all.

    Notes
    -----
    The scatter of Rician data around a low mean is smaller than sigma by a known factor
    (Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016), which is undone.
    """
    if method not in ("auto", "shells", "b0", "background"):
        raise InputError(f"noise method {method!r} is unknown; give auto, shells, b0 or background")
    groups = groups_of(acquisition) if method in ("auto", "shells") else []
    same = repeats_without_encoding(acquisition)
    y = _usable(np.asarray(y), len(acquisition), _enough(groups, same), partial)
    shells = _from_groups(y, groups, acquisition, coils) if groups else None
    if acquisition.averages is not None and bool((acquisition.averages > 1).any()):
        background = None  # a mean of magnitudes in air has another law than one
    b0 = _from_b0(y, same, acquisition, coils) if len(same) > 1 and method in ("auto", "b0") else None
    if shells is not None:
        found = shells
        # signal taken for noise only ever adds: few directions leave some of it in, and b0s then are the better ones
        clearly = DISAGREE if shells.trusted else _ALIKE
        if method == "auto" and b0 is not None and shells.sigma > clearly * b0.sigma:
            found = b0
    elif method == "shells":
        raise InputError("no shell has enough directions or repeats to measure the noise on; give sigma as a number")
    elif b0 is not None:
        found = b0
    elif method == "b0":
        raise InputError("the noise cannot be measured on b0 repeats: the scan has fewer than two; give sigma")
    elif background is None or len(background) < FEWEST:
        raise InputError(
            "the noise cannot be measured: no shell with enough directions or repeats, no repeated b0 and no "
            "background were found; give sigma as a number or learn it"
        )
    else:
        return _checked(_from_background(background, coils), y)
    found = _checked(found, y)
    if method != "auto":
        return found
    others = [other for other in (shells, b0, _believed(background, coils)) if other is not None and other is not found]
    warnings = [*_disagreements(found, others, len(y)), *(_of_coils(background, y, acquisition) if coils == 1 else [])]
    return replace(found, warnings=tuple(warnings))


def _of_coils(background: np.ndarray | None, y: np.ndarray, acquisition: Acquisition) -> list[str]:
    """A sentence where air has the law of several coils, with the noise that tissue then has."""
    air = np.asarray([] if background is None else background, dtype=np.float64)
    try:
        seen = coils_in_air(air)
        sigma = air_sigma(air, seen)[0], estimate_sigma(y, acquisition, coils=seen, partial=True).sigma
    except InputError:
        return []
    if seen < _SEVERAL or max(sigma) > _SAME * min(sigma):
        return []
    return [
        f"noise: air has the spread of a sum of squares over {seen:.2g} coils, or of means of several magnitudes, and "
        "one coil was taken, under which weak signals come out too strong; give --coils learn, or --averages N"
    ]


def _believed(background: np.ndarray | None, coils: float) -> NoiseEstimate | None:
    if background is None:
        return None
    try:
        return _from_background(background, coils)
    except InputError:
        return None


WORDS = {
    "shells": "shells and repeats",
    "b0": "b0 repeats",
    "background": "air",
    "residual": "the residuals of least squares",
}


def _disagreements(found: NoiseEstimate, others: list[NoiseEstimate], n_voxels: int) -> list[str]:
    if n_voxels < _COMPARED:
        return []
    said = []
    for other in others:
        # signal in an estimate that is not trusted makes it too large, which is known
        expected = not other.trusted and other.sigma > found.sigma
        if not expected and disagree(found.sigma, other.sigma):
            said.append(disagreement(found.sigma, found.method, other.sigma, other.method))
    return said


_TOO_HIGH = {
    "b0": "b0 volumes that pulsate, move or differ in scale",
    "background": "tissue, ghosts or the noise of several coils outside the mask",
    "shells": "too few directions for the signal of the shell, volumes of one shell or setting that differ in scale, "
    "b-value or position, or b0 volumes that are averages",
    "residual": "a signal that does not follow all of these data, or volumes that moved",
}


def disagree(one: float, other: float) -> bool:
    """Whether two noise levels differ by more than 1.5 times."""
    return max(one, other) > DISAGREE * min(one, other)


def disagreement(used: float, method: str, other: float, other_method: str) -> str:
    """The sentence that warns of two noise levels that are not both right."""
    high, low = (method, other_method) if used > other else (other_method, method)
    filtered = "air of an image that was masked, filtered or resampled, or " if low == "background" else ""
    return (
        f"noise level: {WORDS[method]} give sigma {used:.4g}, which was used, and {WORDS[other_method]} {other:.4g} "
        f"(causes: {filtered}{_TOO_HIGH[high]}); give --sigma where you know it"
    )


def _checked(estimate: NoiseEstimate, y: np.ndarray) -> NoiseEstimate:
    if not estimate.sigma > 1e-6 * max(np.nanmax(y), -np.nanmin(y)):  # rounding, or nothing
        raise InputError(f"the {estimate.method} of this scan show no noise at all; give sigma as a number or learn it")
    return estimate


def _enough(groups: list[Group], same: np.ndarray) -> int:
    """How many voxels give a noise level that is known well, by the groups that it is likely to come from."""
    dof = sum(group.dof for group in groups if group.trusted) or len(same) - 1
    return min(MAX_VOXELS, max(MIN_VOXELS, _FREEDOM // max(1, dof)))


def _usable(y: np.ndarray, n_measurements: int, n_voxels: int, partial: bool) -> np.ndarray:
    """Voxels with finite measurements and a signal, at most ``n_voxels`` of them, drawn with a fixed seed, float64."""
    if y.ndim != 2 or y.shape[1] != n_measurements:
        raise InputError(f"the measurements must be (voxels, {n_measurements}), got shape {y.shape}")
    # a whole brain in float64 need not fit in memory, and few of many voxels do; where most have no signal, more
    for drawn in sorted({3 * n_voxels, 3 * MAX_VOXELS}):
        some = y
        if len(y) > drawn:
            some = y[np.sort(np.random.default_rng(0).choice(len(y), drawn, replace=False))]
        with np.errstate(invalid="ignore", over="ignore"):
            kept = np.flatnonzero(with_signal(some, partial))
        if len(kept) >= n_voxels or len(y) <= drawn:
            break
    if not len(kept):
        raise InputError("no voxel has finite measurements and a signal, so the noise cannot be measured")
    if len(kept) > n_voxels:
        kept = np.sort(np.random.default_rng(1).choice(kept, n_voxels, replace=False))
    return some[kept].astype(np.float64)


def _from_groups(y: np.ndarray, groups: list[Group], acquisition: Acquisition, coils: float) -> NoiseEstimate:
    parts = scatters(y, groups, acquisition, coils)
    sigmas, kept = lowest(parts)
    dof = np.array([g.dof for g in groups])
    sigma = float(np.sqrt((dof * sigmas**2)[kept].sum() / dof[kept].sum()))
    found = "; ".join(f"{g.words}, {s:.4g}" for g, s in zip(groups[:8], sigmas, strict=False))
    rest = f"; and {len(groups) - 8} more" if len(groups) > 8 else ""
    caution = ""
    if acquisition.bval is not None and acquisition.bvec is None:
        caution = "; without bvecs the directions of a shell were taken for repeats, which is too much in white matter"
    note = f"sigma {sigma:.4g} from the residuals within shells ({found}{rest}) of {len(y)} voxels{caution}"
    return NoiseEstimate(sigma, "shells", len(y), note, trusted=any(g.trusted for g in groups))


def _from_b0(y: np.ndarray, volumes: np.ndarray, acquisition: Acquisition, coils: float) -> NoiseEstimate:
    b0 = y[:, volumes]
    b0 = b0[np.isfinite(b0).all(1)]
    if not len(b0):
        raise InputError("the noise cannot be measured on b0 repeats: no voxel has them all; give sigma")
    mean = b0.mean(1)
    dark = b0[mean <= np.median(mean)]
    n = acquisition.n_averages.double().numpy()[volumes]
    group = Group(np.arange(len(volumes)), constant(len(volumes)), 1, True, "")
    sigma = group_scatter(dark, group, None if (y < 0).mean() > 0.05 else coils, n).sigma()
    note = f"sigma {sigma:.4g} from {b0.shape[1]} b0 repeats in the darker half of the voxels ({len(dark)})"
    return NoiseEstimate(sigma, "b0", len(dark), note)


def _from_background(values: np.ndarray, coils: float) -> NoiseEstimate:
    sigma, n, law = air_sigma(np.asarray(values, dtype=np.float64), coils)
    below = "below 2.5 sigma, " if law == "Rayleigh" else ""
    note = f"sigma {sigma:.4g} from {n} background values {below}taken for {law} noise"
    return NoiseEstimate(sigma, "background", n, note)
