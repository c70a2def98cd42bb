"""Two classes against one, where a linear signal has both evidences in closed form."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

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


def posterior(y: np.ndarray, loc: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means ``(N, 3)`` of the coefficients, and their sds ``(3,)``."""
    design = DESIGN.double().numpy()
    gain = covariance @ design.T @ np.linalg.inv(design @ covariance @ design.T + SIGMA**2 * np.eye(len(design)))
    return loc + (y - design @ loc) @ gain.T, np.sqrt(np.diag(covariance - gain @ design @ covariance))


def test_two_classes_gain_what_the_closed_form_says():
    y, between = scan(1.0), 2 / 9 * torch.outer(APART, APART)
    loc, covariance = LOC + APART / 3, SD**2 * torch.eye(3) + between
    data, one, two = y.double().numpy(), LOC.double().numpy(), (LOC + APART).double().numpy()
    each = [log_density(data, m, SD**2 * np.eye(3)) + np.log(w) for m, w in ((one, 2 / 3), (two, 1 / 3))]
    exact = logsumexp(each, axis=0).mean() - log_density(data, loc.double().numpy(), covariance.double().numpy()).mean()
    assert exact > 0.1
    # nine more parameters follow the noise of 600 voxels by 0.01 or so; draws leave as much
    seen = found(y, loc, covariance)
    assert seen.gain == pytest.approx(exact, abs=0.04)
    mean, sd = posterior(data, loc.double().numpy(), covariance.double().numpy())
    share = np.exp(each - logsumexp(each, axis=0))
    apart = sum(w[:, None] * posterior(data, m, SD**2 * np.eye(3))[0] for w, m in zip(share, (one, two), strict=True))
    # by 0.18 to 0.28; sixty-four draws and the classes' own errors leave 0.08
    np.testing.assert_allclose(seen.shift, np.sqrt((((apart - mean) / sd) ** 2).mean(0)), atol=0.12)


def test_one_class_gains_nothing():
    assert found(scan(0.0), LOC, SD**2 * torch.eye(3)).gain == 0
