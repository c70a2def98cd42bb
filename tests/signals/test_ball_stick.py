"""Ball and stick: its axis."""

import pytest
import torch

from pyroqmri.signals import BallStick, BoundSignal
from tests.helpers import rician, shells

ACQ = shells(2, 30, 1.0, 2.0)
AXES = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def theta(axes=AXES, f=0.6):
    full = torch.ones(len(axes))
    return {"f": f * full, "D_par": 2.0 * full, "D_iso": 0.9 * full, "n": axes}


def test_an_axis_has_no_sign():
    signal = BoundSignal(BallStick, ACQ)
    torch.testing.assert_close(signal(theta()), signal(theta(-AXES)))


def test_water_moves_along_the_stick_only():
    signal = BoundSignal(BallStick, shells(1, 1, 2.0))
    along = signal.acquisition.bvec[1:]
    across = torch.linalg.cross(along, torch.tensor([[0.3, 0.5, -0.2]]))
    across = across / across.norm()
    values = signal(theta(torch.cat([along, across]), f=1.0))[:, 1]
    torch.testing.assert_close(values, torch.tensor([-4.0, 0.0]).exp(), atol=1e-5, rtol=0)


def test_theta_and_phi_are_the_axis():
    derived = BallStick.derived({"n": AXES})
    sine = derived["theta"].sin()
    back = torch.stack([sine * derived["phi"].cos(), sine * derived["phi"].sin(), derived["theta"].cos()], -1)
    torch.testing.assert_close(back, AXES, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("sigma", "degrees"), [(1e-5, 1.0), (0.05, 12.0)])
def test_the_first_guess_of_the_axis_is_near(sigma, degrees):
    y = rician(BoundSignal(BallStick, ACQ)(theta()), sigma)
    guess = BallStick.initial_axis(ACQ, y)
    torch.testing.assert_close(guess.norm(dim=-1), torch.ones(200), atol=1e-5, rtol=0)
    angle = torch.rad2deg(torch.acos((guess * AXES).sum(-1).abs().clamp(max=1)))
    assert angle.quantile(0.9) < degrees
