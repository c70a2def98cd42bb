"""IVIM against dipy's, and at its ends."""

import numpy as np
import torch

from pyroqmri import Acquisition
from pyroqmri.signals import IVIM, BoundSignal

BVAL = torch.tensor([0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])


def test_it_is_dipys():
    from dipy.core.gradients import gradient_table
    from dipy.reconst.ivim import ivim_prediction

    bvecs = np.tile([1.0, 0, 0], (len(BVAL), 1))
    table = gradient_table(1000 * BVAL.numpy(), bvecs=bvecs, b0_threshold=0)
    f, fast, slow = 0.12, 30.0, 0.9
    theta = {"f": torch.tensor([f]), "D_fast": torch.tensor([fast]), "D_slow": torch.tensor([slow])}
    # dipy's D* decays alone, ours decays with the tissue's diffusion on top
    expected = ivim_prediction([1.0, f, (fast + slow) / 1000, slow / 1000], table)
    np.testing.assert_allclose(BoundSignal(IVIM, Acquisition(bval=BVAL))(theta)[0], expected, rtol=1e-5)


def test_without_perfusion_it_is_one_exponential():
    theta = {"f": torch.zeros(1), "D_fast": torch.full((1,), 50.0), "D_slow": torch.full((1,), 1.1)}
    torch.testing.assert_close(BoundSignal(IVIM, Acquisition(bval=BVAL))(theta)[0], torch.exp(-1.1 * BVAL))
