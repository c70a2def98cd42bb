"""The Rice distribution in float32 against scipy and mpmath in more digits."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from pyroqmri.distributions import Rician, bessel_ratio_minus_one, i0e, log_i0e, rice_fisher, rice_moments

SNRS = (0.0, 1e-3, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)


def cases(snr: float, sigma: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values around the bulk of Rice(snr * sigma, sigma), from deep in the left tail to deep in the right one."""
    offset = torch.linspace(-4, 6, 41)
    x = ((snr + offset).clamp_min(1e-4) if snr > 5 else torch.linspace(1e-4, snr + 6, 41)) * sigma
    return x, torch.full_like(x, snr * sigma), torch.full_like(x, sigma)


def exact_gradients(x, nu, sigma):
    """Derivatives of the log-density in x, nu and sigma, in float64; the small difference 1 - I1/I0 by mpmath."""
    x, nu, sigma = (t.double().numpy() for t in (x, nu, sigma))
    z = x * nu / sigma**2
    with mpmath.workdps(30):
        deficit = np.array([float(mpmath.besseli(1, v) / mpmath.besseli(0, v) - 1) for v in z])
    in_x = 1 / x - (x - nu) / sigma**2 + nu * deficit / sigma**2
    in_nu = (x - nu) / sigma**2 + x * deficit / sigma**2
    in_sigma = -2 / sigma + (x - nu) ** 2 / sigma**3 - 2 * z * deficit / sigma
    return in_x, in_nu, in_sigma


@pytest.mark.parametrize("sigma", [1.0, 0.037, 11.2])
@pytest.mark.parametrize("snr", SNRS)
def test_log_prob_is_scipys_up_to_z_of_1e8(snr, sigma):
    x, nu, s = cases(snr, sigma)
    reference = stats.rice.logpdf(x.double(), (nu.double() / s.double()), scale=s.double())
    ours = Rician(nu, s).log_prob(x)
    np.testing.assert_allclose(ours, reference, rtol=2e-6, atol=5e-6)


@pytest.mark.parametrize("sigma", [1.0, 0.037])
@pytest.mark.parametrize("snr", SNRS)
def test_gradients_are_the_analytic_ones(snr, sigma):
    x, nu, s = (t.requires_grad_() for t in cases(snr, sigma))
    ours = torch.autograd.grad(Rician(nu, s).log_prob(x).sum(), (x, nu, s))
    for ours_in, reference in zip(ours, exact_gradients(*(t.detach() for t in (x, nu, s))), strict=True):
        # a residual of a few sigma cannot have more digits than the values it is the difference of
        digits = 1e-4 + 4e-7 * (1 + snr)
        np.testing.assert_allclose(ours_in, reference, rtol=1e-4, atol=digits * 5 / sigma)


def test_gradients_agree_with_finite_differences_of_scipy():
    x, nu, s = 1.3, 0.8, 0.4
    step = 1e-6

    def density(x, nu, s):
        return stats.rice.logpdf(x, nu / s, scale=s)

    reference = [
        (density(x + step, nu, s) - density(x - step, nu, s)) / (2 * step),
        (density(x, nu + step, s) - density(x, nu - step, s)) / (2 * step),
        (density(x, nu, s + step) - density(x, nu, s - step)) / (2 * step),
    ]
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, nu, s)]
    ours = torch.autograd.grad(Rician(tensors[1], tensors[2]).log_prob(tensors[0]), tensors)
    np.testing.assert_allclose([float(g) for g in ours], reference, rtol=1e-4)


def test_no_signal_has_a_flat_slope_and_no_measurement_no_density():
    nu = torch.zeros(3, requires_grad=True)
    x = torch.tensor([0.3, 1.0, 4.0])
    gradient = torch.autograd.grad(Rician(nu, torch.ones(3)).log_prob(x).sum(), nu)[0]
    torch.testing.assert_close(gradient, torch.zeros(3), atol=1e-6, rtol=0)
    nothing = torch.tensor([2.0], requires_grad=True)
    log_prob = Rician(nothing, torch.ones(1)).log_prob(torch.zeros(1))
    assert log_prob.item() == -torch.inf
    assert torch.autograd.grad(log_prob.sum(), nothing)[0].item() == pytest.approx(-2.0)


def test_log_i0e_and_its_slope():
    z = torch.cat([torch.zeros(1), torch.logspace(-6, 8, 60)]).requires_grad_()
    np.testing.assert_allclose(
        log_i0e(z).detach(), np.log(special.i0e(z.detach().double().numpy())), rtol=1e-6, atol=3e-7
    )
    slope = torch.autograd.grad(log_i0e(z).sum(), z)[0]
    assert slope[0] == -1.0
    torch.testing.assert_close(slope, bessel_ratio_minus_one(z.detach()))


def test_bessel_ratio_keeps_its_digits():
    z = torch.cat([torch.zeros(1), torch.logspace(-4, 8, 80), torch.tensor([49.9, 50.0, 50.1])])
    with mpmath.workdps(40):
        reference = [float(mpmath.besseli(1, float(v)) / mpmath.besseli(0, float(v)) - 1) for v in z]
    np.testing.assert_allclose(bessel_ratio_minus_one(z), reference, rtol=1e-5)


def exact_moments(snr: float) -> tuple[float, float, float, float]:
    """Mean and variance of Rice(snr, 1) and their slopes in snr, from 60 digits."""
    with mpmath.workdps(60):

        def mean(a):
            h = a**2 / 4
            bessel = (1 + 2 * h) * mpmath.besseli(0, h) + 2 * h * mpmath.besseli(1, h)
            return mpmath.sqrt(mpmath.pi / 2) * mpmath.exp(-h) * bessel

        a = mpmath.mpf(snr)
        step = mpmath.mpf(10) ** -15
        slope = (mean(a + step) - mean(a - step)) / (2 * step)
        variance = 2 + a**2 - mean(a) ** 2
        return float(mean(a)), float(variance), float(slope), float(2 * a - 2 * mean(a) * slope)


def test_the_scaled_bessel_function_of_many_numbers_is_that_of_each():
    z = torch.cat([torch.linspace(0, 8, 40_001), torch.logspace(1, 8, 40_001), torch.tensor([0.0, 4.0, torch.inf])])
    found, exact = i0e(z.view(1, -1)).double(), torch.special.i0e(z.double())
    assert found.shape == (1, len(z))
    torch.testing.assert_close(found[0], exact, rtol=4e-7, atol=0)
    torch.testing.assert_close(i0e(z[:500]).double(), exact[:500], rtol=4e-7, atol=0)
    assert i0e(torch.full((40_000,), torch.nan)).isnan().all()


def test_the_scaled_bessel_function_has_its_slopes():
    z = torch.linspace(0.01, 9, 40).double().requires_grad_()
    assert torch.autograd.gradcheck(i0e, (z,))
    assert torch.autograd.gradgradcheck(i0e, (z,))


@pytest.mark.parametrize("sigma", [1.0, 0.05])
@pytest.mark.parametrize("snr", [*SNRS, 5.99, 6.01, 20.0])
def test_mean_and_variance(snr, sigma):
    nu, s = torch.tensor(snr * sigma), torch.tensor(sigma)
    mean, variance, _, _ = exact_moments(float(nu.double() / s.double()))
    rice = Rician(nu, s)
    assert float(rice.mean) == pytest.approx(mean * sigma, rel=1e-6)
    assert float(rice.variance) == pytest.approx(variance * sigma**2, rel=3e-5)


@pytest.mark.parametrize("snr", [0.1, 1.0, 5.9, 6.1, 30.0, 100.0, 1e3, 1e4])
def test_slope_of_the_mean(snr):
    nu = torch.tensor(snr, requires_grad=True)
    found = rice_moments(nu, torch.tensor(1.0))
    slope = torch.autograd.grad(found.mean, nu)[0]
    assert float(slope) == pytest.approx(exact_moments(snr)[2], rel=2e-4)
    assert float(found.slope) == pytest.approx(exact_moments(snr)[2], rel=1e-6)


@pytest.mark.parametrize("snr", [0.0, 0.1, 1.0, 5.9, 6.1, 30.0, 1e3])
def test_slope_of_the_variance(snr):
    nu = torch.tensor(snr, requires_grad=True)
    slope = torch.autograd.grad(rice_moments(nu, torch.tensor(1.0)).variance, nu)[0]
    assert float(slope) == pytest.approx(exact_moments(snr)[3], rel=5e-3, abs=1e-12)


def test_samples_follow_the_distribution():
    # four tests of 20,000 draws, each with a failure rate of 1e-4 under other seeds
    torch.manual_seed(3)
    for snr in (0.0, 0.7, 3.0, 40.0):
        rice = Rician(torch.tensor(snr * 2.0), torch.tensor(2.0))
        p = stats.kstest(rice.sample((20_000,)).numpy(), stats.rice(snr, scale=2.0).cdf).pvalue
        assert p > 1e-4, snr


def test_rsample_has_the_slope_of_the_mean():
    # 40,000 draws: standard error of the slope below .004 of it
    torch.manual_seed(0)
    nu = torch.tensor(1.0, requires_grad=True)
    draws = Rician(nu, torch.tensor(1.0)).rsample((40_000,))
    assert float(torch.autograd.grad(draws.mean(), nu)[0]) == pytest.approx(exact_moments(1.0)[2], abs=0.02)


def test_fisher_information_is_the_expected_squared_score():
    def exact(nu):
        def integrand(x):
            z = x * nu
            score = x * special.ive(1, z) / special.ive(0, z) - nu
            return stats.rice.pdf(x, nu) * score**2

        return integrate.quad(integrand, max(0, nu - 12), nu + 12, limit=400, epsabs=1e-12)[0]

    sigma = 0.3
    snr = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 9.0, 11.99, 12.01, 50.0]
    ours = rice_fisher(torch.tensor(snr) * sigma, torch.tensor(sigma)) * sigma**2
    np.testing.assert_allclose(ours, [exact(a) for a in snr], atol=3e-4)
    assert (rice_fisher(torch.linspace(0, 20, 500), torch.tensor(1.0)) <= 1).all()


def test_shapes_expand_and_support():
    rice = Rician(torch.rand(3, 1), torch.rand(4) + 0.1)
    assert rice.batch_shape == (3, 4)
    wide = rice.expand((2, 3, 4))
    assert wide.sample((5,)).shape == (5, 2, 3, 4)
    assert wide.to_event(1).log_prob(torch.rand(2, 3, 4)).shape == (2, 3)
    with pytest.raises(ValueError, match="support"):
        Rician(torch.tensor(1.0), torch.tensor(1.0), validate_args=True).log_prob(torch.tensor(-0.1))
    with pytest.raises(ValueError, match="sigma"):
        Rician(torch.tensor(1.0), torch.tensor(0.0), validate_args=True)
