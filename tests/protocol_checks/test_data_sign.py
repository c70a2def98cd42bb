"""The sign of data against that of signals: inversion recoveries and real-valued diffusion, and magnitudes of both."""

import numpy as np
import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import settle_likelihood
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.protocol_checks.data_sign import check_sign, sign_of

TI = torch.tensor([50.0, 200, 400, 800, 1100, 2000, 2500])
B = torch.tensor([0.0, 0, 1, 1, 2, 2, 3, 3])


def recovered(T1: float, ti: torch.Tensor = TI, noise: float = 0.01, n: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 1000 * (1 - 2 * torch.exp(-ti / T1) + noise * torch.randn(n, len(ti), generator=generator))


def decayed(noise: float, n: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 500 * (torch.exp(-B) + noise * torch.randn(n, len(B), generator=generator))


@pytest.mark.parametrize("T1", [400.0, 1200.0, 3500.0])
def test_signed_inversion_data_are_refused_by_the_magnitude_signal(T1):
    y = recovered(T1)
    with pytest.raises(InputError, match="t1_inversion_signed"):
        check_sign(sign_of(y), y, Acquisition(ti=TI), "t1_inversion")
    assert check_sign(sign_of(y), y, Acquisition(ti=TI), "t1_inversion_signed") == []


@pytest.mark.parametrize("T1", [400.0, 1200.0, 3500.0])
def test_magnitudes_are_noticed_by_the_signed_signal(T1):
    y = recovered(T1).abs()
    (text,) = check_sign(sign_of(y), y, Acquisition(ti=TI), "t1_inversion_signed")
    assert "use signal t1_inversion" in text
    assert check_sign(sign_of(y), y, Acquisition(ti=TI), "t1_inversion") == []


def test_a_recovery_that_was_measured_after_its_null_has_no_sign_to_miss():
    ti = torch.tensor([900.0, 1200, 2000, 3000])
    y = recovered(1000.0, ti)
    assert check_sign(sign_of(y), y, Acquisition(ti=ti), "t1_inversion_signed") == []
    assert check_sign(sign_of(y), y, Acquisition(ti=ti), "t1_inversion") == []


@pytest.mark.parametrize("recipe", ["hierarchical", "maximum_likelihood", "self_supervised"])
@pytest.mark.parametrize("noise", [0.03, 0.08, 0.2])
def test_real_valued_diffusion_gets_a_gaussian_likelihood(recipe, noise):
    y = decayed(noise)
    assert float((y < 0).float().mean()) > 0.01
    plan, warnings = settle_likelihood(load_recipe(recipe), "msdki", y, Acquisition(bval=B), False)
    assert plan.kind("likelihood") == "gaussian"
    assert len(warnings) == 1
    assert "gaussian is used in place of rician" in warnings[0]


def test_a_likelihood_that_was_asked_for_stays_and_is_warned_about():
    y = decayed(0.1)
    plan, warnings = settle_likelihood(load_recipe("hierarchical"), "msdki", y, Acquisition(bval=B), True)
    assert plan.kind("likelihood") == "rician"
    assert len(warnings) == 1
    assert "set to zero" in warnings[0]


def test_a_signed_signal_takes_a_gaussian_likelihood_without_a_word():
    y = recovered(1200.0)
    plan, warnings = settle_likelihood(load_recipe("vae_gmm"), "t1_inversion_signed", y, Acquisition(ti=TI), False)
    assert plan.kind("likelihood") == "gaussian"
    assert warnings == []


@pytest.mark.parametrize("kind", ["magnitudes", "rounded", "interpolated", "few"])
def test_magnitudes_stay_rician(kind):
    y = decayed(0.1).abs()
    if kind == "rounded":  # to integers around zero, where a filter left -1
        y = torch.where(y < 1, -torch.ones_like(y) * 0.4, y)
    if kind == "interpolated":  # a kernel with negative lobes undershoots in some voxels, by little
        y[::7, -1] = -0.0005 * y[::7, 0]
    if kind == "few":
        y[:2] = -y[:2]
    plan, warnings = settle_likelihood(load_recipe("hierarchical"), "msdki", y, Acquisition(bval=B), False)
    assert plan.kind("likelihood") == "rician"
    assert warnings == []


def test_least_squares_takes_real_values_as_they_are():
    y = decayed(0.1)
    plan, warnings = settle_likelihood(load_recipe("least_squares"), "msdki", y, Acquisition(bval=B), False)
    assert plan.kind("likelihood") == "gaussian"
    assert warnings == []


def test_nan_and_empty_voxels_do_not_count():
    y = decayed(0.0)
    y[::2] = np.nan
    y[1::4] = 0
    assert sign_of(y).share == 0
    assert not sign_of(torch.zeros(5, 8)).real


def test_integers_that_overflowed_are_named_and_noise_around_zero_is_not():
    whole = 70 * decayed(0.02)
    y = torch.from_numpy(whole.numpy().astype(np.int64).astype(np.int16)).float()
    assert (y < 0).any()
    (text,) = check_sign(sign_of(y), y, Acquisition(bval=B), "msdki")
    assert "integers that overflowed" in text
    for noise in (0.03, 0.1, 0.2):  # the last is real-valued, of SNR 5
        y = decayed(noise)
        assert check_sign(sign_of(y), y, Acquisition(bval=B), "msdki") == []
