"""The apparent diffusion coefficient: what is known on paper, and the mean diffusivity of a tensor."""

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.signals import ADC
from tests.helpers import rician, shells


def test_two_b_values_give_the_ratio_of_their_logarithms():
    y = torch.tensor([[100.0, 40.0], [200.0, 150.0]])
    fit = pq.fit(y, pq.Acquisition(bval=[0.0, 0.8]), signal="adc", recipe="least_squares", sigma=1.0)
    torch.testing.assert_close(fit.posterior(y).mean["D"], (y[:, 0] / y[:, 1]).log() / 0.8)


def test_directions_are_averaged_to_the_mean_diffusivity_of_weak_anisotropy():
    acq = shells(2, 60, 0.2)
    tensor = np.diag([1.0, 0.7, 0.5])
    y = torch.from_numpy(np.exp(-acq.bval.numpy() * np.einsum("mi,ij,mj->m", acq.bvec, tensor, acq.bvec))[None]).float()
    fit = pq.fit(y.expand(3, -1), acq, signal="adc", recipe="least_squares", sigma=0.01)
    # the second order in b takes off b Var(g'Dg) / 2, which is 0.2 * 0.017 / 2
    assert abs(float(fit.posterior(y).mean["D"]) - 2.2 / 3) < 0.003


def test_the_error_is_that_of_the_fisher_information():
    acq = pq.Acquisition(bval=[0.0] * 20 + [1.0] * 20)
    y = rician(ADC.signal(acq, torch.full((2000, 1), 0.8)), 0.05)
    post = pq.fit(y, acq, signal="adc", recipe="maximum_likelihood", sigma=0.05).posterior(y)
    off = post.mean["D"] - 0.8
    # the sd of 2,000 errors is known to 1.6 %, and the sd of D is sigma sqrt(1 + e^(2 D)) / sqrt(20)
    assert abs(float(off.std()) / (0.05 * np.sqrt((1 + np.exp(1.6)) / 20)) - 1) < 0.08
    assert abs(float((off / post.sd["D"]).std()) - 1) < 0.08
