"""Normal measurements of a voxel as one event."""

import pytest
import torch
from torch.distributions import Independent, Normal

from pyroqmri.distributions import MeasuredNormal


@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (3,), (1,)])
def test_it_is_independent_normals(shape):
    loc, scale, y = torch.randn(5, 4, 3), torch.rand(shape) + 0.1, torch.randn(5, 4, 3)
    ours, reference = MeasuredNormal(loc, scale), Independent(Normal(loc, scale), 1)
    assert (ours.batch_shape, ours.event_shape) == (reference.batch_shape, reference.event_shape)
    torch.testing.assert_close(ours.log_prob(y), reference.log_prob(y))
    torch.testing.assert_close(ours.mean, reference.mean)
    torch.testing.assert_close(ours.variance, reference.variance)


def test_samples_and_expand():
    # 20,000 draws: standard errors .7 % of the scale
    scale = torch.tensor([[0.5], [2.0]])
    wide = MeasuredNormal(torch.randn(2, 3), scale).expand((4, 2))
    draws = wide.sample((20_000,))
    assert draws.shape == (20_000, 4, 2, 3)
    torch.testing.assert_close(draws.std(0), scale.expand(4, 2, 3), rtol=0.04, atol=0)
    assert wide.log_prob(draws[0]).shape == (4, 2)
