"""Repeats carried by Gauss nodes say what the repeats say."""

import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.laplace.start import Shortening, mode_under_prior
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.repeats import columns, compress, gauss_nodes, repeats, worth_it
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import StandardNormal
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import rician, shells, tissue

ACQ, RICIAN = shells(0, 60, 1.0, 2.0), RicianLikelihood()


def some_voxels(sigma: float = 0.1, n: int = 30) -> tuple[Voxels, BoundSignal]:
    signal = BoundSignal(MSDKI, ACQ)
    return Voxels(rician(signal(tissue(n)), sigma), torch.full((n, 1), sigma)), signal


def test_repeats_are_measurements_at_one_setting_in_any_order():
    acq = Acquisition(bval=[0.0, 2.0, 1.0, 2.0, 0.0], te=[80.0, 80.0, 80.0, 90.0, 80.0])
    assert [g.tolist() for g in repeats(acq)] == [[0, 4], [1], [2], [3]]
    assert [g.tolist() for g in repeats(shells(1, 2, 1.0))] == [[0], [1, 2]]


def test_it_is_worth_it_where_nodes_are_few():
    assert worth_it(repeats(ACQ))
    assert not worth_it(repeats(shells(1, 6, 1.0)))
    assert columns(repeats(shells(2, 6, 1.0))).tolist() == [0, 0, 2, 2, 2, 2]


def test_nodes_carry_the_first_eight_moments():
    x = torch.rand(10, 60, dtype=torch.float64)
    node, weight = gauss_nodes(x)
    assert node.shape == weight.shape == (10, 4)
    for power in range(8):
        torch.testing.assert_close((weight * node**power).sum(-1), (x**power).sum(-1), rtol=1e-9, atol=0)
    assert (weight >= 0).all()
    assert (node >= x.amin(-1, keepdim=True)).all()
    assert (node <= x.amax(-1, keepdim=True)).all()


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_fewer_distinct_values_than_nodes(distinct):
    x = torch.arange(distinct).repeat(20)[None].float() + 0.5
    node, weight = gauss_nodes(x)
    assert torch.isfinite(node).all()
    for power in range(4):
        torch.testing.assert_close((weight * node**power).sum(-1), (x**power).sum(-1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), RICIAN])
def test_log_likelihood_ratios_are_those_of_the_repeats(likelihood, sigma):
    # ratios: the Rician density's log x, which the nodes miss near zero, is the same for all parameters
    voxels, signal = some_voxels(sigma)
    groups = repeats(ACQ)
    short, few = compress(voxels, groups).map(torch.Tensor.double), signal.at(columns(groups))
    assert short.y.shape == (30, 8)

    def both(theta):
        at_nodes = likelihood.information(few(theta).double(), short.y, short.sigma).log_prob
        at_all = likelihood.information(signal(theta).double(), voxels.y.double(), short.sigma).log_prob
        return (short.weights * at_nodes).sum(-1), at_all.sum(-1)

    (ours, whole), (ours_then, whole_then) = both(tissue(30, seed=5)), both(tissue(30, seed=6))
    ratio = whole - whole_then
    # exact for the Gaussian; a Rician log I0 is no polynomial, and .2 nats of 120 measurements move no mode
    torch.testing.assert_close(ours - ours_then, ratio, rtol=1e-4, atol=0.2 if likelihood is RICIAN else 1e-3)
    assert ratio.abs().median() > 1


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_modes_are_those_of_the_repeats(sigma):
    voxels, signal = some_voxels(sigma)
    short = Shortening(signal, averaged=False)
    assert short.active
    likelihood, weak = RicianLikelihood(), torch.eye(2)
    ours, _ = mode_under_prior(short(voxels), short.signal, likelihood, weak, 30)
    whole, _ = mode_under_prior(voxels, signal, likelihood, weak, 30)
    sd = whole.scale_tril.square().sum(-1).sqrt()
    assert ((ours.z - whole.z).abs() < 0.05 * sd).all()
    torch.testing.assert_close(ours.scale_tril, whole.scale_tril, rtol=0.02, atol=1e-3 * float(sd.max()))


def test_voxels_keep_their_short_selves_through_selection():
    voxels, _ = some_voxels()
    short = compress(voxels, repeats(ACQ))
    both = Voxels(voxels.y, voxels.sigma, short=short)
    picked = both[torch.tensor([4, 2])]
    torch.testing.assert_close(picked.short.y, short.y[[4, 2]])
    torch.testing.assert_close(picked.short.weights, short.weights[[4, 2]])


@pytest.mark.parametrize("bvec", [True, False])
def test_means_are_not_compressed_again(bvec):
    signal = BoundSignal(MSDKI, shells(0, 60, 1.0, bvec=bvec))
    assert not Shortening(signal, averaged=True).active
    assert Shortening(signal, averaged=False).active


@pytest.mark.parametrize(("n_s0", "error"), [(None, 1e-4), (4, 2e-2)])
def test_a_residual_sum_of_squares_is_that_of_all_measurements(n_s0, error):
    voxels, signal = some_voxels()
    model = VoxelModel(signal, StandardNormal(2), IdentityDecoder(2), RicianLikelihood(n_s0=n_s0))
    z = torch.randn(5, 30, 2, generator=torch.Generator().manual_seed(1))
    few = model.prepare(voxels)
    assert few.short is not None
    assert few.short.y.shape[1] < voxels.y.shape[1] / 4
    # the error of S0 is found from the nodes too, whose score is no polynomial: so close it has to come
    torch.testing.assert_close(model.discrepancy(z, few), model.discrepancy(z, voxels), rtol=error, atol=0)
