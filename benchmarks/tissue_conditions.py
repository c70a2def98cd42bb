"""Scans of tissue that a population does not describe: truth and noise in numpy, from the physics.

Conditions of :mod:`benchmarks.population_conditions`, each with the voxels of a minority that
is looked at beside all of them.
"""

from dataclasses import dataclass, field

import numpy as np

import pyroqmri as pq
from benchmarks.noise_conditions import ball_stick, protocol

Truth = dict[str, np.ndarray]


@dataclass(frozen=True)
class Scan:
    """Measurements ``(N, M)`` with their settings, truth ``(N,)`` by parameter, noise level, minority ``(N,)``."""

    y: np.ndarray
    acquisition: pq.Acquisition
    truth: Truth
    sigma: float
    minority: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def magnitudes(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes of a signal ``(N, M)`` with complex noise."""
    return np.abs(signal + sigma * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)))


def kurtosis_signal(b: np.ndarray, D: np.ndarray, K: np.ndarray) -> np.ndarray:
    """MS-DKI's signal over S0 ``(N, M)``, level from the b-value on where it would rise again."""
    falling = np.minimum(b, 3 / np.maximum(D * K, 1e-3)[:, None])
    return np.exp(-falling * D[:, None] + (falling * D[:, None]) ** 2 * K[:, None] / 6)


def crossing(n: int, rng: np.random.Generator) -> Scan:
    """Two sticks of 0.3 and 0.2 at 50 to 90 degrees in a third of the voxels, one of 0.55 elsewhere, SNR 10."""
    acq = protocol()
    b, g = acq.bval.double().numpy(), acq.bvec.double().numpy()
    f = np.clip(rng.normal(0.55, 0.08, n), 0.05, 0.95)
    along, iso = rng.normal(1.8, 0.2, n), rng.normal(0.9, 0.12, n)
    axis, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, n, 3)))
    across = np.cross(axis, other)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    angle = np.deg2rad(rng.uniform(50, 90, n))[:, None]
    second = np.cos(angle) * axis + np.sin(angle) * across
    two = rng.random(n) < 1 / 3
    one, more = np.where(two, 0.3, f)[:, None], np.where(two, 0.2, 0.0)[:, None]
    stick = np.exp(-b * along[:, None] * (second @ g.T) ** 2)
    ball = np.exp(-b * iso[:, None])
    single = ball_stick(one[:, 0], along, iso, axis)
    s = single + more * (stick - ball)
    return Scan(magnitudes(s, 0.1, rng), acq, {"f": one[:, 0], "D_par": along, "D_iso": iso}, 0.1, two)


def fluid_minority(n: int, rng: np.random.Generator) -> Scan:
    """MS-DKI in tissue, and in 5 of 100 voxels fluid, 10 volumes at each of b 0, 1000, 2000 and 3000 s/mm2, SNR 20."""
    b, fluid = np.repeat([0.0, 1.0, 2.0, 3.0], 10), rng.random(n) < 0.05
    D = np.where(fluid, rng.normal(3.0, 0.1, n), rng.normal(0.9, 0.1, n))
    K = np.where(fluid, rng.normal(0.1, 0.05, n), rng.normal(0.9, 0.15, n))
    y = magnitudes(kurtosis_signal(b, D, K), 0.05, rng)
    return Scan(y, pq.Acquisition(bval=b), {"D": D, "K": K}, 0.05, fluid)


def lesion(n: int, rng: np.random.Generator) -> Scan:
    """MS-DKI with a lesion in 2 of 100 voxels, 5 volumes at each of b 0, 1000, 2000 and 3000 s/mm2, SNR 12."""
    b, there = np.repeat([0.0, 1.0, 2.0, 3.0], 5), rng.random(n) < 0.02
    D = np.where(there, rng.normal(1.5, 0.05, n), rng.normal(0.85, 0.1, n))
    K = np.where(there, rng.normal(0.5, 0.05, n), rng.normal(0.9, 0.15, n))
    y = magnitudes(kurtosis_signal(b, D, K), 1 / 12, rng)
    return Scan(y, pq.Acquisition(bval=b), {"D": D, "K": K}, 1 / 12, there)


def three_tissues(n: int, rng: np.random.Generator) -> Scan:
    """White and grey matter and fluid of IVIM, 20 volumes, SNR 30; fluid has no perfusion."""
    b = np.array([0, 0, 10, 20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300, 400, 500, 600, 700, 800, 900]) / 1000
    kind = rng.choice(3, n, p=[0.45, 0.45, 0.1])
    f = np.clip(np.array([0.06, 0.10, 0.01])[kind] + np.array([0.015, 0.02, 0.003])[kind] * rng.normal(size=n), 0, 1)
    slow = np.array([0.7, 0.8, 2.8])[kind] * (1 + 0.07 * rng.normal(size=n))
    fast = np.array([12.0, 15.0, 15.0])[kind] * (1 + 0.15 * rng.normal(size=n))
    s = f[:, None] * np.exp(-b * (slow + fast)[:, None]) + (1 - f[:, None]) * np.exp(-b * slow[:, None])
    truth = {"f": f, "D_fast": fast, "D_slow": slow}
    return Scan(magnitudes(1000 * s, 1000 / 30, rng), pq.Acquisition(bval=b), truth, 1000 / 30, kind == 2)


def fourfold(n: int, rng: np.random.Generator) -> Scan:
    """Ball and stick under a sum of squares over four coils, taken for one, SNR 20."""
    f = 1 / (1 + np.exp(-rng.normal(0.2, 0.6, n)))
    along, iso = np.exp(rng.normal(np.log(1.7), 0.15, n)), np.exp(rng.normal(np.log(1.1), 0.25, n))
    axis = rng.normal(size=(n, 3))
    s = ball_stick(f, along, iso, axis / np.linalg.norm(axis, axis=1, keepdims=True))
    power = sum(magnitudes(s / 2, 0.05, rng) ** 2 for _ in range(4))
    return Scan(np.sqrt(power), protocol(), {"f": f, "D_par": along, "D_iso": iso}, 0.05)
