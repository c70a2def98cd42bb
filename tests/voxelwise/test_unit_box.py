"""How signals change over the unit box: formulas against autograd and against differences."""

import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.signals import DTI, IVIM, BallStick, BoundSignal, T2Decay
from pyroqmri.voxelwise.unit_box import Point, UnitBox
from tests.helpers import shells

CASES = {
    "formula": (IVIM, {}),
    "formula, S0 free": (IVIM, {"infer_s0": True}),
    "formula, one fixed, narrow range": (IVIM, {"fixed": {"D_fast": 20.0}, "ranges": {"f": (0.1, 0.4)}}),
    "formula, axis": (BallStick, {}),
    "formula, axis, one tied, S0 free": (BallStick, {"tied": {"D_iso": "D_par"}, "infer_s0": True}),
    "differences": (T2Decay, {"infer_s0": True}),
    "differences, bounds that depend": (DTI, {}),
}


def boxed(case, dtype, n=7):
    """A box, and points in both of its halves."""
    model, settings = CASES[case]
    box = UnitBox(BoundSignal(model, protocol(model), **settings)).to(dtype)
    g = torch.Generator().manual_seed(0)
    tissue = 0.1 + 0.8 * torch.rand(box.n_tissue, n, generator=g, dtype=torch.float64)
    axis = torch.nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=-1)
    return box, Point(tissue, None if box.signal.direction is None else axis).to(dtype)


def protocol(model):
    if model is T2Decay:
        return Acquisition(te=torch.arange(1, 9) * 12.0)
    return shells(3, 15, 0.5, 1.0, 2.5)


def moved(box, point):
    """The signal ``(M,)`` of a single point as a function of a step ``(L,)``."""

    def signal(step):
        one = Point(point.tissue + step[: box.n_tissue, None], point.axis)
        if point.axis is not None:
            step = torch.cat([torch.zeros(box.n_tissue, dtype=step.dtype), step[box.n_tissue :]])
            one = Point(one.tissue, box.around(point, step[None]).axis[0])
        return box.signal(box.theta(one))[0]

    return signal


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-4), (torch.float32, 1e-2)])
def test_slopes_are_autograds(case, dtype, error):
    box, points = boxed(case, dtype)
    signal, slope = box.signal_slopes(points, {})
    torch.testing.assert_close(signal, box.signal(box.theta(points)))
    exact_box, exact_points = boxed(case, torch.float64)
    for i in range(len(points)):
        at = exact_points[torch.tensor([i])]
        exact = torch.autograd.functional.jacobian(moved(exact_box, at), torch.zeros(box.n_latents).double())
        assert (slope[:, i] - exact.mT).abs().max() < error * (1 + exact.abs().max())
    assert box.signal.has_slopes == case.startswith("formula")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-3), (torch.float32, 0.15)])
def test_bends_are_autograds(case, dtype, error):
    box, points = boxed(case, dtype)
    weights = torch.linspace(0.5, 1.5, len(box.signal.acquisition), dtype=dtype).expand(len(points), -1)
    gradient = (box.signal_slopes(points, {})[1] * weights).sum(-1)
    found = box.bends(points, {}, weights, gradient)
    exact_box, exact_points = boxed(case, torch.float64)
    for i in range(len(points)):
        signal = moved(exact_box, exact_points[torch.tensor([i])])
        weight = weights[i].double()
        exact = torch.autograd.functional.hessian(
            lambda step, s=signal, w=weight: (s(step) * w).sum(), torch.zeros(box.n_latents).double()
        )
        assert (found[:, :, i] - exact).abs().max() < error * (1 + exact.abs().max())
