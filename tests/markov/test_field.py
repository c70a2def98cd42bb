"""A linear-Gaussian field against dense algebra: posterior, messages, strengths, borders."""

import numpy as np
import pytest

from pyroqmri.errors import InputError
from pyroqmri.markov.graph import graph_of
from pyroqmri.markov.law import Law
from pyroqmri.markov.learn import Plan, learn
from pyroqmri.markov.smooth import Sites, smooth

OWN = np.array([[0.3, 0.09], [0.09, 0.2]])
SHARED = np.array([[8.0, -1.5], [-1.5, 4.0]])
LOC = np.array([1.0, -1.0])
P = 2


def plane(*shape: int) -> np.ndarray:
    return np.argwhere(np.ones(shape))


def dense(position: np.ndarray, weights: np.ndarray | None = None, shared: np.ndarray = SHARED) -> np.ndarray:
    """The field's precision ``(N P, N P)``, from distances between voxels."""
    apart = np.abs(position[:, None] - position[None]).sum(-1)
    adjacent = (apart == 1).astype(float)
    if weights is not None:
        adjacent *= weights
    return np.kron(np.eye(len(position)), OWN) + np.kron(np.diag(adjacent.sum(1)) - adjacent, shared)


def measured(precision: np.ndarray, sd: float, seed: int = 0) -> tuple[np.ndarray, Sites]:
    """A field drawn by dense algebra, and likelihoods of voxels measured with correlated errors."""
    rng, n = np.random.default_rng(seed), len(precision) // P
    z = np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(n * P)).reshape(n, P) + LOC
    information = np.array([[1 / sd**2, 0.2], [0.2, 1 / sd**2]])
    y = z + rng.standard_normal((n, P)) @ np.linalg.cholesky(np.linalg.inv(information)).T
    return z, Sites(y @ information, np.tile(information, (n, 1, 1)))


def law_of(own=OWN, shared=SHARED, loc=LOC) -> Law:
    return Law(loc, np.linalg.inv(own), own, shared, np.ones(3))


def test_neighbours_share_a_face_and_nothing_across_a_gap():
    position = np.array([[5, 5, 5], [6, 5, 5], [5, 6, 5], [5, 5, 7], [6, 6, 6], [9, 9, 9]])
    graph = graph_of(position)
    assert sorted(map(sorted, graph.pairs.tolist())) == [[0, 1], [0, 2]]
    assert graph.axis.tolist() == [0, 1]
    assert graph.degree.tolist() == [2, 1, 1, 0, 0, 0]


def test_a_row_ends_where_the_image_does():
    # the last voxel of a row and the first of the next one follow each other in memory
    assert len(graph_of(plane(3, 4, 5)).pairs) == 2 * 4 * 5 + 3 * 3 * 5 + 3 * 4 * 4


def test_duplicates_are_named():
    with pytest.raises(InputError, match=r"duplicates, such as \[1, 2, 3\]"):
        graph_of(np.array([[0, 0, 0], [1, 2, 3], [1, 2, 3]]))


def test_the_posterior_is_the_exact_one():
    # sds of 64 draws: relative error 2 % rms given the neighbours, 5 % is the promise
    position = plane(7, 8, 4)
    precision = dense(position)
    _, sites = measured(precision, 0.5)
    found = smooth(graph_of(position), law_of(), np.ones(len(graph_of(position).pairs)), sites, n_draws=64)
    n = len(position)
    total = precision.copy()
    for i in range(n):
        total[P * i : P * i + P, P * i : P * i + P] += sites.information[i]
    covariance = np.linalg.inv(total)
    mean = (covariance @ (sites.shift - sites.information @ LOC).ravel()).reshape(n, P) + LOC
    sd = np.sqrt(np.diag(covariance)).reshape(n, P)
    assert np.abs(found.mean - mean).max() < 1e-4 * sd.mean()
    ratio = np.sqrt(found.covariance[:, range(P), range(P)]) / sd
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.05
    assert abs(ratio.mean() - 1) < 0.01


def test_a_message_is_the_posterior_without_the_voxel():
    position = plane(8, 8, 1)
    precision = dense(position)
    _, sites = measured(precision, 0.5)
    graph = graph_of(position)
    found = smooth(graph, law_of(), np.ones(len(graph.pairs)), sites, n_draws=512)
    for i in (0, 27):
        total, right = precision.copy(), (sites.shift - sites.information @ LOC).copy()
        for j in range(len(position)):
            total[P * j : P * j + P, P * j : P * j + P] += sites.information[j] * (j != i)
        right[i] = 0
        covariance = np.linalg.inv(total)
        own = covariance[P * i : P * i + P, P * i : P * i + P]
        mean = (covariance @ right.ravel()).reshape(-1, P)[i] + LOC
        np.testing.assert_allclose(np.linalg.inv(found.messages.precision[i]), own, atol=0.15 * np.sqrt(own.max() ** 2))
        assert np.abs(found.messages.loc[i] - mean).max() < 0.1 * np.sqrt(own.max())


def test_an_island_of_one_voxel_has_the_population_alone():
    position = np.concatenate([plane(4, 4, 1), [[9, 9, 0]]])
    _, sites = measured(dense(position), 0.5)
    law = law_of()
    found = smooth(graph_of(position), law, np.ones(24), sites, n_draws=8)
    np.testing.assert_allclose(found.messages.precision[-1], np.linalg.inv(law.population), rtol=1e-6)
    np.testing.assert_allclose(found.messages.loc[-1], LOC, atol=1e-6)


def test_strengths_are_learned():
    # 1,024 voxels: one log strength has a standard error near 0.07
    position = plane(32, 32, 1)
    _, sites = measured(dense(position), 0.3, seed=3)
    mean = np.linalg.solve(sites.information, sites.shift[..., None])[..., 0]
    rough = np.linalg.inv(np.cov(mean.T))
    law, _, _ = learn(
        graph_of(position), law_of(rough, rough, mean.mean(0)), lambda *_: sites, Plan(6, 16, borders=False)
    )
    np.testing.assert_allclose(np.diag(law.shared), np.diag(SHARED), rtol=0.2)
    assert law.shared[0, 1] < 0


def test_without_structure_the_strength_vanishes():
    rng = np.random.default_rng(0)
    position = plane(24, 24, 1)
    information = np.tile(np.eye(P) * 4, (len(position), 1, 1))
    y = rng.standard_normal((len(position), P)) + rng.standard_normal((len(position), P)) / 2
    rough = np.linalg.inv(np.cov(y.T))
    law, _, found = learn(
        graph_of(position), law_of(rough, rough, y.mean(0)), lambda *_: Sites(4 * y, information), Plan(6, 16)
    )
    assert np.trace(law.shared) < 0.1 * np.trace(rough)
    assert np.abs(found.mean - 0.8 * y - 0.2 * y.mean(0)).max() < 0.35


def test_a_border_is_found_and_kept():
    position = plane(24, 24, 1)
    rng = np.random.default_rng(0)
    z = np.where(position[:, :1] < 12, [0.0, 0.0], [2.0, -1.0]) + 0.05 * rng.standard_normal((len(position), P))
    information = np.tile(np.eye(P) / 0.3**2, (len(position), 1, 1))
    y = z + 0.3 * rng.standard_normal(z.shape)
    sites = Sites(y / 0.3**2, information)
    rough = np.linalg.inv(np.cov(y.T))
    graph = graph_of(position)
    _, weights, found = learn(graph, law_of(rough, rough, y.mean(0)), lambda *_: sites, Plan(8, 16))
    x = position[graph.pairs, 0]
    border = (x.min(1) == 11) & (x.max(1) == 12)
    assert weights[border].max() < 0.05 * np.median(weights[~border])
    error = np.sqrt(np.mean((found.mean - z) ** 2))
    assert error < 0.5 * np.sqrt(np.mean((y - z) ** 2))
    beside = np.isin(position[:, 0], (11, 12))
    assert np.sqrt(np.mean((found.mean - z)[beside] ** 2)) < 1.5 * error
