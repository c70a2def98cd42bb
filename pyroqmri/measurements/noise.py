"""The noise level of a scan, measured on the scan itself."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import special
from scipy.stats import chi2

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError

Method = Literal["auto", "shells", "b0", "background"]
MAX_VOXELS = 20_000
MIN_DOF = 3
_TRUNCATION = 2.5


@dataclass(frozen=True)
class NoiseEstimate:
    """A noise level and how it was found.

    ``sigma`` is in the units of the signal, measured by ``method`` on ``n`` voxels
    (background: values); ``note`` says in a sentence what was done.
    """

    sigma: float
    method: str
    n: int
    note: str


@dataclass(frozen=True)
class NoiseLevel:
    """Noise in the scan's units: ``level`` is one number or ``(N,)``, ``sigma`` its median."""

    level: float | torch.Tensor
    method: str
    note: str

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
) -> NoiseEstimate:
    """Standard deviation of the Gaussian noise in each channel behind magnitude measurements.

    Parameters
    ----------
    y
        Measurements ``(N, M)``; not divided by S0 unless all voxels by the same number.
    method
        ``shells``: scatter of each shell's volumes around a spherical-harmonic fit, or
        around their mean where they repeat one measurement. ``b0``: scatter of the b0
        volumes in the darker half of the voxels, because bright ones pulsate.
        ``background``: values in air, which follow a Rayleigh distribution.
        ``auto``: the first of these that the scan allows.
    background
        Values measured in air, ``(K,)``.

    Raises
    ------
    InputError
        When the scan does not allow the method, or shows no noise at all.

    Notes
    -----
    The scatter of Rician data around a low mean is smaller than sigma by a known factor
    (Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016), which is undone.
    """
    y = _usable(np.asarray(y), len(acquisition))
    if method not in ("auto", "shells", "b0", "background"):
        raise InputError(f"noise method {method!r} is unknown; give auto, shells, b0 or background")
    groups = _groups(acquisition) if method in ("auto", "shells") else []
    has_b0 = acquisition.bval is not None and int(acquisition.b0.sum()) > 1
    if groups:
        found = _from_groups(y, groups, acquisition)
        if method == "auto" and has_b0 and not any(g.trusted for g in groups):
            # signal taken for noise only ever adds: the lower of the two is nearer
            found = min(found, _from_b0(y, acquisition), key=lambda estimate: estimate.sigma)
        return _checked(found, y)
    if method == "shells":
        raise InputError("no shell has enough directions or repeats to measure the noise on; give sigma as a number")
    if has_b0 and method != "background":
        return _checked(_from_b0(y, acquisition), y)
    if method == "b0":
        raise InputError("the noise cannot be measured on b0 repeats: the scan has fewer than two; give sigma")
    if background is None or len(background) < 100:
        raise InputError(
            "the noise cannot be measured: no shell with enough directions or repeats, no repeated b0 and no "
            "background were found; give sigma as a number or learn it"
        )
    return _checked(_from_background(np.asarray(background, dtype=np.float64)), y)


def _checked(estimate: NoiseEstimate, y: np.ndarray) -> NoiseEstimate:
    if not estimate.sigma > 1e-6 * np.abs(y).max():  # rounding, or nothing
        raise InputError(f"the {estimate.method} of this scan show no noise at all; give sigma as a number or learn it")
    return estimate


def _usable(y: np.ndarray, n_measurements: int) -> np.ndarray:
    """Voxels with finite measurements and a signal, at most 20,000 of them, drawn with a fixed seed, float64."""
    if y.ndim != 2 or y.shape[1] != n_measurements:
        raise InputError(f"the measurements must be (voxels, {n_measurements}), got shape {y.shape}")
    if len(y) > 3 * MAX_VOXELS:  # a whole brain in float64 need not fit in memory
        y = y[np.sort(np.random.default_rng(0).choice(len(y), 3 * MAX_VOXELS, replace=False))]
    with np.errstate(invalid="ignore", over="ignore"):
        kept = np.flatnonzero(np.isfinite(y).all(1) & (y.mean(1, dtype=np.float64) > 0))
    if not len(kept):
        raise InputError("no voxel has finite measurements and a signal, so the noise cannot be measured")
    if len(kept) > MAX_VOXELS:
        kept = np.sort(np.random.default_rng(1).choice(kept, MAX_VOXELS, replace=False))
    return y[kept].astype(np.float64)


@dataclass(frozen=True)
class _Group:
    """Volumes whose noise-free signal lies in the span of ``basis`` (n, p), orthonormal.

    The span of its first ``n_smooth`` columns holds the signal's outline, with less noise.
    ``trusted`` says that what is left is noise in tissue as well as in theory.
    """

    volumes: np.ndarray
    basis: np.ndarray
    n_smooth: int
    trusted: bool
    words: str

    @property
    def dof(self) -> int:
        return self.basis.shape[0] - self.basis.shape[1]


def _groups(acquisition: Acquisition) -> list[_Group]:
    groups = []
    for volumes, name in _alike(acquisition):
        if acquisition.bvec is not None and acquisition.bval is not None:
            group = _directional(volumes, acquisition.bvec.double().cpu().numpy()[volumes], name)
        else:
            # without bvecs nobody knows whether a shell repeats one direction
            words = f"{name}: {len(volumes)} repeats"
            group = _Group(volumes, _constant(len(volumes)), 1, acquisition.bval is None, words)
        if group is not None and group.dof >= MIN_DOF:
            groups.append(group)
    return groups


def _alike(acquisition: Acquisition) -> list[tuple[np.ndarray, str]]:
    """Volumes with the same b-value (to 0.02 ms/um2 between neighbours) and times, b0 left out, and their names."""
    keys = [v.double().cpu().numpy() for k, v in acquisition.settings().items() if k not in ("bval", "bvec")]
    measured = np.arange(len(acquisition))
    if acquisition.bval is not None:
        bval = acquisition.bval.double().cpu().numpy()
        order = np.argsort(bval, kind="stable")
        shell = np.empty(len(bval))
        shell[order] = np.cumsum(np.diff(bval[order], prepend=bval[order[0]]) > 0.02)
        keys.append(shell)
        measured = np.flatnonzero(~acquisition.b0.cpu().numpy())
    table = np.round(np.stack(keys, 1), 4)[measured]
    _, label = np.unique(table, axis=0, return_inverse=True)
    label = label.ravel()
    alike = [measured[label == k] for k in range(label.max(initial=-1) + 1)]
    if acquisition.bval is None:
        return [(volumes, f"setting {k}") for k, volumes in enumerate(alike)]
    return [(volumes, f"b {float(acquisition.bval[volumes].mean()):.3g}") for volumes in alike]


def _constant(n: int) -> np.ndarray:
    return np.full((n, 1), n**-0.5)


def _directional(volumes: np.ndarray, g: np.ndarray, name: str) -> _Group | None:
    """A group along axes g (n, 3) whose basis holds any smooth signal, or None with too few axes."""
    n = len(g)
    turned = g * np.where(_first_sign(g) < 0, -1.0, 1.0)[:, None]
    axes, label = np.unique(np.round(turned, 3) + 0.0, axis=0, return_inverse=True)
    if n - len(axes) >= max(MIN_DOF, 0.4 * n):  # repeats make no assumption on smoothness
        one_hot = np.eye(len(axes))[label.ravel()]
        basis = one_hot / np.sqrt(one_hot.sum(0))
        return _Group(volumes, basis, len(axes), True, f"{name}: {n} volumes along {len(axes)} axes")
    orders = [order for order in (2, 4, 6, 8) if (order + 1) * (order + 2) / 2 <= 0.65 * len(axes)]
    if not orders:
        return None
    q, r = np.linalg.qr(_even_harmonics(g, orders[-1]))
    independent = np.abs(np.diag(r)) > 1e-6 * np.abs(r[0, 0])
    words = f"{name}: {n} directions, order {orders[-1]}"
    return _Group(volumes, q[:, independent], int(independent[:15].sum()), orders[-1] > 2, words)


def _first_sign(g: np.ndarray) -> np.ndarray:
    """Sign of the first component that is not small, so that g and -g can be told to be one axis."""
    signs = np.sign(np.where(np.abs(g) > 5e-4, g, 0.0))
    return signs[np.arange(len(g)), np.argmax(signs != 0, axis=1)]


def _even_harmonics(g: np.ndarray, order: int) -> np.ndarray:
    """Real spherical harmonics ``(n, (order + 1)(order + 2) / 2)`` of even degree."""
    polar, azimuth = np.arccos(np.clip(g[:, 2], -1, 1)), np.arctan2(g[:, 1], g[:, 0])
    columns = []
    for degree in range(0, order + 1, 2):
        for m in range(degree + 1):
            value = special.sph_harm_y(degree, m, polar, azimuth)
            columns += [value.real, value.imag] if m else [value.real]
    return np.stack(columns, 1)


def _from_groups(y: np.ndarray, groups: list[_Group], acquisition: Acquisition) -> NoiseEstimate:
    signed = (y < 0).mean() > 0.05
    sigmas = np.array([_group_sigma(y[:, g.volumes], g.basis, g.n_smooth, signed) for g in groups])
    dof = np.array([g.dof for g in groups])
    # a fit that misses signal can only add to the residuals, so the lowest shells are right
    kept = sigmas <= (1.05 + 2 / np.sqrt(dof * len(y))) * sigmas.min()
    sigma = float(np.sqrt((dof * sigmas**2)[kept].sum() / dof[kept].sum()))
    found = "; ".join(f"{g.words}, {s:.4g}" for g, s in zip(groups[:8], sigmas, strict=False))
    rest = f"; and {len(groups) - 8} more" if len(groups) > 8 else ""
    caution = ""
    if acquisition.bval is not None and acquisition.bvec is None:
        caution = "; without bvecs the directions of a shell were taken for repeats, which is too much in white matter"
    note = f"sigma {sigma:.4g} from the residuals within shells ({found}{rest}) of {len(y)} voxels{caution}"
    return NoiseEstimate(sigma, "shells", len(y), note)


def _group_sigma(y: np.ndarray, basis: np.ndarray, n_smooth: int, signed: bool) -> float:
    """Noise level from the residuals ``(N, n)`` around the projection on ``basis``, robust over voxels."""
    n, p = basis.shape
    weights = y @ basis
    rss = np.square(y - weights @ basis.T).sum(1)
    outline = weights[:, :n_smooth] @ basis[:, :n_smooth].T
    freedom = 1 - np.square(basis).sum(1)
    to_mean = chi2.median(n - p) / (n - p)  # a median over voxels shrugs off pulsation and movement
    sigma = float(np.sqrt(np.median(rss) / (n - p) / to_mean))
    for _ in range(0 if signed or sigma == 0 else 50):
        expected = rician_variance_ratio(outline / sigma) @ freedom
        new = float(np.sqrt(np.median(rss / expected) / to_mean))
        if abs(new - sigma) < 1e-5 * sigma:
            break
        sigma = new
    return sigma


def _rician_table() -> tuple[np.ndarray, np.ndarray]:
    snr = np.concatenate([np.linspace(0, 5, 500), np.linspace(5.05, 40, 700)])
    quarter = snr**2 / 4
    mean = np.sqrt(np.pi / 8) * ((2 + snr**2) * special.i0e(quarter) + snr**2 * special.i1e(quarter))
    return mean, 2 + snr**2 - mean**2


_MEAN, _VARIANCE = _rician_table()


def rician_variance_ratio(mean: np.ndarray) -> np.ndarray:
    """Variance over sigma^2 of Rician data of any shape with this mean over sigma; 0.43 in air, 1 in bright tissue."""
    return np.interp(mean, _MEAN, _VARIANCE)


def _from_b0(y: np.ndarray, acquisition: Acquisition) -> NoiseEstimate:
    b0 = y[:, acquisition.b0.cpu().numpy()]
    mean = b0.mean(1)
    dark = b0[mean <= np.median(mean)]
    sigma = _group_sigma(dark, _constant(b0.shape[1]), 1, bool((y < 0).mean() > 0.05))
    note = f"sigma {sigma:.4g} from {b0.shape[1]} b0 repeats in the darker half of the voxels ({len(dark)})"
    return NoiseEstimate(sigma, "b0", len(dark), note)


def _from_background(values: np.ndarray) -> NoiseEstimate:
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) < 0.5 * len(values) or len(positive) < 100:
        raise InputError("the background of this image is mostly zero, so it contains no noise; give sigma as a number")
    # tissue left in the background is brighter than air: fit what lies below 2.5 sigma only
    half = _TRUNCATION**2 / 2
    second_moment = 2 * (1 - half * np.exp(-half) / -np.expm1(-half))
    sigma = float(np.quantile(positive, 0.25) / np.sqrt(-2 * np.log(0.75)))
    for _ in range(100):
        air = positive[positive < _TRUNCATION * sigma]
        new = float(np.sqrt(np.square(air).mean() / second_moment))
        if abs(new - sigma) < 1e-4 * sigma:
            break
        sigma = new
    note = f"sigma {sigma:.4g} from {len(air)} background values below {_TRUNCATION:g} sigma, taken for Rayleigh noise"
    return NoiseEstimate(sigma, "background", len(air), note)
