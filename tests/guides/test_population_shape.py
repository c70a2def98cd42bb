"""Two classes against one, where a linear signal has both evidences in closed form."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import pyroqmri as pq
from pyroqmri.guides import Structured
from pyroqmri.guides.population_shape import TwoClasses, two_classes
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Hierarchical
from tests.helpers import DESIGN, SIGMA, quadratic_data, quadratic_model

LOC, APART, SD = torch.tensor([1.0, 0.5, -0.5]), torch.tensor([0.0, 0.9, 0.6]), 0.25


def scan(apart: float, n: int = 600) -> torch.Tensor:
    """Measurements of two classes whose means are ``apart`` from each other, two voxels in three of the first."""
    sd = SD * torch.eye(3)
    first = quadratic_data(2 * n // 3, 0, LOC, sd)
    return torch.cat([first, quadratic_data(n - len(first), 1, LOC + apart * APART, sd)])


def found(y: torch.Tensor, loc: torch.Tensor, covariance: torch.Tensor) -> TwoClasses:
    """What the package finds for voxels whose population has been learned as that normal one."""
    prior = Hierarchical(3)
    prior.update(torch.ones(1), loc[None], covariance[None])
    model = quadratic_model(prior)
    guide = Structured(model, 8)
    torch.manual_seed(0)
    return two_classes(model, guide, guide.prepare(Voxels(y, torch.full((len(y), 1), SIGMA))))


def log_density(y: np.ndarray, loc: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log density ``(N,)`` of measurements whose coefficients are integrated out."""
    design = DESIGN.double().numpy()
    marginal = design @ covariance @ design.T + SIGMA**2 * np.eye(len(design))
    return multivariate_normal(design @ loc, marginal).logpdf(y)


def test_two_classes_gain_what_the_closed_form_says():
    y, between = scan(1.0), 2 / 9 * torch.outer(APART, APART)
    loc, covariance = LOC + APART / 3, SD**2 * torch.eye(3) + between
    data, one, two = y.double().numpy(), LOC.double().numpy(), (LOC + APART).double().numpy()
    each = [log_density(data, m, SD**2 * np.eye(3)) + np.log(w) for m, w in ((one, 2 / 3), (two, 1 / 3))]
    exact = logsumexp(each, axis=0).mean() - log_density(data, loc.double().numpy(), covariance.double().numpy()).mean()
    assert exact > 0.1
    # nine more parameters follow the noise of 600 voxels by 0.01 or so; draws leave as much
    assert found(y, loc, covariance).gain == pytest.approx(exact, abs=0.04)


def test_one_class_gains_nothing():
    gain, moved = found(scan(0.0), LOC, SD**2 * torch.eye(3))
    assert gain == 0
    assert not moved.any()


@pytest.mark.parametrize(("fluid", "warned"), [(0.15, True), (0.0, False)])
def test_fluid_that_is_drawn_to_tissue_is_warned_of(fluid, warned):
    # one Gaussian over both covers fluid's T1 in a sixth of its voxels, each of which has status fine
    rng, ti = np.random.default_rng(0), np.geomspace(50, 6000, 10)
    t1 = np.where(rng.random(500) < fluid, rng.normal(4000, 200, 500), rng.normal(1000, 80, 500))
    clean = 1000 * (1 - 2 * np.exp(-ti / t1[:, None]))
    y = np.abs(clean + rng.normal(scale=50, size=clean.shape) + 1j * rng.normal(scale=50, size=clean.shape))
    fit = pq.fit(
        y, pq.Acquisition(ti=ti), signal="t1_inversion_ab", recipe="hierarchical", sigma=50.0, causes=False,
        settings={"training.steps": 40},
    )  # fmt: skip
    assert any("not a single Gaussian" in text and "fluid" in text for text in fit.warnings) == warned
