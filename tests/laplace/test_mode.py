"""Modes and curvatures against closed forms and scipy."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from pyroqmri.laplace.mode import expand, find_mode, inverse_tril, jacobian, safe_cholesky
from pyroqmri.laplace.start import find_start, mode_under_prior
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import frame_around
from pyroqmri.signals import IVIM, MSDKI, BallStick, BoundSignal
from tests.helpers import (
    DESIGN,
    SIGMA,
    msdki_data,
    quadratic_data,
    quadratic_posterior,
    quadratic_signal,
    rician,
    shells,
    tissue,
)


def linear_gaussian(y: torch.Tensor):
    """Log-likelihood of quadratic coefficients, as :func:`find_mode` wants it."""
    signal, voxels = quadratic_signal(), Voxels(y, torch.full((len(y), 1), SIGMA))
    return lambda z: expand(lambda u: signal(signal.constrain(u)), GaussianLikelihood(), voxels, z)


def positive(n: int, seed: int = 0) -> torch.Tensor:
    root = torch.randn(20, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.mT + 0.1 * torch.eye(n, dtype=torch.float64)


def test_inverse_tril_is_the_factor_of_the_inverse():
    precision = positive(4)
    tril = inverse_tril(precision)
    assert torch.equal(tril, tril.tril())
    assert (tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(tril @ tril.mT, torch.linalg.inv(precision))


def test_safe_cholesky_is_cholesky_where_there_is_one():
    matrix = positive(3)
    torch.testing.assert_close(safe_cholesky(matrix), torch.linalg.cholesky(matrix))
    broken = torch.stack([matrix[0], torch.ones(3, 3).double(), -torch.eye(3).double()])
    factor = safe_cholesky(broken)
    torch.testing.assert_close(factor[0], torch.linalg.cholesky(matrix[0]))
    assert torch.isfinite(factor).all()
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


@pytest.mark.parametrize("likelihood", [GaussianLikelihood, RicianLikelihood])
def test_an_expansion_is_autograds(likelihood):
    y, acq = msdki_data(20)
    signal, voxels = BoundSignal(MSDKI, acq).double(), Voxels(y, torch.full((20, 1), 0.05)).map(torch.Tensor.double)
    z = torch.randn(20, 2, dtype=torch.float64) * 0.3 - 0.5

    def simulate(u):
        return signal(signal.constrain(u))

    found = expand(simulate, likelihood(), voxels, z)
    z.requires_grad_()
    value = likelihood()(simulate(z), voxels.sigma).log_prob(voxels.y)
    torch.testing.assert_close(found.value, value.detach())
    torch.testing.assert_close(found.gradient, torch.autograd.grad(value.sum(), z)[0], rtol=1e-6, atol=1e-6)
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda u: simulate(u)))(z.detach())
    fisher = likelihood().information(simulate(z.detach()), voxels.y, voxels.sigma).fisher
    torch.testing.assert_close(found.information, jacobian.mT @ (fisher.unsqueeze(-1) * jacobian))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (BallStick, {}),
        (BallStick, {"fixed": {"D_par": 1.7}}),
        (BallStick, {"tied": {"D_iso": "D_par"}, "infer_s0": True}),
        (IVIM, {"infer_s0": True}),
    ],
)
def test_slopes_by_formula_are_autograds(model, changes):
    signal = BoundSignal(model, shells(3, 12, 0.7, 2.0), **changes).double()
    z = 0.7 * torch.randn(15, signal.n_latents, generator=torch.Generator().manual_seed(0)).double()
    frame = None
    if signal.direction is not None:
        frame = frame_around(torch.randn(15, 3, generator=torch.Generator().manual_seed(1)).double())
        z[:3, -2:] = 0
    found = signal.unconstrained_slopes(z, frame)
    assert found is not None
    expected = jacobian(lambda u: signal(signal.constrain(u, frame)), z)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_signal_without_a_formula_has_no_slopes_of_its_own():
    acq = msdki_data(3)[1]
    assert BoundSignal(MSDKI, acq).unconstrained_slopes(torch.zeros(3, 2)) is None


def test_weights_count_measurements():
    y = quadratic_data(5)
    signal, sigma = quadratic_signal(), torch.full((5, 1), SIGMA)
    z = torch.randn(5, 3)

    def at(voxels):
        return expand(lambda u: signal(signal.constrain(u)), GaussianLikelihood(), voxels, z)

    once, thrice = at(Voxels(y, sigma)), at(Voxels(y, sigma, weights=torch.full_like(y, 3.0)))
    for name in ("value", "gradient", "information"):
        torch.testing.assert_close(getattr(thrice, name), 3 * getattr(once, name))


def test_a_linear_gaussian_mode_is_exact():
    y = quadratic_data(200)
    mode = find_mode(linear_gaussian(y), torch.zeros(200, 3), torch.zeros(3), torch.eye(3), n_steps=12)
    loc, covariance = quadratic_posterior(y)
    torch.testing.assert_close(mode.z, loc, atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.linalg.inv(mode.precision), covariance.expand(200, 3, 3), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(mode.scale_tril @ mode.scale_tril.mT, covariance.expand(200, 3, 3), rtol=1e-3, atol=1e-5)
    assert mode.converged.all()


def test_a_prior_that_is_not_standard_and_one_a_class():
    # two classes at once: a leading axis on the prior, as mixtures use it
    y = quadratic_data(50)
    loc, covariance = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 0.0]]), torch.diag(torch.tensor([0.5, 1.0, 2.0]))
    precision = torch.linalg.inv(covariance).expand(2, 1, 3, 3)
    mode = find_mode(linear_gaussian(y), torch.zeros(2, 50, 3), loc.unsqueeze(1), precision, n_steps=12)
    for k in range(2):
        torch.testing.assert_close(mode.z[k], quadratic_posterior(y, loc[k], covariance)[0], atol=3e-3, rtol=0)


def test_the_objective_is_that_of_the_mode():
    y = quadratic_data(20)
    mode = find_mode(linear_gaussian(y), torch.zeros(20, 3), torch.zeros(3), torch.eye(3), n_steps=12)
    normal = torch.distributions.Normal(mode.z @ DESIGN.mT, SIGMA)
    exact = normal.log_prob(y).sum(-1) - mode.z.square().sum(-1) / 2
    torch.testing.assert_close(mode.objective, exact, rtol=1e-5, atol=1e-4)


def test_a_step_is_kept_only_if_it_gains_and_flags_are_honest():
    y = quadratic_data(30)
    evaluate = linear_gaussian(y)
    far = torch.full((30, 3), 6.0)
    values = [find_mode(evaluate, far, torch.zeros(3), torch.eye(3), n_steps=n) for n in range(5)]
    gains = torch.stack([v.objective for v in values]).diff(dim=0)
    assert (gains >= 0).all()
    # each step is cut to a length of 1, so nobody is there yet
    assert not values[2].converged.any()


def scipys_mode(y: np.ndarray, bval: np.ndarray, sigma: float) -> tuple[np.ndarray, float]:
    """Best of two BFGS searches of the posterior of (D, K) under standard normal coordinates."""

    def loss(u):
        D = 4 * stats.norm.cdf(u[0])
        K = -1 + (min(3, 2 / D) + 1) * stats.norm.cdf(u[1])
        exponent = -bval * D + (bval * D) ** 2 * K / 6
        signal = np.where(exponent < 3, np.exp(np.minimum(exponent, 3)), np.exp(3) * (exponent - 2))
        log_prob = stats.rice.logpdf(y, signal / sigma, scale=sigma).sum()
        return -max(log_prob, -1e9) + u @ u / 2

    starts = [(-0.6, 0.0), (0.5, -0.7)]
    best = min((optimize.minimize(loss, s, method="BFGS", options={"gtol": 1e-6}) for s in starts), key=lambda r: r.fun)
    return best.x, best.fun


@pytest.mark.slow
def test_rician_msdki_modes_are_scipys():
    n, sigma = 50, 0.05
    y, acq = msdki_data(n, sigma)
    keep = torch.nonzero(acq.bval > 0).squeeze(-1)
    y, signal = y[:, keep], BoundSignal(MSDKI, acq[keep])
    voxels = Voxels(y, torch.full((n, 1), sigma))
    mode, frame = mode_under_prior(voxels, signal, RicianLikelihood(), torch.eye(2), n_steps=30)
    assert frame is None
    bval = signal.acquisition.bval.double().numpy()
    exact = [scipys_mode(one, bval, sigma) for one in y.double().numpy()]
    z, loss = np.array([e[0] for e in exact]), np.array([e[1] for e in exact])
    np.testing.assert_allclose(-mode.objective.numpy(), loss, atol=5e-3)
    sd = mode.scale_tril.square().sum(-1).sqrt()
    assert (np.abs(mode.z.numpy() - z) < 0.02 * sd.numpy()).all()
    assert mode.converged.all()


def test_find_start_is_the_mode_in_its_own_coordinates():
    y, acq = msdki_data(40)
    voxels = Voxels(y, torch.full((40, 1), 0.05))
    signal = BoundSignal(MSDKI, acq)
    start = find_start(voxels, signal, RicianLikelihood())
    assert (start.mode.shape, start.scale_tril.shape, start.frame) == ((40, 2), (40, 2, 2), None)
    D = signal.constrain(start.mode)["D"]
    assert (D - tissue(40)["D"]).abs().median() < 0.1


def sticks(n: int, sigma: float):
    acq = shells(2, 30, 1.0, 2.0)
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(3)), dim=-1)
    full = torch.ones(n)
    signal = BoundSignal(BallStick, acq)
    y = rician(signal({"f": 0.6 * full, "D_par": 1.9 * full, "D_iso": 0.9 * full, "n": axes}), sigma)
    return Voxels(y, torch.full((n, 1), sigma)), signal, axes


def test_a_directions_frame_is_turned_to_the_mode():
    voxels, signal, axes = sticks(50, 0.02)
    start = find_start(voxels, signal, RicianLikelihood())
    assert start.frame.shape == (50, 3, 3)
    torch.testing.assert_close(start.mode[:, 3:], torch.zeros(50, 2))
    cosine = (start.frame[:, 0] * axes).sum(-1).abs()
    assert torch.rad2deg(torch.acos(cosine.clamp(max=1))).max() < 6
    # at the mode the coordinates of the axis have no slope left
    mode, _ = mode_under_prior(voxels, signal, RicianLikelihood(), torch.eye(5), 30)
    assert mode.z[:, 3:].abs().max() < 1e-6


def test_modes_with_a_direction_converge_too():
    voxels, signal, _ = sticks(50, 0.02)
    mode, _ = mode_under_prior(voxels, signal, RicianLikelihood(), torch.eye(5), n_steps=30)
    assert mode.converged.float().mean() > 0.9
