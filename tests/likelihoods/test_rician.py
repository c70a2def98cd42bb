"""The Rician likelihood, beyond the contract."""

import numpy as np
import pytest
import torch
from scipy import stats

from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood

SIGMA = torch.tensor([[0.1]])


def test_a_single_measurement_is_scipys():
    signal, y = torch.rand(1, 50) + 0.01, torch.rand(1, 50) + 0.01
    found = RicianLikelihood().information(signal, y, SIGMA).log_prob
    np.testing.assert_allclose(found, stats.rice.logpdf(y, signal / 0.1, scale=0.1), rtol=1e-4, atol=1e-4)


def test_a_mean_of_many_magnitudes_is_close_to_what_is_said():
    # moments of means of 30 magnitudes, 20,000 times: standard errors .7 % of the sd, 1 % of the variance
    signal = torch.tensor([[0.05, 0.15, 0.6]])
    singles = RicianLikelihood()(signal.expand(20_000, 3), SIGMA).sample((30,)).mean(0)
    mean, variance = RicianLikelihood(torch.full((3,), 30.0)).moments(signal, SIGMA)
    np.testing.assert_allclose(singles.mean(0), mean[0], atol=0.04 * float(variance.max()) ** 0.5)
    np.testing.assert_allclose(singles.var(0), variance[0], rtol=0.05)


def test_the_noise_floor_is_not_signal():
    # no signal at all has a mean of sigma sqrt(pi / 2), which least squares takes for signal
    mean, _ = RicianLikelihood().moments(torch.zeros(1, 1), SIGMA)
    assert float(mean) == pytest.approx(0.1 * (np.pi / 2) ** 0.5, rel=1e-5)
    assert float(GaussianLikelihood().moments(torch.zeros(1, 1), SIGMA)[0]) == 0


def test_at_high_snr_it_is_gaussian():
    signal, sigma = torch.full((1, 5), 1.0), torch.tensor([[0.005]])
    y = signal + sigma * torch.linspace(-2, 2, 5)
    rician, gaussian = (kind().information(signal, y, sigma) for kind in (RicianLikelihood, GaussianLikelihood))
    torch.testing.assert_close(rician.log_prob, gaussian.log_prob, atol=0.02, rtol=0)
    torch.testing.assert_close(rician.fisher, gaussian.fisher, rtol=1e-4, atol=0)


@pytest.mark.parametrize("counts", [None, torch.full((3,), 30.0)])
def test_gradients_are_finite_from_no_signal_to_any_signal(counts):
    signal = torch.tensor([[0.0, 1e-6, 1e-3], [0.1, 1.0, 20.0]], requires_grad=True)
    y = torch.tensor([[1e-6, 0.1, 0.2], [0.1, 1.0, 20.0]])
    likelihood = RicianLikelihood(counts)
    gradient = torch.autograd.grad(likelihood(signal, SIGMA).log_prob(y).sum(), signal)[0]
    assert torch.isfinite(gradient).all()
    assert all(torch.isfinite(t).all() for t in likelihood.information(signal.detach(), y, SIGMA))
