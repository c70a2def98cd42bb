"""Does what a denoiser took away look like noise? Its histogram, and its correlation over space and over q-space."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.denoising.fit import Denoised
from pyroqmri.measurements.status import UNFITTED
from pyroqmri.simulate import add_noise

_VALUES = 200_000  # of residuals compared with the expected ones
_BINS = np.linspace(-5, 5, 81)
_SHELL = 0.1  # ms/um2
LIMITS = {"spread": (0.85, 1.15), "ks": 0.05, "bias": 0.1, "spatial": 0.05, "neighbours": 0.1, "edge": 1.5}


@dataclass(frozen=True)
class ResidualCheck:
    """Whether a residual looks like the noise that was assumed.

    Parameters
    ----------
    spread, expected_spread
        Standard deviation of residual over sigma, and of noise of the assumed kind around the denoised signal.
    mean, expected_mean
        Their means; Rician noise is not centred on the signal.
    ks
        Largest distance between the two distributions.
    histogram
        Edges and densities of both.
    spatial
        Mean correlation between a voxel's residual and its neighbour's along each axis of the image; 0 is noise.
    neighbours, others
        Mean correlation between the residuals of measurements next to each other on a shell, and of all other pairs.
    largest, edge
        Largest eigenvalue of the correlation matrix of the measurements, and where it ends for pure noise
        (Marchenko and Pastur).
    findings
        What does not look like noise, a sentence each; empty when it does.
    """

    spread: float
    expected_spread: float
    mean: float
    expected_mean: float
    ks: float
    histogram: dict[str, list[float]]
    spatial: list[float | None]
    neighbours: float | None
    others: float
    largest: float
    edge: float
    findings: list[str]

    @property
    def looks_like_noise(self) -> bool:
        """Whether no limit is passed."""
        return not self.findings

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"looks_like_noise": self.looks_like_noise, "limits": LIMITS}


def check_residual(
    denoised: Denoised, acq: Acquisition, kind: str, mask: NDArray[np.bool_] | None = None, seed: int = 0
) -> ResidualCheck:
    """Compare what was removed with noise of the assumed kind and level.

    Parameters
    ----------
    denoised
        Of N voxels.
    acq
        Their M settings.
    kind
        ``gaussian`` or ``rician``.
    mask
        Where the voxels lie ``(X, Y, Z)``, in the order of ``image[mask]``; without it space is not looked at.
    seed
        Of the noise that the residual is compared with.
    """
    fine = ~torch.isin(denoised.status, torch.tensor(UNFITTED))
    sigma = denoised.sigma[fine, None]
    found = (denoised.residual[fine] / sigma).numpy()
    expected = _expected(denoised.signal[fine] / sigma, kind, seed).numpy()
    step = max(1, found.size // _VALUES)
    a, b = found.ravel()[::step], expected.ravel()[::step]
    tested: Any = ks_2samp(a, b)
    values: dict[str, Any] = {
        "spread": float(a.std()), "expected_spread": float(b.std()), "mean": float(a.mean()),
        "expected_mean": float(b.mean()), "ks": float(tested.statistic),
    }  # fmt: skip
    values["histogram"] = {
        "edges": _BINS.tolist(),
        "found": np.histogram(a, _BINS, density=True)[0].tolist(),
        "expected": np.histogram(b, _BINS, density=True)[0].tolist(),
    }
    values["spatial"] = [None] * 3 if mask is None else _spatial(found, mask, fine.numpy())
    values |= _q_space(found, acq)
    return ResidualCheck(**values, findings=_findings(values))


def _expected(signal: Tensor, kind: str, seed: int) -> Tensor:
    """Residuals of noise of level 1 around a signal."""
    return add_noise(signal, 1.0, kind, torch.Generator().manual_seed(seed)) - signal


def _spatial(found: NDArray, mask: NDArray[np.bool_], fine: NDArray[np.bool_]) -> list[float | None]:
    """Mean correlation with the next voxel along each axis."""
    inside = mask.copy()
    inside[mask] = fine
    centred = found - found.mean(0)
    place = np.full(mask.shape, -1)
    place[inside] = np.arange(len(found))
    result: list[float | None] = []
    for axis in range(3):
        low, high = np.take(place, range(mask.shape[axis] - 1), axis), np.take(place, range(1, mask.shape[axis]), axis)
        both = (low >= 0) & (high >= 0)
        if both.sum() < 30:
            result.append(None)
            continue
        a, b = centred[low[both]], centred[high[both]]
        norm = np.sqrt((a**2).mean(0) * (b**2).mean(0)).clip(1e-12)
        result.append(float(((a * b).mean(0) / norm).mean()))
    return result


def _q_space(found: NDArray, acq: Acquisition) -> dict[str, Any]:
    """Correlations between measurements over voxels."""
    live = found.std(0) > 1e-9
    matrix = np.corrcoef(found[:, live].T) if live.sum() > 1 else np.eye(max(1, int(live.sum())))
    off = ~np.eye(len(matrix), dtype=bool)
    pairs = _nearest(acq, live)
    near = [matrix[i, j] for i, j in pairs]
    edge = (1 + np.sqrt(len(matrix) / max(1, len(found)))) ** 2
    return {
        "neighbours": float(np.mean(near)) if near else None,
        "others": float(matrix[off].mean()) if off.any() else 0.0,
        "largest": float(np.linalg.eigvalsh(matrix)[-1]),
        "edge": float(edge),
    }


def _nearest(acq: Acquisition, live: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """For each measurement with a direction, the nearest axis on its shell."""
    if acq.bval is None or acq.bvec is None:
        return []
    b, g = acq.bval.numpy()[live], acq.bvec.numpy()[live]
    found = []
    for i in np.flatnonzero(b > 0.1):
        shell = np.flatnonzero((np.abs(b - b[i]) < _SHELL) & (np.arange(len(b)) != i))
        if len(shell):
            found.append((int(i), int(shell[np.argmax(np.abs(g[shell] @ g[i]))])))
    return found


def _findings(v: dict[str, Any]) -> list[str]:
    """A sentence for each limit that is passed."""
    found = []
    ratio = v["spread"] / max(v["expected_spread"], 1e-12)
    low, high = LIMITS["spread"]
    if not low <= ratio <= high:
        more = "less than the noise was removed" if ratio < low else "more than noise was removed"
        found.append(f"the residual's spread is {ratio:.2f} times that of the noise: {more}")
    if abs(v["mean"] - v["expected_mean"]) > LIMITS["bias"]:
        found.append(f"its mean is {v['mean']:+.2f} sigma where the noise has {v['expected_mean']:+.2f}")
    if v["ks"] > LIMITS["ks"]:
        found.append(f"its histogram is {v['ks']:.2f} from the noise's (largest distance; limit {LIMITS['ks']})")
    for axis, r in zip("xyz", v["spatial"], strict=True):
        if r is not None and abs(r) > LIMITS["spatial"]:
            found.append(f"neighbours along {axis} correlate, {r:+.2f}: structure was removed, or the noise has it")
    if v["neighbours"] is not None and abs(v["neighbours"]) > LIMITS["neighbours"]:
        found.append(f"neighbouring directions correlate, {v['neighbours']:+.2f}")
    if v["largest"] > LIMITS["edge"] * v["edge"]:
        found.append(
            f"the measurements share a pattern: largest eigenvalue {v['largest']:.1f} where noise ends at "
            f"{v['edge']:.1f}"
        )
    return found
