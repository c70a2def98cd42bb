"""What a cohort's population buys a subject with few volumes.

Twelve subjects of two sites, 300 voxels each, MS-DKI from 2 + 8 + 8 volumes at SNR 15. The truth is drawn in numpy:
subjects scatter around their site's mean, voxels around their subject's. Each subject is estimated under a population
learned from its own 300 voxels, under one learned from all 3,600, and under the latter with its mean moved to the
subject's (empirical Bayes). Run: python -m benchmarks.cohort_prior [seeds]
"""

import sys

import numpy as np

import pyroqmri as pq
from pyroqmri.cohort.subject_level import cohort_levels, for_subject

SUBJECTS, VOXELS, SNR, SHOWN = 12, 300, 15.0, 4
B = np.repeat([0.0, 1.0, 2.0], [2, 8, 8])
MEAN, BETWEEN, WITHIN = np.array([0.9, 0.8]), np.array([0.06, 0.08]), np.array([0.10, 0.12])
SITE = np.array([0.10, 0.0])  # of the second site over the first


def subjects(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth ``(J, n, 2)`` of D and K, and measurements ``(J, n, M)``."""
    rng = np.random.default_rng(seed)
    own = MEAN + BETWEEN * rng.normal(size=(SUBJECTS, 1, 2)) + SITE * (np.arange(SUBJECTS) % 2)[:, None, None]
    truth = own + WITHIN * rng.normal(size=(SUBJECTS, VOXELS, 2))
    D, K = truth[..., :1], truth[..., 1:]
    clean = np.exp(-B * D + B**2 * D**2 * K / 6)
    real, imaginary = rng.normal(scale=1 / SNR, size=(2, *clean.shape))
    return truth, np.hypot(clean + real, imaginary)


def score(post: pq.Posterior, truth: np.ndarray) -> list[float]:
    """RMSE and coverage of the 90 % interval of D, then of K."""
    found = []
    for k, name in enumerate("DK"):
        low, high = post.interval(0.9)[name].numpy().T
        error = post.mean[name].numpy() - truth[:, k]
        found += [float(np.sqrt((error**2).mean())), float(((low < truth[:, k]) & (truth[:, k] < high)).mean())]
    return found


def run(seed: int) -> tuple[dict[str, np.ndarray], float]:
    """Scores ``(SHOWN, 4)`` by population, and the offset of the second site's median D that was found."""
    truth, y = subjects(seed)
    acq = pq.Acquisition(bval=B)
    options = {"signal": "msdki", "recipe": "hierarchical", "sigma": 1 / SNR}
    cohort = pq.fit(y.reshape(-1, len(B)), acq, **options)
    owner, names = np.repeat(np.arange(SUBJECTS), VOXELS), [f"{i:02d}" for i in range(SUBJECTS)]
    sites = {name: "ab"[i % 2] for i, name in enumerate(names)}
    level = np.full(len(owner), 1 / SNR)
    levels = cohort_levels(cohort, y.reshape(-1, len(B)), level, owner, names, sites)
    scores: dict[str, list[list[float]]] = {"own": [], "cohort": [], "cohort and subject": []}
    for i in range(SHOWN):
        own = pq.fit(y[i], acq, **options)
        moved, _ = for_subject(cohort, levels, y[i], 1 / SNR, sites[names[i]])
        for name, fit in (("own", own), ("cohort", cohort), ("cohort and subject", moved)):
            scores[name].append(score(fit.posterior(y[i]), truth[i]))
    from pyroqmri.cohort.subject_level import constrained

    a, b = (constrained(cohort, mean)["D"] for mean in levels.mean)
    return {name: np.array(rows) for name, rows in scores.items()}, b - a


def main(n_seeds: int = 5) -> None:
    """Print the means over seeds and subjects."""
    found = [run(seed) for seed in range(n_seeds)]
    print("population            RMSE D  cover  RMSE K  cover   worst cover of a subject: D, K")
    for name in found[0][0]:
        rows = np.concatenate([scores[name] for scores, _ in found])
        mean, worst = rows.mean(0), rows.min(0)
        print(f"{name:20}  {mean[0]:.4f}  {mean[1]:.3f}  {mean[2]:.4f}  {mean[3]:.3f}   {worst[1]:.3f}, {worst[3]:.3f}")
    offsets = [offset for _, offset in found]
    print("offset of the second site in D, truth 0.100:", " ".join(f"{offset:.3f}" for offset in offsets))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
