"""Measurements that share an error of scale are drawn at any size of it."""

import pytest
import torch

from pyroqmri.distributions.rician import Rician
from pyroqmri.distributions.shared_scale import SharedScale


def shared(sd):
    signal = torch.tensor([1.0, 0.6, 0.2])
    return SharedScale(lambda factor: Rician(signal * factor, torch.tensor(0.01)).to_event(1), lambda y: y.sum(-1),
                       torch.tensor(sd), torch.Size(), 3)  # fmt: skip


def test_draws_share_their_scale():
    torch.manual_seed(0)
    draws = shared(0.1).sample((20_000,))
    torch.testing.assert_close(draws.mean(0), torch.tensor([1.0, 0.6, 0.2]), atol=0.005, rtol=0)  # 7 sd of the mean
    assert float(torch.corrcoef(draws.T)[0, 1]) > 0.97
    assert float(draws[:, 0].std()) == pytest.approx((0.1**2 + 0.01**2) ** 0.5, rel=0.03)


def test_a_level_that_is_all_noise_still_has_draws():
    torch.manual_seed(0)
    draws = shared(2.0).sample((1000,))
    assert torch.isfinite(draws).all()
    assert (draws >= 0).all()
