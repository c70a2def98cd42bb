"""What a cohort's population buys a subject with few volumes.

Twelve subjects of two sites, 300 voxels each, MS-DKI from 2 + 8 + 8 volumes at SNR 15. The truth is drawn in numpy:
subjects scatter around their site's mean, voxels around their subject's. Each subject is estimated under a population
learned from its own 300 voxels or 40 of them, under one learned from all 3,600, and under the latter with its mean
moved to the subject's (empirical Bayes). Run: python -m benchmarks.cohort_prior [first seed] [seeds]
"""

import sys

import numpy as np

import pyroqmri as pq
from pyroqmri.cohort.subject_level import cohort_levels, constrained, for_subject

SUBJECTS, VOXELS, FEW, SNR, SHOWN = 12, 300, 40, 15.0, 2
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


def run(seed: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Scores ``(SHOWN, 4)`` by population, and what is found over the subjects."""
    truth, y = subjects(seed)
    acq, level = pq.Acquisition(bval=B), 1 / SNR
    options = {"signal": "msdki", "recipe": "hierarchical", "sigma": level, "settings": {"training.steps": 150}}
    flat, owner = y.reshape(-1, len(B)), np.repeat(np.arange(SUBJECTS), VOXELS)
    names = [f"{i:02d}" for i in range(SUBJECTS)]
    sites = {name: "ab"[i % 2] for i, name in enumerate(names)}
    cohort = pq.fit(flat, acq, **options)
    levels = cohort_levels(cohort, flat, np.full(len(flat), level), owner, names, sites)
    moved = [for_subject(cohort, levels, y[i], level, sites[names[i]])[0] for i in range(SUBJECTS)]
    scores: dict[str, list[list[float]]] = {}
    for i in range(SHOWN):
        few = y[i, :FEW]
        of_few = for_subject(cohort, levels, few, level, sites[names[i]])[0]
        fits = {
            f"own, of {VOXELS} voxels": pq.fit(y[i], acq, **options),
            f"own, of {FEW} voxels": pq.fit(few, acq, **options),
            "cohort": cohort, f"cohort and subject, {VOXELS}": moved[i], f"cohort and subject, {FEW}": of_few,
        }  # fmt: skip
        for name, fit in fits.items():
            scores.setdefault(name, []).append(score(fit.posterior(y[i]), truth[i]))
    over = {"site offset of D": constrained(cohort, levels.mean[1])["D"] - constrained(cohort, levels.mean[0])["D"]}
    for name, fits in (("cohort", [cohort] * SUBJECTS), ("cohort and subject", moved)):
        means = [fit.posterior(one).mean["K"].mean().item() for fit, one in zip(fits, y, strict=True)]
        over[f"slope of subjects' K, {name}"] = float(np.polyfit(truth[..., 1].mean(1), means, 1)[0])
    return {name: np.array(rows) for name, rows in scores.items()}, over


def main(first: int = 0, n_seeds: int = 5) -> None:
    """Print the means over subjects of each seed, then over seeds."""
    found = []
    for seed in range(first, first + n_seeds):
        found.append(run(seed))
        _show(f"seed {seed}", found[-1:])
    if n_seeds > 1:
        _show(f"{n_seeds} seeds", found)


def _show(title: str, found: list[tuple[dict[str, np.ndarray], dict[str, float]]]) -> None:
    print(f"{title:28} RMSE D  cover  RMSE K  cover   lowest cover of a subject: D, K")
    for name in found[0][0]:
        rows = np.concatenate([scores[name] for scores, _ in found])
        mean, worst = rows.mean(0), rows.min(0)
        print(
            f"  {name:26} {mean[0]:.4f}  {mean[1]:.3f}  {mean[2]:.4f}  {mean[3]:.3f}   {worst[1]:.3f}, {worst[3]:.3f}"
        )
    for name in found[0][1]:
        print(f"  {name}:", " ".join(f"{over[name]:.3f}" for _, over in found), flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
