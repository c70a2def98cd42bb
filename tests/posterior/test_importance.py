"""Weights are used where both their Pareto shape and their efficiency allow it, and nowhere else."""

import pytest
import torch

from pyroqmri.distributions import GaussianMixture
from pyroqmri.posterior.importance import Reweighted, Reweighting

TRUTH = torch.tensor([0.3, 6.0])  # the guide is a standard normal: near the one, far from the other


def log_joint(z, which):
    return -(z - TRUTH[which].unsqueeze(-1)).square().sum(-1) / 2


def weighted(**settings):
    q = GaussianMixture.single(torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2))
    return Reweighted(q, log_joint, Reweighting(draws=1000, reweight=True, **settings))


@pytest.mark.parametrize("settings", [{"min_efficiency": 0.0}, {"max_khat": 99.0}], ids=["shape", "efficiency"])
def test_either_alone_leaves_a_far_voxel_as_the_guide_has_it(settings):
    found = weighted(**settings)
    assert found.khat[0] < 0.7 < found.khat[1]
    assert found.corrected.tolist() == [True, False]
    mean = found.transport(torch.randn(1000, 2, 2, generator=torch.Generator().manual_seed(0))).mean(0)
    torch.testing.assert_close(mean[0], TRUTH[[0, 0]], atol=0.05, rtol=0)
    torch.testing.assert_close(mean[1], torch.zeros(2), atol=0.15, rtol=0)


def test_with_neither_the_far_voxel_moves():
    found = weighted(min_efficiency=0.0, max_khat=99.0)
    assert found.corrected.all()
    assert (found.transport(torch.zeros(1000, 2, 2)).mean(0)[1] > 3).all()
