"""Voxels that a fit is checked on: what their seed is of, and the noise level that the fit is given."""

import math

import pytest
import torch

import pyroqmri as pq
from pyroqmri.calibration.check import fit_protocol
from pyroqmri.calibration.simulated_voxels import SimulatedVoxels, own_voxels, tissue_voxels
from pyroqmri.signals import MSDKI, SIGNALS, BoundSignal
from tests.helpers import msdki_data, shells

N = 300
Y, ACQ = msdki_data(100)


@pytest.fixture(scope="module")
def fit() -> pq.Fit:
    return pq.fit(Y, ACQ, signal="msdki", recipe="hierarchical", likelihood="gaussian", sigma="learn", s0=1.0,
                  settings={"training.steps": 3})  # fmt: skip


def noise(simulated: SimulatedVoxels, acq: pq.Acquisition = ACQ) -> torch.Tensor:
    """Measurements less what the truth says they are, ``(n, M)``."""
    s0 = simulated.truth.get("S0", torch.ones(N)).unsqueeze(-1)
    return simulated.y - s0 * BoundSignal(MSDKI, acq)(simulated.truth)


def likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    """Correlation of two arrays."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@pytest.mark.parametrize("make", [own_voxels, lambda fit, n, seed: tissue_voxels(fit, n, seed, 20.0)],
                         ids=["own", "tissue"])  # fmt: skip
def test_the_seed_is_that_of_the_truth_and_of_the_noise(fit, make):
    one, same, other = (make(fit, N, seed) for seed in (1, 1, 2))
    assert torch.equal(one.y, same.y)
    # 300 truths and 3,600 noises: correlations of .058 and .017 by chance
    assert abs(likeness(one.truth["D"], other.truth["D"])) < 0.5
    assert abs(likeness(noise(one), noise(other))) < 0.1


def test_the_seed_is_that_of_an_s0_that_is_inferred():
    acq = shells(6, 8, 1.0, 2.0, bvec=False)
    call = "msdki", acq, "inferred", {"fixed": {}, "tied": {}}, "gaussian"
    one, same, other = (tissue_voxels(call, N, seed, 20.0) for seed in (1, 1, 2))
    assert torch.equal(one.truth["S0"], same.truth["S0"])
    assert abs(likeness(one.truth["S0"], other.truth["S0"])) < 0.5


def test_a_fit_that_learned_its_noise_is_given_the_level_before_its_factor(fit):
    fit.likelihood.log_factor.data.fill_(math.log(1.5))
    for simulated in (own_voxels(fit, N, 0), tissue_voxels(fit, N, 0)):
        assert simulated.sigma == pytest.approx(fit.noise.sigma, rel=1e-5)
        # 3,600 noises: standard error 1.2 %
        assert float(noise(simulated).std()) == pytest.approx(1.5 * fit.noise.sigma, rel=0.06)


def test_noise_of_several_coils_is_simulated_as_such():
    # at te 20 s nothing is left of the signal: the mean of chi noise with 8 degrees of freedom, 2.74 sigma
    acq = pq.Acquisition(te=[10.0, 50, 20_000])
    of = "t2_decay", acq, 1.0, {"fixed": {}, "tied": {}}, "ncchi"
    found = tissue_voxels(of, 3000, 0, 20.0, None, 4.0)
    assert float(found.y[:, 2].mean() / found.sigma) == pytest.approx(2.742, rel=0.01)


def test_a_signal_that_keeps_its_sign_is_trained_on_data_that_do():
    protocol = SIGNALS["t1_inversion_signed"].default_protocol
    found = fit_protocol(protocol, signal="t1_inversion_signed", recipe="least_squares", snr=30.0, n_train=300)
    assert not [text for text in found.warnings if "negative" in text]


def test_networks_refuse_several_coils():
    with pytest.raises(pq.InputError, match="whose labels are those of one coil"):
        fit_protocol(SIGNALS["msdki"].default_protocol, signal="msdki", recipe="supervised_gt", snr=30.0, n_train=300,
                     likelihood="ncchi", settings={"likelihood.coils": 4})  # fmt: skip


def test_voxels_to_train_on_differ_in_s0_where_those_to_check_do():
    """Relaxation leaves S0 to be inferred: a population trained on one S0 would miss the S0 of every other voxel."""
    for signal, s0, spread in (("t2_decay", "measured", 0.1), ("adc", "measured", 0.0), ("adc", "inferred", 0.1)):
        of = signal, SIGNALS[signal].default_protocol, s0, {"fixed": {}, "tied": {}}, "rician"
        found = tissue_voxels(of, 2000, 0, 20.0).truth["S0"]
        # of 2,000 draws the sd of an sd of 0.1 is 0.0016
        assert float(found.std()) == pytest.approx(spread, abs=0.007)
