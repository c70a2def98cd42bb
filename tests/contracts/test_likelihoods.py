"""What every likelihood keeps to, for single measurements, means of several, and both in one voxel."""

from functools import partial

import pytest
import torch

from pyroqmri.likelihoods import LIKELIHOODS, Likelihood

COUNTS = (None, (2.0, 4.0, 30.0), (1.0, 4.0, 30.0))
KINDS = LIKELIHOODS | {f"ncchi{coils:g}": partial(LIKELIHOODS["ncchi"], coils=coils) for coils in (2.5, 8.0)}
CASES = [pytest.param(kind, n, id=f"{name}-{n}") for name, kind in KINDS.items() for n in COUNTS]
EVERY = pytest.mark.parametrize(("kind", "counts"), CASES)
SIGNAL = torch.tensor([[0.9, 0.5, 0.2], [1.4, 0.3, 0.05]], dtype=torch.float64)
SIGMA = torch.tensor([[0.1], [0.15]], dtype=torch.float64)


def made(kind: type[Likelihood], counts, learn: bool = False) -> Likelihood:
    return kind(None if counts is None else torch.tensor(counts), learn=learn).double()


def samples(likelihood: Likelihood, n: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return likelihood(SIGNAL, SIGMA).sample((n,))


@EVERY
def test_shapes(kind, counts):
    distribution = made(kind, counts)(SIGNAL.expand(5, 2, 3), SIGMA)
    assert (distribution.batch_shape, distribution.event_shape) == ((5, 2), (3,))
    y = distribution.sample()
    assert distribution.log_prob(y).shape == (5, 2)
    assert all(t.shape == (5, 2, 3) for t in made(kind, counts).information(SIGNAL.expand(5, 2, 3), y, SIGMA))
    assert all(t.shape == (5, 2, 3) for t in made(kind, counts).moments(SIGNAL.expand(5, 2, 3), SIGMA))


@EVERY
def test_each_density_integrates_to_one(kind, counts):
    likelihood = made(kind, counts)
    single = likelihood.magnitude and (counts is None or 1.0 in counts)
    y = torch.linspace(1e-12 if single else -1.5, 4, 40_001, dtype=torch.float64)
    density = likelihood.information(SIGNAL, y[:, None, None].expand(-1, 2, 3), SIGMA).log_prob.exp()
    torch.testing.assert_close(torch.trapezoid(density, y, dim=0), torch.ones_like(SIGNAL), atol=1e-6, rtol=0)


@EVERY
def test_the_densities_of_a_voxel_are_those_of_its_measurements(kind, counts):
    likelihood = made(kind, counts)
    y = samples(likelihood, 50)
    whole = likelihood(SIGNAL, SIGMA).log_prob(y)
    torch.testing.assert_close(likelihood.information(SIGNAL, y, SIGMA).log_prob.sum(-1), whole)


@EVERY
def test_the_score_is_the_slope_of_the_log_density(kind, counts):
    likelihood = made(kind, counts)
    y = samples(likelihood, 200)
    signal = SIGNAL.clone().requires_grad_()
    for one in y:
        slope = torch.autograd.grad(likelihood(signal, SIGMA).log_prob(one).sum(), signal)[0]
        score = likelihood.information(SIGNAL, one, SIGMA).score
        # the variance's own slope is a leading term above SNR 6: a thousandth of the score's spread
        torch.testing.assert_close(score, slope, rtol=1e-3, atol=float(2e-3 / SIGMA.min()))


@EVERY
def test_the_information_is_the_expected_squared_score(kind, counts):
    # 200,000 draws: the mean square has a standard error of .3 to .6 %; the Rician table adds 3e-4 / sigma^2
    likelihood = made(kind, counts)
    _, score, fisher = likelihood.information(SIGNAL.expand(200_000, 2, 3), samples(likelihood, 200_000), SIGMA)
    torch.testing.assert_close(score.mean(0) * SIGMA, torch.zeros_like(SIGNAL), atol=0.06, rtol=0)
    torch.testing.assert_close(score.square().mean(0), fisher[0], rtol=0.03, atol=float(3e-4 / SIGMA.min() ** 2))


@EVERY
def test_moments_are_those_of_samples(kind, counts):
    # 200,000 draws: standard errors of .001 sigma and .3 % of the variance
    likelihood = made(kind, counts)
    y = samples(likelihood, 200_000, seed=1)
    mean, variance = likelihood.moments(SIGNAL, SIGMA)
    torch.testing.assert_close(y.mean(0), mean, atol=0.012 * float(SIGMA.max()), rtol=0)
    torch.testing.assert_close(y.var(0), variance, rtol=0.015, atol=0)


@EVERY
def test_float32_keeps_the_digits(kind, counts):
    likelihood = made(kind, counts)
    y = samples(likelihood, 100)
    exact = likelihood.information(SIGNAL, y, SIGMA)
    single = likelihood.float().information(SIGNAL.float(), y.float(), SIGMA.float())
    for ours, reference in zip(single, exact, strict=True):
        torch.testing.assert_close(ours, reference.float(), rtol=1e-3, atol=3e-4 * float(reference.abs().max()))


@EVERY
def test_more_noise_is_said_by_the_factor(kind, counts):
    likelihood = made(kind, counts, learn=True)
    with torch.no_grad():
        likelihood.log_factor.fill_(2.0).log_()
    twice = made(kind, counts)
    torch.testing.assert_close(likelihood.moments(SIGNAL, SIGMA)[1].detach(), twice.moments(SIGNAL, 2 * SIGMA)[1])
    y = samples(twice, 5)
    torch.testing.assert_close(
        likelihood.information(SIGNAL, y, SIGMA).score.detach(), twice.information(SIGNAL, y, 2 * SIGMA).score
    )
    torch.testing.assert_close(
        likelihood(SIGNAL, SIGMA).log_prob(y).detach(), twice(SIGNAL, 2 * SIGMA).log_prob(y), rtol=1e-9, atol=0
    )


@EVERY
def test_a_learned_factor_moves_to_the_noise_that_is_there(kind, counts):
    # 5,000 voxels of 3 measurements: standard error of the log factor near .006
    likelihood = made(kind, counts, learn=True)
    torch.manual_seed(0)
    y = made(kind, counts)(SIGNAL, 1.7 * SIGMA).sample((5000,))
    optimizer = torch.optim.LBFGS(likelihood.parameters(), line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -likelihood(SIGNAL, SIGMA).log_prob(y).mean()
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(loss)
    assert float(likelihood.factor.detach()) == pytest.approx(1.7, rel=0.03)


@EVERY
def test_a_factor_that_is_not_learned_has_no_gradient_and_is_saved(kind, counts):
    assert not list(made(kind, counts).parameters())
    assert "log_factor" in made(kind, counts).state_dict()
    assert [name for name, _ in made(kind, counts, learn=True).named_parameters()] == ["log_factor"]
