"""From raw measurements to what a model sees."""

import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.preparation import Preparation, prepare_for
from pyroqmri.measurements.status import STATUS
from pyroqmri.signals import MSDKI, BallStick, T2Decay
from tests.helpers import rician, shells

ACQ = shells(3, 6, 1.0, 2.0)
SIGMA = torch.tensor(5.0)


def prepared(y, acq=ACQ, signal=MSDKI, sigma=SIGMA, s0="measured", average="auto", magnitude=True):
    preparation = prepare_for(signal, acq, y, s0=s0, average=average, magnitude=magnitude)
    return preparation, preparation(y, sigma, acq)


def clean(n: int = 8) -> torch.Tensor:
    """Measurements of ``n`` voxels, brighter from one to the next."""
    return torch.linspace(100, 800, n)[:, None] * torch.exp(-ACQ.bval)


def test_every_code_has_words():
    assert sorted(STATUS) == list(range(13))


def test_voxels_that_cannot_be_fitted_get_a_code_and_are_left_out():
    y = clean()
    y[0, 4], y[1, 0] = torch.nan, torch.inf
    y[2] = 0
    y[3, :3] = 2.0  # a b0 below the noise
    y[4, 5] = -30
    y[5, 5] = 0
    _, batch = prepared(y)
    assert batch.status.tolist() == [2, 2, 3, 3, 4, 1, 1, 1]
    assert batch.status.dtype == torch.uint8
    assert batch.index.tolist() == [4, 5, 6, 7]
    assert len(batch.voxels) == len(batch.reference) == 4
    assert torch.isfinite(batch.voxels.y).all()
    assert (batch.voxels.y > 0).all()


def test_negative_values_are_no_fault_of_signed_data():
    y = clean()
    y[4, 5] = -30
    _, batch = prepared(y, magnitude=False, average="volumes")
    assert batch.status.tolist() == [1] * 8
    assert batch.voxels.y[4].min() == pytest.approx(-30 / float(y[4, :3].mean()), rel=1e-5)


def test_a_negative_value_counts_as_zero():
    y = clean()
    zero = y.clone()
    y[4, 5], zero[4, 5] = -30, 0
    torch.testing.assert_close(prepared(y)[1].voxels.y, prepared(zero)[1].voxels.y)


@pytest.mark.parametrize("s0", ["inferred", 300.0])
def test_without_a_measured_s0_only_darkness_itself_is_dark(s0):
    y = clean()
    y[2], y[3] = 0, 2.0
    _, batch = prepared(y, s0=s0)
    assert batch.status.tolist() == [1, 1, 3, 1, 1, 1, 1, 1]


def test_the_first_echo_is_counted_in_rising_order():
    acq = Acquisition(te=[30.0, 10.0, 20.0, 10.0])
    y = torch.full((2, 4), 100.0)
    for first, kept in ((1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0])):
        found = prepare_for(T2Decay, acq, y, s0="inferred", average="auto", magnitude=True, first_echo=first)
        assert torch.cat(found.seen(acq).groups).tolist() == kept


def test_positions_and_covariates_stay_with_their_voxels():
    y = clean()
    y[0, 4], y[2] = torch.nan, 0
    positions, age = torch.arange(24).view(8, 3), torch.arange(8.0)
    batch = prepared(y)[1].placed(positions, {"age": age})
    assert batch.index.tolist() == [1, 3, 4, 5, 6, 7]
    assert torch.equal(batch.voxels.position, positions[batch.index])
    assert torch.equal(batch.voxels.covariates["age"], age[batch.index])


def test_nothing_to_fit_is_an_empty_batch():
    _, batch = prepared(torch.full((3, 15), torch.nan), s0="inferred")
    assert batch.status.tolist() == [2, 2, 2]
    assert len(batch.voxels) == 0


def test_the_callers_data_are_left_alone():
    y = clean()
    y[0, 0], y[1, 4] = torch.nan, -3
    before = y.clone()
    prepared(y)
    assert torch.equal(y, before) or torch.equal(y[1:], before[1:])


@pytest.mark.parametrize("snr", [3.0, 10.0])
def test_a_measured_s0_is_free_of_the_rician_bias(snr):
    # 20,000 voxels of 10 b0s: standard error .1 %; the root's own bias is -.6 % at SNR 3
    acq = shells(10, 6, 1.0)
    y = rician(torch.ones(20_000, 16), 1 / snr)
    _, batch = prepared(y, acq, sigma=torch.tensor(1 / snr))
    assert float(batch.reference.mean()) == pytest.approx(1, abs=0.012)
    if snr == 3:
        assert float(y[:, :10].mean()) > 1.04


def test_a_measured_s0_of_signed_data_is_the_mean():
    y = clean()
    y[:, 0] += 6
    _, batch = prepared(y, magnitude=False)
    torch.testing.assert_close(batch.reference, y[:, :3].mean(-1))


def test_a_measured_s0_leaves_its_b0s_out_and_scales_the_noise():
    preparation, batch = prepared(clean(), average="volumes", sigma=torch.tensor(1e-3))
    assert batch.voxels.y.shape == (8, 12)
    assert len(preparation.seen(ACQ).acquisition) == 12
    torch.testing.assert_close(batch.voxels.y, torch.exp(-ACQ.bval[3:]).expand(8, 12), rtol=1e-4, atol=0)
    torch.testing.assert_close(batch.voxels.sigma, 1e-3 / batch.reference[:, None])


def test_shells_are_averaged_for_a_signal_of_the_powder_average():
    y = clean() + torch.randn(8, 15)
    preparation, batch = prepared(y)
    assert preparation.average
    assert preparation.seen(ACQ).acquisition.bval.tolist() == [1.0, 2.0]
    assert preparation.seen(ACQ).acquisition.bvec is None
    assert preparation.seen(ACQ).n_average.tolist() == [6.0, 6.0]
    scaled = y / batch.reference[:, None]
    torch.testing.assert_close(batch.voxels.y, torch.stack([scaled[:, 3:9].mean(-1), scaled[:, 9:].mean(-1)], -1))


@pytest.mark.parametrize(
    ("signal", "average", "bvec", "averaged"),
    [
        (MSDKI, "auto", True, True),
        (MSDKI, "auto", False, False),
        (MSDKI, "shells", False, True),
        (MSDKI, "volumes", True, False),
        (BallStick, "auto", True, False),
    ],
)
def test_what_is_averaged(signal, average, bvec, averaged):
    acq = shells(3, 6, 1.0, 2.0, bvec=bvec)
    preparation, batch = prepared(clean(), acq, signal, average=average)
    assert preparation.average is averaged
    assert batch.voxels.y.shape[1] == (2 if averaged else 12)
    assert (preparation.seen(acq).n_average is None) is not averaged


def test_jittered_b_values_are_one_shell():
    bval = torch.tensor([0.0, 0.995, 2.01, 1.0, 1.99, 0.0, 1.005, 0.005])
    acq = Acquisition(bval=bval, bvec=torch.nn.functional.normalize(torch.ones(8, 3), dim=-1))
    y = 100 * torch.exp(-bval).expand(4, 8)
    preparation, batch = prepared(y, acq, s0="inferred")
    assert preparation.seen(acq).acquisition.bval.tolist() == pytest.approx([0.0, 0.005, 1.0, 2.0])
    assert preparation.seen(acq).n_average.tolist() == [2.0, 1.0, 3.0, 2.0]
    torch.testing.assert_close(batch.voxels.y[0, 2], y[0, [1, 3, 6]].mean() / batch.reference[0])
    apart = Acquisition(bval=[0.0, 1.0, 1.2], bvec=torch.eye(3))
    assert len(preparation.seen(apart).groups) == 3


def test_an_inferred_s0_divides_by_one_bright_scale():
    y = clean(1000)
    y[:5] = torch.nan
    y[5:10] *= 100  # a few spikes do not set the scale
    preparation, batch = prepared(y, s0="inferred")
    assert preparation.scale == pytest.approx(784, rel=0.02)
    assert (batch.reference == preparation.scale).all()
    torch.testing.assert_close(batch.voxels.sigma, torch.full((995, 1), 5 / preparation.scale))


def test_a_known_s0_is_taken():
    preparation, batch = prepared(clean(), s0=400)
    assert preparation.s0 == 400.0
    torch.testing.assert_close(batch.reference, torch.full((8,), 400.0))


def test_noise_a_voxel_and_inputs_follow_their_voxels():
    y, b1 = clean(), torch.arange(8.0)
    y[2] = torch.nan
    preparation = prepare_for(MSDKI, ACQ, y, s0=100.0, average="auto", magnitude=True)
    batch = preparation(y, torch.arange(1.0, 9.0), ACQ, {"b1": b1})
    assert batch.voxels.inputs["b1"].tolist() == [0, 1, 3, 4, 5, 6, 7]
    torch.testing.assert_close(batch.voxels.sigma[:, 0] * 100, torch.tensor([1.0, 2, 4, 5, 6, 7, 8]))


def test_new_voxels_are_treated_alike():
    preparation, batch = prepared(clean(), s0="inferred")
    again = Preparation(**preparation.record())
    assert again == preparation
    few = again(clean()[3:5], SIGMA, ACQ)
    torch.testing.assert_close(few.voxels.y, batch.voxels.y[3:5])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"s0": "guess"}, "s0 must be 'measured', 'inferred' or a value above zero, got 'guess'"),
        ({"s0": -3.0}, "got -3.0"),
        ({"s0": float("nan")}, "got nan"),
        ({"average": "mean"}, "data.average must be 'auto', 'shells' or 'volumes', got 'mean'"),
        ({"acq": Acquisition(te=[80.0] * 15)}, "needs bval"),
        ({"acq": shells(15, 0)}, "every measurement is a b0"),
        ({"acq": shells(3, 6, 1.0)}, r"y must be \(voxels, measurements\) = \(N, 9\), got \(8, 15\)"),
    ],
)
def test_what_cannot_be_is_said(settings, said):
    with pytest.raises(InputError, match=said):
        prepared(clean(), **settings)
