"""Weighted regression of the logarithm: a mean of several measurements counts as often as there are."""

import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.voxelwise.log_linear import weighted_fit


def test_an_entry_that_counts_three_times_is_three_equal_ones():
    bval, counts = torch.tensor([0.5, 1.0, 2.0, 2.5]), torch.tensor([1, 3, 1, 2])
    y = torch.exp(-bval) * (1 + 0.1 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))
    once = BoundSignal(MSDKI, Acquisition(bval=bval))
    often = BoundSignal(MSDKI, Acquisition(bval=bval.repeat_interleave(counts)))
    found = weighted_fit(once, Voxels(y), counts.float())
    expected = weighted_fit(often, Voxels(y.repeat_interleave(counts, 1)), None)
    plain = weighted_fit(once, Voxels(y), None)
    for name in ("D", "K"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    assert (found["D"] - plain["D"]).abs().max() > 0.01
