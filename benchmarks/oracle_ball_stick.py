"""The exact posterior of ball-stick under the true prior, by importance sampling whose effective size is checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import i0e, ndtr, ndtri

from benchmarks.importance import fit_proposals
from benchmarks.oracle import IRRELEVANT, Array, Exact
from pyroqmri.signals.shells import half_sphere

NAMES = ("f", "D_par", "D_iso")


def ball_stick_signal(bval: Array, bvec: Array, f: Array, D_par: Array, D_iso: Array, n: Array) -> Array:
    """Signal (..., M) of a stick along n (..., 3) in a ball."""
    f, D_par, D_iso = (np.asarray(v)[..., None] for v in (f, D_par, D_iso))
    return f * np.exp(-bval * D_par * (n @ bvec.T) ** 2) + (1 - f) * np.exp(-bval * D_iso)


def ball_stick(
    y: Array,
    bval: Array,
    bvec: Array,
    sigma: float,
    population: Any,
    at: Mapping[str, Array] | None = None,
    seed: int = 0,
    wanted: float = 1000.0,
    max_draws: int = 32_000,
    chunk: int = 20,
) -> Exact:
    """The posterior of f, D_par, D_iso and the axis n, uniform a priori, S0 being 1.

    Parameters
    ----------
    y, bval, bvec, sigma
        Measurements ``(N, M)``, the gradients ``(M,)`` in ms/um2 and ``(M, 3)``, the true noise level.
    population
        Classes over f, D_par, D_iso, like simulate.GaussianClasses, in any order.
    at
        Points as for :func:`benchmarks.oracle.msdki`; for ``"n"`` an axis ``(N, 3)``: its entry in ``cdf`` is the
        posterior probability of lying closer to the mean axis than it.
    wanted, max_draws
        A voxel's draws are doubled until they are worth ``wanted`` independent ones, or reach ``max_draws`` a
        class. The error of a mean is one sd over the root of ``n_effective``.

    Returns
    -------
    Exact
        ``direction`` is the axis that minimises the expected squared sine of the angle.
    """
    bval, bvec, y = (np.asarray(v, dtype=float) for v in (bval, bvec, y))
    rng = np.random.default_rng(seed)
    on = bval > 0  # the others hold nothing about the tissue
    parts = []
    for start in range(0, len(y), chunk):
        piece = _Chunk(y[start : start + chunk, on], bval[on], bvec[on], sigma, population)
        points = None if at is None else {k: np.asarray(v, dtype=float)[start : start + chunk] for k, v in at.items()}
        parts.append(piece.posterior(points, rng, wanted, max_draws))
    merge = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return Exact(
        mean={k: merge[f"mean_{k}"] for k in NAMES},
        sd={k: merge[f"sd_{k}"] for k in NAMES},
        cdf={k[4:]: v for k, v in merge.items() if k.startswith("cdf_")},
        log_evidence=merge["log_evidence"],
        responsibilities=merge["responsibilities"],
        n_effective=merge["n_effective"],
        direction=merge["direction"],
    )


class _Chunk:
    """Some voxels; a row is a voxel and a class, voxels first; coordinates are 3 of the tissue and 2 of the axis."""

    def __init__(self, y: Array, bval: Array, bvec: Array, sigma: float, population: Any) -> None:
        self.y, self.bval, self.bvec, self.sigma = y, bval, bvec, sigma
        order = [population.parameters.index(name) for name in NAMES]
        self.mean, self.sd = population.means[:, order], population.sds[:, order]
        edges = [(edge[order] - self.mean) / self.sd for edge in (population.lower, population.upper)]
        self.low, self.high = ndtr(edges[0]), ndtr(edges[1])
        share = population.weights * (self.high - self.low).prod(1)
        with np.errstate(divide="ignore"):
            self.log_share = np.maximum(np.log(share / share.sum()), -1e6)
        self.n_classes = len(share)
        self.voxel = np.repeat(np.arange(len(y)), self.n_classes)
        self.of_class = np.tile(np.arange(self.n_classes), len(y))
        self.constant = (np.log(y / sigma**2) - y**2 / (2 * sigma**2)).sum(1)
        self.frame = self._frames()

    def _frames(self) -> Array:
        """Frames ``(R, 3, 3)`` around the axis of highest likelihood at each class's mean."""
        axes = half_sphere(400)
        signal = ball_stick_signal(self.bval, self.bvec, *self.mean.T[:, :, None], axes[None])  # (C, A, M)
        gap = self.y[:, None, None] - signal
        best = axes[(gap**2).sum(-1).argmin(-1)].reshape(-1, 3)
        helper = np.where(np.abs(best[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
        first = np.cross(helper, best)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        return np.stack([best, first, np.cross(best, first)], 1)

    def parameters(self, points: Array, rows: Array) -> tuple[Array, Array]:
        """Tissue ``(r, n, 3)`` and axes ``(r, n, 3)`` of coordinates; their priors are those of the population."""
        k = self.of_class[rows]
        u = self.low[k, None] + ndtr(points[..., :3]) * (self.high - self.low)[k, None]
        tissue = self.mean[k, None] + self.sd[k, None] * ndtri(np.clip(u, 1e-15, 1 - 1e-15))
        squared = (points[..., 3:] ** 2).sum(-1, keepdims=True)  # exponential with mean 2: the height is uniform
        height = np.exp(-squared / 2)
        ring = np.sqrt((1 - height**2) / np.maximum(squared, 1e-300)) * points[..., 3:]
        return tissue, np.concatenate([height, ring], -1) @ self.frame[rows]

    def log_target(self, points: Array, rows: Array) -> Array:
        """Log likelihood plus the standard normal prior of the coordinates, ``(r, n)``."""
        tissue, axes = self.parameters(points, rows)
        signal = ball_stick_signal(self.bval, self.bvec, *np.moveaxis(tissue, -1, 0), axes)
        scaled = self.y[self.voxel[rows], None] / self.sigma**2
        fit = (scaled * signal - signal**2 / (2 * self.sigma**2) + np.log(i0e(scaled * signal))).sum(-1)
        prior = -(points**2).sum(-1) / 2 - points.shape[-1] / 2 * np.log(2 * np.pi)
        return fit + prior + self.constant[self.voxel[rows], None] + self.log_share[self.of_class[rows], None]

    def posterior(
        self, at: Mapping[str, Array] | None, rng: np.random.Generator, wanted: float, max_draws: int
    ) -> dict[str, Array]:
        """What :class:`Exact` holds, for the voxels of the chunk."""
        proposal, log_mass = fit_proposals(self.log_target, len(self.voxel), 5, rng)
        rough = log_mass.reshape(-1, self.n_classes)
        relevant = rough > rough.max(1, keepdims=True) + IRRELEVANT
        results = []
        for v in range(len(self.y)):
            rows = v * self.n_classes + np.flatnonzero(relevant[v])
            n, batches = 1000, []
            while True:
                points = proposal[rows].sample(n, rng)
                log_w = self.log_target(points, rows) - proposal[rows].log_density(points)
                batches.append((points, log_w))
                log_w = np.concatenate([b[1] for b in batches], 1)
                w = np.exp(log_w - log_w.max())
                total = log_w.shape[1]
                if w.sum() ** 2 / (w**2).sum() >= wanted or 2 * total > max_draws:
                    break
                n = total
            points = np.concatenate([b[0] for b in batches], 1)
            here = None if at is None else {k: value[v] for k, value in at.items()}
            results.append(self._summary(points, log_w, rows, here))
        return {k: np.stack([r[k] for r in results]) for k in results[0]}

    def _summary(self, points: Array, log_w: Array, rows: Array, at: Mapping[str, Array] | None) -> dict[str, Array]:
        tissue, axes = self.parameters(points, rows)
        top = log_w.max()
        w = np.exp(log_w - top)
        share = np.zeros(self.n_classes)
        share[self.of_class[rows]] = w.sum(1) / w.sum()
        result = {
            "log_evidence": top + np.log(w.mean(1).sum()),
            "responsibilities": share,
            "n_effective": w.sum() ** 2 / (w**2).sum(),
        }
        w = (w / w.sum()).ravel()
        tissue, axes = tissue.reshape(-1, 3), axes.reshape(-1, 3)
        for k, name in enumerate(NAMES):
            mean = w @ tissue[:, k]
            result |= {f"mean_{name}": mean, f"sd_{name}": np.sqrt(w @ (tissue[:, k] - mean) ** 2)}
            if at is not None:
                result[f"cdf_{name}"] = w @ (tissue[:, k, None] <= np.atleast_1d(at[name]))
        direction = np.linalg.eigh((axes * w[:, None]).T @ axes)[1][:, -1]
        result["direction"] = direction
        if at is not None:
            inside = np.abs(axes @ direction) >= abs(at["n"] @ direction)
            result["cdf_n"] = np.atleast_1d(w @ inside)
        return result
