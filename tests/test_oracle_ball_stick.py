"""Posteriors by importance sampling against a closed form, themselves and their calibration."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal

from benchmarks.importance import fit_proposals
from benchmarks.oracle_ball_stick import NAMES, ball_stick, ball_stick_signal
from benchmarks.protocols import protocol
from pyroqmri.signals import BallStick
from pyroqmri.simulate import brain_phantom, simulate


def test_importance_sampling_equals_a_normal():
    # standard normal prior times a likelihood N(data; A u, s^2): evidence and mean in closed form
    rng = np.random.default_rng(0)
    design, data, s = rng.normal(size=(12, 5)), rng.normal(size=12), 0.05

    def log_target(points, rows):
        gap = data - points @ design.T
        prior = -(points**2).sum(-1) / 2 - 2.5 * np.log(2 * np.pi)
        return prior - (gap**2).sum(-1) / (2 * s**2) - 12 * np.log(s * np.sqrt(2 * np.pi))

    proposal, _ = fit_proposals(log_target, 1, 5, rng)
    points = proposal.sample(20_000, rng)
    log_w = log_target(points, np.zeros(1, int)) - proposal.log_density(points)
    w = np.exp(log_w - log_w.max())
    evidence = log_w.max() + np.log(w.mean())
    exact = multivariate_normal(np.zeros(12), design @ design.T + s**2 * np.eye(12)).logpdf(data)
    assert w.sum() ** 2 / (w**2).sum() > 8000
    assert abs(evidence - exact) < 0.05  # five standard errors
    cov = np.linalg.inv(np.eye(5) + design.T @ design / s**2)
    mean = cov @ design.T @ data / s**2
    found = (w[0] @ points[0]) / w.sum()
    assert (np.abs(found - mean) < 5 * np.sqrt(np.diag(cov) / 8000)).all()


def ball_stick_data(n, seed):
    acq = protocol("ball_stick_90")
    phantom = brain_phantom(BallStick, (30, 30, 5), seed)
    pick = np.random.default_rng(seed).permutation(int(phantom.mask.sum()))[:n]
    theta = {k: v[pick] for k, v in phantom.voxels().items()}
    y = simulate(BallStick, acq, theta, snr=20, seed=seed).numpy()
    at = {k: v.double().numpy() if k == "n" else v.double().numpy()[:, None] for k, v in theta.items()}
    return acq.bval.double().numpy(), acq.bvec.double().numpy(), at, y, phantom.population


def test_ball_stick_seeds_agree_within_their_error():
    bval, bvec, _, y, population = ball_stick_data(8, seed=0)
    first, second = (ball_stick(y, bval, bvec, 0.05, population, seed=s) for s in (0, 1))
    assert (first.n_effective > 500).all()
    error = np.sqrt(1 / first.n_effective + 1 / second.n_effective)
    for k in NAMES:
        assert (np.abs(first.mean[k] - second.mean[k]) < 5 * error * first.sd[k]).all()
    assert np.abs(first.log_evidence - second.log_evidence).max() < 0.3


def test_ball_stick_signal_is_the_packages():
    acq = protocol("ball_stick_90")
    theta = brain_phantom(BallStick, (16, 16, 1), 0).voxels()
    theirs = simulate(BallStick, acq, theta, noise="none").numpy()
    ours = ball_stick_signal(acq.bval.numpy(), acq.bvec.numpy(), *(theta[k].numpy() for k in (*NAMES, "n")))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_ball_stick_is_calibrated():
    n = 150  # four distances: one seed in 250 fails
    bval, bvec, at, y, population = ball_stick_data(n, seed=6)
    found = ball_stick(y, bval, bvec, 0.05, population, at=at, wanted=500)
    for k in (*NAMES, "n"):
        assert kstest(found.cdf[k][:, 0], "uniform").statistic < 1.95 / np.sqrt(n)
    assert (found.n_effective > 300).mean() > 0.95
