"""MS-DKI far from tissue."""

import torch

from pyroqmri import Acquisition
from pyroqmri.signals import MSDKI, BoundSignal


def test_it_goes_on_linearly_where_the_exponential_would_leave_float32():
    acq = Acquisition(bval=torch.linspace(0, 20, 400))
    D, K = torch.tensor([[4.0]], requires_grad=True), torch.tensor([[3.0]])
    signal = MSDKI.signal(acq, D, K)
    exponent = -acq.bval * 4 + (acq.bval * 4) ** 2 / 2
    assert (exponent > 88).any()  # where float32 ends
    assert torch.isfinite(signal).all()
    far = exponent > 3
    torch.testing.assert_close(signal[0, far], torch.exp(torch.tensor(3.0)) * (exponent[far] - 2), rtol=1e-5, atol=0)
    assert torch.isfinite(torch.autograd.grad(signal.sum(), D)[0]).all()


def test_the_joint_is_smooth():
    # exponent -b D + (b D)^2 K / 6 with K = 3 and b = 1 crosses 3 at D = 1 + sqrt(7)
    D = (1 + 7**0.5 + torch.linspace(-1e-3, 1e-3, 201, dtype=torch.float64)).unsqueeze(-1).requires_grad_()
    signal = MSDKI.signal(Acquisition.trusted(bval=torch.ones(1, dtype=torch.float64)), D, torch.tensor(3.0))
    slope = torch.autograd.grad(signal.sum(), D)[0].squeeze()
    assert (signal.squeeze().diff() > 0).all()
    torch.testing.assert_close(slope[1:], slope[:-1], rtol=1e-3, atol=0)


def test_no_kurtosis_is_one_exponential():
    bval = torch.tensor([0.0, 1.0, 2.0])
    signal = MSDKI.signal(Acquisition(bval=bval), torch.tensor([[0.8]]), torch.tensor([[0.0]]))
    torch.testing.assert_close(signal, torch.exp(-0.8 * bval).unsqueeze(0))


def test_the_product_of_D_and_K_stays_below_two():
    u = 3 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    signal = BoundSignal(MSDKI, Acquisition(bval=[0.0, 1.0, 2.0]))
    theta = signal.constrain(u)
    assert (theta["D"] * theta["K"] <= 2 + 1e-5).all()
    assert theta["K"].min() < -0.9
    assert theta["K"].max() > 2.9
    inside = (u.abs() < 3).all(-1)
    torch.testing.assert_close(signal.unconstrain(theta)[inside], u[inside], atol=2e-2, rtol=0)
