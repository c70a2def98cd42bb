"""Voxels unlike the population that they are drawn towards, against closed forms and a lesion made in numpy."""

import numpy as np
import torch
from scipy.stats import chi2, kstest

import pyroqmri as pq
from pyroqmri.measurements.status import FINE, UNLIKE
from pyroqmri.posterior.unlike import unlike_population
from pyroqmri.priors import Population

SHORT = {"training.steps": 12, "training.check_every": 4}


def exact_posteriors(n: int, seed: int) -> tuple[torch.Tensor, Population, np.ndarray]:
    """Draws of exact posteriors of a linear signal, their population, and d2 as the marginal of the data has it."""
    rng = np.random.default_rng(seed)
    design = np.array([[1.0, 0.3, 0.0], [0.2, 1.0, 0.0], [0.5, -0.4, 0.0], [0.1, 0.2, 0.0]])  # the third is not seen
    noise, m = 0.6, np.array([0.4, -1.0, 2.0])
    sigma = np.array([[1.0, 0.3, 0.2], [0.3, 0.6, 0.0], [0.2, 0.0, 1.5]])
    y = rng.multivariate_normal(m, sigma, n) @ design.T + noise * rng.normal(size=(n, 4))
    precision = np.linalg.inv(sigma) + design.T @ design / noise**2
    covariance = np.linalg.inv(precision)
    mean = m + (y - m @ design.T) @ design @ covariance / noise**2
    # an odd number of points with exactly these moments, so that no Monte Carlo error is left
    root = np.linalg.cholesky(covariance) * np.sqrt(3)
    z = np.concatenate([mean[None] + s * root.T[:, None] for s in (-1, 1)])
    population = Population(torch.zeros(1), torch.as_tensor(m)[None], torch.as_tensor(np.linalg.cholesky(sigma))[None])
    # of the two coordinates that the data see, with the error of their least-squares estimate
    seen = design[:, :2]
    spread = np.linalg.inv(seen.T @ seen)
    estimate = y @ seen @ spread
    apart = estimate - m[:2]
    d2 = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(sigma[:2, :2] + noise**2 * spread), apart)
    return torch.as_tensor(z), population, d2


def test_of_a_linear_signal_it_is_the_distance_of_the_estimate_in_its_own_distribution():
    z, population, d2 = exact_posteriors(2000, 0)
    p = unlike_population(z, population).numpy()
    np.testing.assert_allclose(p, chi2.sf(d2, 2), atol=1e-9)
    assert kstest(p, "uniform").pvalue > 0.01


def test_a_voxel_that_shows_nothing_is_like_any_population():
    _, population, _ = exact_posteriors(1, 1)
    tril = population.scale_tril[0]
    nothing = population.loc[0] + torch.cat([s * 3**0.5 * tril.T[:, None] for s in (-1, 1)]).expand(6, 10, 3)
    assert bool((unlike_population(nothing, population) == 1).all())


def test_a_lesion_is_marked_and_the_other_voxels_are_not():
    rng, n = np.random.default_rng(3), 300
    b, there = np.repeat([0.0, 1.0, 2.0, 3.0], 5), np.arange(n) < 10
    D, K = np.where(there, 1.5, rng.normal(0.85, 0.1, n)), np.where(there, 0.5, rng.normal(0.9, 0.1, n))
    s = np.exp(-b * D[:, None] + (b * D[:, None]) ** 2 * K[:, None] / 6)
    s[-5:] *= 1.5  # a brighter voxel is no other tissue
    y = np.abs(s + (rng.normal(size=s.shape) + 1j * rng.normal(size=s.shape)) / 15)
    fit = pq.fit(y, pq.Acquisition(bval=b), signal="msdki", recipe="hierarchical", sigma=1 / 15, s0="inferred",
                 settings=SHORT, causes=False)  # fmt: skip
    status = fit.posterior(y).status
    assert int((status[there] == UNLIKE).sum()) >= 7
    assert int((status[~there] == UNLIKE).sum()) <= 4  # 0.5 are expected
    assert int((status[-5:] == FINE).sum()) >= 4


def test_recipes_without_one_learned_gaussian_have_none():
    y = np.abs(np.random.default_rng(0).normal(1, 0.02, (60, 4)) * np.exp(-np.array([0.0, 1.0, 2.0, 3.0]) * 0.5))
    acq = pq.Acquisition(bval=[0.0, 1.0, 2.0, 3.0])
    for recipe in ("hierarchical_mixture", "least_squares"):
        settings = SHORT if recipe == "hierarchical_mixture" else {}
        fit = pq.fit(y, acq, signal="adc", recipe=recipe, sigma=0.02, settings=settings, causes=False)
        assert fit.posterior(y).goodness_of_fit.unlike is None
