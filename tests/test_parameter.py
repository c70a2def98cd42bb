"""Bounds and directions."""

import numpy as np
import pytest
import torch
from scipy import stats

from pyroqmri.parameter import Direction, Parameter, frame_around

D = Parameter("D", "D", "um2/ms", 0.1, 3.5, "diffusivity")
AXIS = Direction("n", "n", "axis")


def a_frame(n: int, seed: int = 0) -> torch.Tensor:
    return frame_around(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)))


def test_a_standard_normal_is_uniform_in_the_box():
    # KS test of 20,000 draws, failure rate 1e-4 under other seeds
    torch.manual_seed(0)
    theta = D.constrain(torch.randn(20_000))
    assert stats.kstest(theta.numpy(), stats.uniform(0.1, 3.4).cdf).pvalue > 1e-4


def test_unconstrain_is_the_inverse():
    u = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(D.unconstrain(D.constrain(u)), u, atol=2e-2, rtol=0)
    torch.testing.assert_close(D.unconstrain(D.constrain(u.double())), u.double(), atol=1e-9, rtol=0)


def test_every_number_stays_in_the_box_and_every_value_comes_back_finite():
    theta = D.constrain(torch.tensor([-1e6, -40.0, 0.0, 40.0, 1e6]))
    assert theta.min() >= 0.1
    assert theta.max() <= 3.5
    assert torch.isfinite(D.unconstrain(torch.tensor([-1.0, 0.1, 1.0, 3.5, 9.0]))).all()


T2 = Parameter("T2", "T_2", "ms", 0.05, 5000.0, "relaxation time", log=True)


def test_on_a_log_scale_a_standard_normal_is_a_uniform_logarithm():
    # KS test of 20,000 draws, failure rate 1e-4 under other seeds
    torch.manual_seed(0)
    theta = T2.constrain(torch.randn(20_000))
    assert stats.kstest(theta.numpy(), stats.loguniform(0.05, 5000.0).cdf).pvalue > 1e-4
    assert torch.isfinite(T2.unconstrain(torch.tensor([-1.0, 0.0, 0.05, 80.0, 5000.0, 9e9]))).all()


@pytest.mark.parametrize("parameter", [D, T2])
@pytest.mark.parametrize("box", [None, (torch.tensor(0.2), torch.full((101,), 700.0))])
def test_share_slope_and_unconstrain_go_with_constrain(parameter, box):
    u = torch.linspace(-4, 4, 101).double().requires_grad_()
    box = None if box is None else tuple(edge.double() for edge in box)
    theta = parameter.constrain(u, box)
    torch.testing.assert_close(parameter.unconstrain(theta, box), u, atol=1e-9, rtol=0)
    torch.testing.assert_close(parameter.share(theta, box), torch.special.ndtr(u))
    torch.testing.assert_close(parameter.slope(u, box), torch.autograd.grad(theta.sum(), u)[0])
    outside = parameter.share(torch.tensor([-1.0, 0.01, 9e9]))
    assert (outside[:2] < 0).all()
    assert outside[2] > 1


def test_narrower_bounds_are_on_a_log_scale_where_they_span_two_decades():
    assert T2.within(1.0, 1000.0) == Parameter("T2", "T_2", "ms", 1.0, 1000.0, "relaxation time", log=True)
    assert not T2.within(40.0, 120.0).log
    assert not D.within(0.2, 3.0).log


def test_a_log_scale_from_zero_is_refused():
    with pytest.raises(TypeError, match="above zero"):
        Parameter("T2", "T_2", "ms", 0.0, 5000.0, "relaxation time", log=True)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_box_that_is_none_is_refused(bounds):
    with pytest.raises(TypeError, match="bounds"):
        Parameter("D", "D", "um2/ms", *bounds, "diffusivity")


def test_directions_are_unit_vectors():
    s = torch.cat([torch.randn(500, 2), 1e-5 * torch.randn(50, 2), 30 * torch.randn(50, 2), torch.zeros(1, 2)])
    norm = AXIS.constrain(s, a_frame(len(s))).norm(dim=-1)
    torch.testing.assert_close(norm, torch.ones_like(norm), atol=2e-6, rtol=0)


def test_directions_are_uniform_on_the_half_sphere_around_the_frame():
    # two KS tests of 20,000 draws, each with a failure rate of 1e-4 under other seeds
    torch.manual_seed(0)
    frame = a_frame(1)
    n = AXIS.constrain(torch.randn(20_000, 2), frame)
    along, across = (n @ frame[0, 0]).numpy(), (n @ frame[0, 1:].T).numpy()
    assert stats.kstest(along, stats.uniform(0, 1).cdf).pvalue > 1e-4
    azimuth = np.arctan2(across[:, 1], across[:, 0])
    assert stats.kstest(azimuth, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


def test_the_axis_does_not_depend_on_the_frame():
    # second moments of a uniform axis are I/3 in any frame; 40,000 draws, standard error below .0015
    torch.manual_seed(1)
    for seed in range(3):
        n = AXIS.constrain(torch.randn(40_000, 2), a_frame(1, seed))
        torch.testing.assert_close(n.T @ n / len(n), torch.eye(3) / 3, atol=0.01, rtol=0)


def test_the_edge_of_the_disc_is_the_antipode_of_the_opposite_edge():
    s = 8 * torch.nn.functional.normalize(torch.randn(20, 2), dim=-1)
    frame = a_frame(20)
    torch.testing.assert_close(AXIS.constrain(-s, frame), -AXIS.constrain(s, frame), atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius", [0.0, 1e-8, 9.9e-4, 1.1e-3, 1.0, 20.0])
def test_the_slope_is_finite_and_right(radius):
    s = (radius * torch.tensor([[0.6, 0.8]])).double().requires_grad_()
    frame = a_frame(1).double()
    jacobian = torch.autograd.functional.jacobian(lambda t: AXIS.constrain(t, frame), s)[0, :, 0]
    assert torch.isfinite(jacobian).all()
    step = 1e-6
    columns = [(AXIS.constrain(s + step * e, frame) - AXIS.constrain(s - step * e, frame))[0] for e in torch.eye(2)]
    torch.testing.assert_close(jacobian, torch.stack(columns, -1) / (2 * step), atol=2e-6, rtol=0)
    torch.testing.assert_close(AXIS.slopes(s.detach(), frame)[0].mT, jacobian, atol=1e-4, rtol=1e-6)
    if radius == 0:  # the tangent plane
        torch.testing.assert_close(jacobian, frame[0, 1:].mT)


def test_the_slope_at_zero_is_finite_in_float32():
    s = torch.zeros(1, 2, requires_grad=True)
    AXIS.constrain(s, a_frame(1)).sum().backward()
    assert torch.isfinite(s.grad).all()


def test_frames_are_orthonormal_and_right_handed():
    axes = torch.cat(
        [
            torch.randn(200, 3) * torch.logspace(-3, 3, 200)[:, None],
            torch.eye(3),
            -torch.eye(3),
            torch.tensor([[1e-4, 0.0, -1.0], [0.0, -1e-7, -1.0], [1.0, 1.0, 0.0], [1.0, 1.0, -0.0], [0.3, 0.2, -1e-9]]),
        ]
    )
    frame = frame_around(axes)
    identity = torch.eye(3).expand_as(frame)
    torch.testing.assert_close(frame @ frame.mT, identity, atol=3e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frame), torch.ones(len(axes)), atol=3e-6, rtol=0)
    torch.testing.assert_close(frame[:, 0], axes / axes.norm(dim=-1, keepdim=True), atol=1e-6, rtol=0)
