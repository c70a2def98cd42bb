"""Blocks of voxels, against the same in numpy."""

import numpy as np
import torch

from pyroqmri import Acquisition
from pyroqmri.measurements.blocks import pick
from pyroqmri.measurements.preparation import Preparation
from tests.helpers import rician, shells

SIGMA = 5.0


def scan(n: int) -> tuple[Acquisition, torch.Tensor]:
    """Voxels in several blocks, of a protocol whose volumes are mixed."""
    acq = shells(5, 20, 1.0, 2.0)[torch.randperm(45, generator=torch.Generator().manual_seed(0))]
    assert acq.bval is not None
    y = rician(torch.linspace(100, 900, n)[:, None] * torch.exp(-0.8 * acq.bval), SIGMA)
    y[7, 3], y[6000, 1], y[11], y[5000, 2] = torch.nan, torch.inf, 0.0, -30.0
    return acq, y


def test_means_and_reference_are_numpys_in_every_block():
    acq, y = scan(6500)
    batch = Preparation("measured", 1.0, True, True)(y, torch.tensor(SIGMA), acq)
    b, raw = acq.bval.numpy(), np.maximum(y.double().numpy(), 0)
    fine = np.isfinite(raw).all(1) & (raw.max(1) > 0)
    s0 = np.sqrt(((raw[:, b == 0] ** 2).mean(1) - 2 * SIGMA**2).clip(1e-9))  # the second moment less that of noise
    means = np.stack([raw[:, np.isclose(b, value)].mean(1) for value in (1.0, 2.0)], 1)
    assert batch.index.tolist() == np.flatnonzero(fine).tolist()
    np.testing.assert_allclose(batch.reference, s0[fine], rtol=1e-5)
    np.testing.assert_allclose(batch.voxels.y, (means / s0[:, None])[fine], rtol=1e-5)
    assert batch.status[[7, 6000, 11, 5000, 0]].tolist() == [2, 2, 3, 4, 1]


def test_single_measurements_keep_their_order():
    acq, y = scan(6500)
    batch = Preparation("inferred", 50.0, False, True)(y, torch.tensor(SIGMA), acq)
    np.testing.assert_allclose(batch.voxels.y, y[batch.index].clamp_min(0) / 50, atol=1e-6)


def test_the_noise_alone_is_that_of_the_batch():
    acq, y = scan(6500)
    level = torch.linspace(2, 8, len(y))
    level[40] = torch.nan
    preparation = Preparation("measured", 1.0, True, True)
    torch.testing.assert_close(preparation.noise(y, level, acq), preparation(y, level, acq).voxels.noise)


def test_a_power_of_two_changes_nothing():
    acq, y = scan(6500)
    preparation = Preparation("measured", 1.0, True, True)
    for factor in (2.0**-90, 2.0**80):
        other = preparation(y * factor, torch.tensor(SIGMA * factor), acq).voxels
        found = preparation(y, torch.tensor(SIGMA), acq).voxels
        torch.testing.assert_close(other.y, found.y)


def test_picked_columns_are_those_asked_for():
    y = torch.arange(20.0).reshape(4, 5)
    for columns in ([1, 2, 3], [0, 3], [4], []):
        index = torch.tensor(columns, dtype=torch.long)
        torch.testing.assert_close(pick(y, index), y[:, index])
