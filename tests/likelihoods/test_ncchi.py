"""The likelihood of a sum of squares over coils, beyond the contract; truth from numpy and scipy."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats

import pyroqmri as pq
from pyroqmri.distributions import log_g, log_g_and_slope, ncchi_fisher, ncchi_moments, rice_fisher, rice_moments
from pyroqmri.errors import InputError
from pyroqmri.likelihoods import NCChiLikelihood, RicianLikelihood
from pyroqmri.simulate import add_noise

SIGMA = torch.tensor([[0.1]], dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)
COILS = pytest.mark.parametrize("coils", [1.0, 1.7, 4.0, 16.0, 32.0, 64.0])


@COILS
def test_the_bessel_functions_are_scipys_from_no_signal_to_any_signal(coils):
    z = np.r_[1e-3, np.logspace(-1, 5, 200)]
    value, slope = (t.numpy() for t in log_g_and_slope(torch.from_numpy(z), coils))
    below = special.ive(coils - 1, z)
    seen = below > 1e-280
    exact = special.gammaln(coils) + (coils - 1) * np.log(2 / z[seen]) + np.log(below[seen])
    np.testing.assert_allclose(value[seen], exact, atol=2e-8, rtol=1e-9)
    np.testing.assert_allclose(slope[seen], special.ive(coils, z[seen]) / below[seen] - 1, atol=2e-9)
    assert float(log_g(torch.zeros(1, dtype=torch.float64), coils)) == pytest.approx(0, abs=1e-8)
    single = log_g_and_slope(torch.from_numpy(z).float(), coils)
    np.testing.assert_allclose(single[0], value, atol=1e-6 * (10 + 3 * coils), rtol=3e-6)
    np.testing.assert_allclose(single[1], slope, atol=1e-6)


@COILS
def test_the_density_is_that_of_the_root_of_a_non_central_chi_squared(coils):
    nu, x = 0.37, np.linspace(0.02, 3.0, 40)
    found = NCChiLikelihood(coils=coils).information(torch.full((1, 40), nu).double(), torch.from_numpy(x)[None], SIGMA)
    exact = stats.ncx2.logpdf((x / 0.1) ** 2, 2 * coils, (nu / 0.1) ** 2) + np.log(2 * x / 0.1**2)
    seen = np.isfinite(exact) & (exact > -500)
    np.testing.assert_allclose(found.log_prob[0].numpy()[seen], exact[seen], rtol=1e-6, atol=1e-6)


@COILS
def test_moments_are_those_of_the_chi_distribution(coils):
    a = np.array([0.0, 0.2, 1.0, 3.1, 9.0, 25.0])
    found = ncchi_moments(torch.from_numpy(a), ONE, coils)
    factor = np.sqrt(np.pi / 2) * np.exp(special.gammaln(coils + 0.5) - special.gammaln(1.5) - special.gammaln(coils))
    mean = factor * np.array([float(mpmath.hyp1f1(-0.5, coils, -(x**2) / 2)) for x in a])  # scipy's overflows
    np.testing.assert_allclose(found.mean, mean, rtol=1e-8)
    np.testing.assert_allclose(found.variance, 2 * coils + a**2 - mean**2, rtol=1e-6)
    step = 1e-4
    above, below = (ncchi_moments(torch.from_numpy(a[1:] + s), ONE, coils) for s in (step, -step))
    np.testing.assert_allclose(found.slope[1:], (above.mean - below.mean) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(found.variance_slope[1:], (above.variance - below.variance) / (2 * step), atol=1e-6)
    far = ncchi_moments(torch.tensor([1e3, 1e6]).double(), ONE, coils)
    np.testing.assert_allclose(far.variance, 1.0, rtol=2e-4)
    np.testing.assert_allclose(far.slope, 1.0, rtol=2e-4)


def test_one_coil_is_rician_to_the_last_digit():
    torch.manual_seed(0)
    signal, y, sigma = torch.rand(5, 7), torch.rand(5, 7), torch.full((5, 1), 0.1)
    for counts in (None, torch.full((7,), 4.0)):
        one, rician = NCChiLikelihood(counts, coils=1), RicianLikelihood(counts)
        for ours, known in zip(one.information(signal, y, sigma), rician.information(signal, y, sigma), strict=True):
            assert torch.equal(ours, known)
        assert torch.equal(one(signal, sigma).log_prob(y), rician(signal, sigma).log_prob(y))
        assert all(
            torch.equal(a, b) for a, b in zip(one.moments(signal, sigma), rician.moments(signal, sigma), strict=True)
        )
        assert torch.equal(one.constant(y), rician.constant(y))


def test_the_general_functions_come_to_those_of_rice_at_one_coil():
    a = torch.linspace(0, 30, 400, dtype=torch.float64)
    for ours, known in zip(ncchi_moments(a, ONE, 1.0)[:3], rice_moments(a, ONE), strict=True):
        torch.testing.assert_close(ours, known, rtol=0, atol=2e-6)
    torch.testing.assert_close(ncchi_fisher(a, ONE, 1.0), rice_fisher(a, ONE), rtol=0, atol=2e-5)


def test_samples_are_roots_of_sums_of_squares_over_coils():
    # 200,000 draws of four coils with signals of their own, made by numpy
    rng = np.random.default_rng(0)
    parts = np.array([0.1, 0.2, 0.05, 0.3])
    nu = float(np.sqrt((parts**2).sum()))
    channels = parts + 0.1 * (rng.standard_normal((200_000, 4)) + 1j * rng.standard_normal((200_000, 4)))
    reference = np.sqrt((np.abs(channels) ** 2).sum(1))
    torch.manual_seed(0)
    ours = NCChiLikelihood(coils=4)(torch.tensor([[nu]]), SIGMA.float()).sample((200_000,)).flatten().numpy()
    assert stats.ks_2samp(ours, reference).statistic < 0.006
    mean, variance = NCChiLikelihood(coils=4).moments(torch.tensor([[nu]]), SIGMA.float())
    assert float(mean) == pytest.approx(reference.mean(), rel=2e-3)
    assert float(variance) == pytest.approx(reference.var(), rel=2e-2)


@pytest.mark.parametrize("coils", [0, 0.5, -3, True, "4", float("nan"), 1e9])
def test_what_is_no_number_of_coils_is_refused(coils):
    with pytest.raises(InputError, match=r"likelihood\.coils must be a number from 1 to 256"):
        NCChiLikelihood(coils=coils)


@pytest.mark.parametrize("coils", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("averages", [1, 3])
def test_what_is_simulated_is_what_the_likelihood_describes(coils, averages):
    # 100,000 draws: standard errors of .3 % of the sd and of .5 % of the variance
    clean = torch.tensor([[0.03, 0.2, 0.9]]).expand(100_000, 3)
    y = add_noise(clean, 0.1, "ncchi", torch.Generator().manual_seed(3), coils, averages)
    mean, variance = NCChiLikelihood(torch.full((3,), float(averages)), coils=coils).moments(clean[:1], SIGMA.float())
    assert ((y.mean(0) - mean[0]).abs() < 0.016 * variance[0].sqrt()).all()
    torch.testing.assert_close(y.var(0), variance[0], rtol=0.025, atol=0)


def test_averages_may_differ_by_measurement():
    clean = torch.full((50_000, 3), 5.0)
    y = add_noise(clean, 1.0, "rician", torch.Generator().manual_seed(0), averages=torch.tensor([1, 4, 16]))
    np.testing.assert_allclose(y.std(0).numpy() * np.array([1, 2, 4]), float(y.std(0)[0]), rtol=0.03)


def test_a_fit_to_sums_of_squares_over_four_coils_is_right_where_a_rician_one_is_not():
    b = torch.cat([torch.zeros(6), torch.full((10,), 1.0), torch.full((10,), 2.0), torch.full((10,), 3.0)])
    generator = torch.Generator().manual_seed(0)
    D, K = 0.9 + 0.1 * torch.randn(400, generator=generator), 0.8 + 0.1 * torch.randn(400, generator=generator)
    clean = 500 * torch.exp(-b * D[:, None] + (b * D[:, None]).square() * K[:, None] / 6)
    y = add_noise(clean, 40.0, "ncchi", generator, coils=4)
    said = {"signal": "msdki", "recipe": "maximum_likelihood", "sigma": 40.0}
    four = pq.fit(y, pq.Acquisition(bval=b), likelihood="ncchi", settings={"likelihood.coils": 4}, **said)
    one = pq.fit(y, pq.Acquisition(bval=b), **said)
    assert four.preparation.coils == 4
    assert abs(float((four.posterior(y).mean["D"] - D).median())) < 0.015
    assert abs(float((one.posterior(y).mean["D"] - D).median())) > 0.04


def test_noise_of_four_coils_alone_has_no_signal():
    b = torch.cat([torch.zeros(6), torch.full((30,), 1.0), torch.full((30,), 2.0)])
    generator = torch.Generator().manual_seed(1)
    noise = add_noise(torch.zeros(400, len(b)), 10.0, "ncchi", generator, coils=4)
    tissue = add_noise(80 * torch.exp(-b * 0.9).expand(400, -1), 10.0, "ncchi", generator, coils=4)
    four = {"likelihood": "ncchi", "settings": {"likelihood.coils": 4}, "sigma": 10.0}
    y = torch.cat([noise, tissue])
    status = pq.fit(y, pq.Acquisition(bval=b), signal="msdki", recipe="least_squares", **four).posterior(y).status
    assert float((status[:400] == 1).float().mean()) < 0.05
    assert float((status[400:] == 3).float().mean()) < 0.01
