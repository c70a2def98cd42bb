"""A signal at one acquisition, parameters fixed, tied or S0 among them."""

import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.parameter import frame_around
from pyroqmri.signals import MSDKI, BallStick, BoundSignal, SignalModel
from pyroqmri.signals.bound import S0
from tests.helpers import shells

ACQ = shells(1, 10, 1.0, 2.0)
FRAME = frame_around(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)))


def test_all_free():
    signal = BoundSignal(BallStick, ACQ)
    assert [p.name for p in signal.free] == ["f", "D_par", "D_iso", "n"]
    assert (signal.n_tissue, signal.n_latents) == (3, 5)
    assert signal.direction is not None
    assert signal.direction.name == "n"
    assert BoundSignal(MSDKI, ACQ).direction is None


def test_a_fixed_parameter_keeps_its_value_and_takes_no_latent():
    signal = BoundSignal(BallStick, ACQ, fixed={"D_par": 1.7})
    assert [p.name for p in signal.free] == ["f", "D_iso", "n"]
    theta = signal.constrain(torch.randn(6, 4), FRAME)
    assert (theta["D_par"] == 1.7).all()
    free = BoundSignal(BallStick, ACQ)
    torch.testing.assert_close(signal(theta), free(theta))


def test_tied_parameters_are_equal():
    signal = BoundSignal(BallStick, ACQ, tied={"D_iso": "D_par"})
    assert [p.name for p in signal.tissue] == ["f", "D_par"]
    theta = signal.constrain(torch.randn(6, 4), FRAME)
    assert torch.equal(theta["D_iso"], theta["D_par"])


def test_tied_to_a_fixed_one():
    signal = BoundSignal(BallStick, ACQ, fixed={"D_par": 1.7}, tied={"D_iso": "D_par"})
    assert [p.name for p in signal.tissue] == ["f"]
    assert (signal.constrain(torch.randn(6, 3), FRAME)["D_iso"] == 1.7).all()


def test_s0_is_one_more_parameter_before_the_direction():
    signal = BoundSignal(BallStick, ACQ, infer_s0=True)
    assert [p.name for p in signal.free] == ["f", "D_par", "D_iso", "S0", "n"]
    theta = signal.constrain(torch.randn(6, 6), FRAME)
    plain = BoundSignal(BallStick, ACQ)(theta)
    torch.testing.assert_close(signal(theta), theta["S0"].unsqueeze(-1) * plain)
    assert theta["S0"].max() <= S0.upper


def test_unconstrain_is_the_inverse():
    signal = BoundSignal(MSDKI, ACQ, infer_s0=True)
    z = torch.linspace(-2, 2, 15).view(5, 3)
    torch.testing.assert_close(signal.unconstrain(signal.constrain(z)), z, atol=1e-4, rtol=0)


def test_some_of_its_measurements():
    signal = BoundSignal(BallStick, ACQ, fixed={"D_par": 1.7})
    theta = signal.constrain(torch.randn(6, 4), FRAME)
    part = signal.at(torch.tensor([3, 0, 12]))
    torch.testing.assert_close(part(theta), signal(theta)[:, [3, 0, 12]])
    assert part.fixed == signal.fixed


def test_the_settings_are_no_weights():
    signal = BoundSignal(MSDKI, ACQ)
    assert not signal.state_dict()
    assert not list(signal.parameters())
    assert signal.double().acquisition.bval.dtype == torch.float64


class NeedsB1(SignalModel):
    """A signal with a per-voxel input."""

    requires = ("bval",)
    parameters = MSDKI.parameters[:1]
    inputs = ("b1",)

    @staticmethod
    def signal(acq, D, b1):
        return b1 * torch.exp(-acq.bval * D)


def test_inputs_come_a_voxel_each():
    signal = BoundSignal(NeedsB1, ACQ)
    theta = signal.constrain(torch.randn(4, 1))
    b1 = torch.tensor([0.5, 1.0, 2.0, 3.0])
    values = signal(theta, {"b1": b1})
    torch.testing.assert_close(values[:, 0], b1)


@pytest.mark.parametrize(
    ("fixed", "tied", "said"),
    [
        ({"D": 1.0}, {}, "fixed or tied names 'D'; BallStick has f, D_par, D_iso"),
        ({"n": 1.0}, {}, "names 'n'"),
        ({"D_par": 7.0}, {}, r"D_par is fixed at 7, outside 0.01..3.5"),
        ({"D_par": float("nan")}, {}, "D_par is fixed at nan"),
        ({}, {"D_iso": "D"}, "names 'D'"),
        ({}, {"D_iso": "D_iso"}, "D_iso is tied to D_iso"),
        ({}, {"D_iso": "D_par", "D_par": "f"}, "D_iso is tied to D_par"),
        ({"D_iso": 1.0}, {"D_iso": "D_par"}, "D_iso is tied to D_par"),
    ],
)
def test_what_cannot_be_fixed_or_tied_is_said(fixed, tied, said):
    with pytest.raises(InputError, match=said):
        BoundSignal(BallStick, ACQ, fixed, tied)


def test_nothing_left_to_fit_is_said():
    with pytest.raises(InputError, match="nothing is left to fit"):
        BoundSignal(MSDKI, ACQ, {"D": 1.0, "K": 1.0})
    assert BoundSignal(MSDKI, ACQ, {"D": 1.0, "K": 1.0}, infer_s0=True).n_latents == 1


def test_missing_directions_are_said():
    with pytest.raises(InputError, match="needs bvec"):
        BoundSignal(BallStick, Acquisition(bval=[0.0, 1.0]))
