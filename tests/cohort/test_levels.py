"""Levels of a population against truth that was drawn in numpy."""

import numpy as np
import pytest

from pyroqmri.cohort.levels import Information, Levels, learn_levels, subject_mean
from pyroqmri.errors import InputError

MEAN = np.array([0.3, -0.5])
BETWEEN = np.array([[0.04, 0.01], [0.01, 0.02]])
WITHIN = np.array([[0.25, -0.05], [-0.05, 0.09]])


def draw(n_subjects, n_voxels, seed, mean=MEAN, known=2):
    """Subjects' means and the information of their voxels; of the second latent nothing where ``known`` is 1."""
    rng = np.random.default_rng(seed)
    means, infos = [], []
    for _ in range(n_subjects):
        own = rng.multivariate_normal(mean, BETWEEN)
        z = rng.multivariate_normal(own, WITHIN, n_voxels)
        noise = rng.uniform(0.05, 0.5, (n_voxels, 2)) ** 2
        if known == 1:
            noise[:, 1] = np.inf
        y = z + np.where(np.isinf(noise), 0, rng.normal(size=z.shape) * np.sqrt(np.where(np.isinf(noise), 0, noise)))
        precision = np.zeros((n_voxels, 2, 2))
        precision[:, [0, 1], [0, 1]] = 1 / noise
        means.append(own)
        infos.append(Information(precision, (precision @ y[..., None])[..., 0]))
    return np.array(means), infos


def test_levels_are_recovered():
    _, infos = draw(60, 100, seed=0)
    found = learn_levels(infos, [""] * 60, np.zeros(2), np.eye(2))
    # standard errors of 60 subjects: 0.026 of a mean, 18 % of a variance between; 6,000 voxels: 2 to 3 % within
    assert np.abs(found.mean[0] - MEAN).max() < 0.09
    assert np.abs(found.between / BETWEEN - 1).max() < 0.9
    assert np.abs(found.between.diagonal() / BETWEEN.diagonal() - 1).max() < 0.55
    assert np.abs(found.within.diagonal() / WITHIN.diagonal() - 1).max() < 0.1


def test_the_uncertainty_of_the_mean_is_that_of_its_scatter():
    off = []
    for seed in range(8):
        _, infos = draw(8, 30, seed=seed)
        found = learn_levels(infos, [""] * 8, np.zeros(2), np.eye(2))
        off.append((found.mean[0] - MEAN) / np.sqrt(found.mean_covariance[0].diagonal()))
    # with a scatter learned from 8 subjects this is Student-t of 7 degrees, variance 1.4; 16 numbers, sd 0.7
    assert 0.3 < np.mean(np.square(off)) < 4


def test_sites_are_told_apart_and_do_not_widen_the_scatter_between_subjects():
    _, one = draw(20, 50, seed=1)
    _, other = draw(20, 50, seed=2, mean=np.add(MEAN, (0.8, 0.0)))
    sites = ["a"] * 20 + ["b"] * 20
    apart = learn_levels([*one, *other], sites, np.zeros(2), np.eye(2))
    # the difference has a standard error of 0.066
    assert apart.mean[1, 0] - apart.mean[0, 0] == pytest.approx(0.8, abs=0.22)
    together = learn_levels([*one, *other], [""] * 40, np.zeros(2), np.eye(2))
    assert together.between[0, 0] > 0.12
    assert apart.between[0, 0] < 0.08


def test_a_subject_is_where_its_voxels_put_it_as_far_as_they_know():
    levels = Levels(("",), MEAN[None], np.zeros((1, 2, 2)), BETWEEN, WITHIN)
    means, infos = draw(200, 40, seed=3)
    found = [subject_mean(info, levels) for info in infos]
    off = np.array([one.mean - own for one, own in zip(found, means, strict=True)])
    inside = np.einsum("ni,nij,nj->n", off, np.linalg.inv([one.covariance for one in found]), off)
    assert inside.mean() == pytest.approx(2, abs=0.6)  # chi-squared of 2; 200 numbers, sd 0.14
    # where nothing is known the site's mean stays, moved by what the other latent states
    _, (blind,) = draw(1, 40, seed=4, known=1)
    one = subject_mean(blind, levels)
    slope = BETWEEN[0, 1] / BETWEEN[0, 0]
    assert one.mean[1] - MEAN[1] == pytest.approx(slope * (one.mean[0] - MEAN[0]), abs=0.02)
    assert one.covariance[1, 1] > 0.9 * (BETWEEN[1, 1] - slope * BETWEEN[0, 1])


def test_two_subjects_are_too_few():
    _, infos = draw(2, 40, seed=5)
    with pytest.raises(InputError, match="3 subjects or more, there are 2"):
        learn_levels(infos, ["", ""], np.zeros(2), np.eye(2))
