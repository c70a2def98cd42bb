"""Bias, spread and error over a grid of truths, against estimators whose errors are known."""

import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.diagnostics.bias_variance import bias_variance, grid_of
from pyroqmri.diagnostics.prior_mean import prior_mean
from pyroqmri.errors import InputError
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import simulate

ACQ = Acquisition(bval=torch.tensor([0.0, 1.0, 2.0]))
AXES = grid_of({"D": (0.4, 1.6), "K": (0.0, 1.0)}, 4)
CALL = {"signal": MSDKI, "acquisition": ACQ, "axes": AXES, "snr": 20.0}


def truth(y):
    D, K = torch.meshgrid(*AXES.values(), indexing="ij")
    return {"D": D.flatten(), "K": K.flatten()}


def test_a_shrunken_estimate_has_the_slope_it_was_given():
    found = bias_variance(lambda y: {k: 0.5 * v + 0.2 for k, v in truth(y).items()}, n_draws=3, **CALL)
    assert found.slope("D") == pytest.approx(-0.5, abs=1e-6)
    torch.testing.assert_close(found.bias("K")[1], 0.2 - 0.5 * AXES["K"].double())
    torch.testing.assert_close(found.mapping("D"), 0.5 * AXES["D"].double() + 0.2)
    assert found.overall("D")["sd"] == pytest.approx(0, abs=1e-6)
    assert found.overall("D")["rmse"] == pytest.approx(float(found.bias("D").square().mean().sqrt()))


def test_the_spread_of_a_noisy_estimate_is_its_noise():
    generator = torch.Generator().manual_seed(0)

    def noisy(y):
        return {k: v + 0.3 * torch.randn(len(v), generator=generator) for k, v in truth(y).items()}

    # 16 x 400 draws: the standard error of the sd is 0.9 %, of the bias .004
    found = bias_variance(noisy, n_draws=400, **CALL)
    assert found.overall("D")["sd"] == pytest.approx(0.3, rel=0.04)
    assert found.overall("D")["bias"] == pytest.approx(0, abs=0.016)
    torch.testing.assert_close(found.point("rmse", "K").square(), found.mse("K"))
    assert found.marginal("sd", "K", along="D").shape == (4,)


def test_noise_is_new_at_each_draw_and_the_same_for_all_estimators():
    seen = []

    def look(y):
        seen.append(y)
        return truth(y)

    for seed in (5, 5, 6):
        bias_variance(look, n_draws=2, seed=seed, **CALL)
    torch.testing.assert_close(seen[0], seen[2])
    assert (seen[0] != seen[1]).any()
    assert (seen[0] != seen[4]).any()


def test_missing_estimates_are_left_out_and_counted():
    def sometimes(y):
        found = truth(y)
        found["D"] = torch.where(torch.arange(len(found["D"])) == 0, torch.nan, found["D"])
        found["K"][0] = torch.nan
        return found

    assert bias_variance(sometimes, n_draws=2, **CALL).n_missing == 2


def test_one_draw_has_no_spread_and_one_value_no_grid():
    with pytest.raises(InputError, match="at least 2 draws, got 1"):
        bias_variance(truth, n_draws=1, **CALL)
    with pytest.raises(InputError, match="at least 2 values per dimension, got 1"):
        grid_of({"D": (0, 1)}, 1)


def test_the_exact_posterior_mean_is_the_oracles():
    # the oracle is quadrature in numpy; 4,096 quasi-random points leave some percent of a posterior's sd
    from benchmarks import oracle

    ranges = {"D": (0.4, 1.6), "K": (0.0, 1.0)}
    generator = torch.Generator().manual_seed(0)
    theta = {k: lo + (hi - lo) * torch.rand(20, generator=generator) for k, (lo, hi) in ranges.items()}
    y = simulate(MSDKI, ACQ, theta, snr=15, seed=1)
    exact = oracle.msdki(y.numpy(), ACQ.bval.numpy(), 1 / 15, ranges)
    found = prior_mean(MSDKI, ACQ, ranges, snr=15, n_points=2**12)(y)
    assert float(found["n_effective"].min()) > 50
    for name in ranges:
        gap = (found[name].numpy() - exact.mean[name]) / exact.sd[name]
        assert abs(gap).max() < 0.1
    with pytest.raises(InputError, match="noise is 'none'; choose rician or gaussian"):
        prior_mean(MSDKI, ACQ, ranges, snr=15, noise="none")


@pytest.mark.parametrize("noise", ["rician", "gaussian"])
@pytest.mark.parametrize("snr", [3, 30, 100])
def test_the_matrix_product_is_the_likelihood(noise, snr):
    # not statistical: float32 leaves errors of a few thousandths of a log-likelihood in the thousands
    found = prior_mean(MSDKI, ACQ, {"D": (0.4, 1.6), "K": (0.0, 1.0)}, snr=snr, noise=noise, n_points=2**10)
    y = simulate(MSDKI, ACQ, {k: v[:30] for k, v in found.values.items()}, snr=snr, noise=noise, seed=2)
    unit, s = y.double() * snr, found.signals.double() * snr
    exponent = unit @ s.T - s.square().sum(-1) / 2
    if noise == "rician":
        exponent += torch.special.i0e(unit[:, None] * s).log().sum(-1)
    weight = torch.softmax(exponent, -1)
    answer = found(y)
    for name, values in found.values.items():
        assert torch.allclose(answer[name].double(), weight @ values.double(), atol=2e-3)
