"""The Rice distribution on pieces of a cache, against scipy."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from pyroqmri.distributions.rice_pieces import (
    information_in_pieces,
    log_prob_in_pieces,
    moments_in_pieces,
    pieces_serve,
)
from pyroqmri.likelihoods import RicianLikelihood

N, M = 400, 100


@pytest.fixture(scope="module")
def scan():
    """Signals ``(2, N, M)`` of SNR 0 to 300, measurements ``(N, M)`` near the first and noise levels ``(N, 1)``."""
    rng = np.random.default_rng(0)
    sigma = 0.05 * rng.uniform(0.5, 2, (N, 1))
    snr = np.r_["0,2", np.geomspace(1e-3, 300, M), np.linspace(0, 30, M)][:, None] * rng.uniform(0.9, 1.1, (N, 1))
    y = np.hypot(snr[0] + rng.normal(size=(N, M)), rng.normal(size=(N, M))) * sigma
    return tuple(torch.from_numpy(t).float() for t in (snr * sigma, y, sigma))


def test_density_and_score_are_scipys(scan):
    signal, _, sigma = scan
    log_prob, score, _ = information_in_pieces(*scan)
    s, x, level = (t.double().numpy() for t in scan)
    np.testing.assert_allclose(log_prob[0], stats.rice.logpdf(x, s[0] / level, scale=level), atol=2e-4)
    z = x * s / level**2
    exact = x / level * special.ive(1, z) / special.ive(0, z) - s / level
    scale = 1 + np.abs(exact)  # far from the bulk rounding grows with the distance
    assert np.abs((score * sigma).numpy() - exact).max() < 1e-3
    assert (np.abs((score * sigma).numpy() - exact)[1] / scale[1]).max() < 2e-4
    assert log_prob.shape == score.shape == signal.shape


def test_density_alone_is_the_same_and_scipys_for_few_voxels_with_many_draws(scan):
    signal, y, sigma = scan
    torch.testing.assert_close(log_prob_in_pieces(*scan), information_in_pieces(*scan)[0], atol=1e-5, rtol=1e-5)
    draws = signal[0, :3] * torch.linspace(0.5, 1.5, 200)[:, None, None]  # (200, 3, M): draws share a piece
    found = log_prob_in_pieces(draws, y[:3], sigma[:3])
    s, x, level = (t.double().numpy() for t in (draws, y[:3], sigma[:3]))
    near = np.abs(x - s) < 8 * level  # rounding grows with the distance
    exact = stats.rice.logpdf(x, s / level, scale=level)
    np.testing.assert_allclose(found.numpy()[near], exact[near], atol=1e-3)
    torch.testing.assert_close(found, information_in_pieces(draws, y[:3], sigma[:3])[0], atol=1e-4, rtol=1e-4)


def test_density_of_a_signal_below_zero_is_lower(scan):
    signal, y, sigma = scan
    below = log_prob_in_pieces(-signal, y, sigma)
    assert bool(below.isfinite().all())
    assert bool((below <= log_prob_in_pieces(signal, y, sigma) + 1e-4).all())


def test_information_is_the_variance_of_the_score(scan):
    signal, _, sigma = scan
    fisher = information_in_pieces(*scan)[2] * sigma.square()
    nu = (signal / sigma).double().numpy().ravel()
    some = np.argsort(nu)[:: len(nu) // 30]
    x = np.linspace(1e-6, 1, 40_001)[:, None] * (nu[some] + 12)
    z = x * nu[some]
    density = x * np.exp(-((x - nu[some]) ** 2) / 2) * special.ive(0, z)
    score = x * special.ive(1, z) / special.ive(0, z) - nu[some]
    exact = np.trapezoid(density * score**2, x, axis=0)
    np.testing.assert_allclose(fisher.numpy().ravel()[some], exact, atol=1e-4)


def test_moments_are_scipys(scan):
    signal, _, sigma = scan
    mean, variance = moments_in_pieces(signal, sigma)
    nu, level = (signal / sigma).double().numpy(), sigma.double().numpy()
    low = nu < 30  # scipy loses its digits beyond
    exact = stats.rice.mean(nu[low]), stats.rice.var(nu[low])
    np.testing.assert_allclose((mean.numpy() / level)[low], exact[0], atol=1e-5)
    np.testing.assert_allclose((variance.numpy() / level**2)[low], exact[1], atol=2e-5)


def test_likelihood_takes_pieces_for_many_values_and_returns_the_same(scan):
    signal, y, sigma = scan
    likelihood = RicianLikelihood()
    assert pieces_serve(signal, y, sigma)
    whole, few = likelihood.information(signal, y, sigma), likelihood.information(signal[:, :9], y[:9], sigma[:9])
    assert not pieces_serve(signal[:, :9], y[:9], sigma[:9])
    for one, other in zip(whole, few, strict=True):
        torch.testing.assert_close(one[:, :9] * sigma[:9], other * sigma[:9], rtol=2e-4, atol=2e-3)


def test_gradients_and_transforms_are_not_for_pieces(scan):
    signal, y, sigma = scan
    wanted = signal.clone().requires_grad_()
    assert not pieces_serve(wanted, y, sigma)
    with torch.no_grad():
        assert pieces_serve(wanted, y, sigma)
    assert not pieces_serve(signal.double(), y.double(), sigma.double())
    seen = []
    torch.func.vmap(lambda s: (seen.append(pieces_serve(s, y, sigma)), s)[1])(signal)
    assert seen == [False]
