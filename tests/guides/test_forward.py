"""Guides trained by forward KL: against posteriors that are known, and what they refuse."""

import pytest
import torch

from pyroqmri.decoders import IdentityDecoder, NetworkDecoder
from pyroqmri.errors import InputError
from pyroqmri.guides import ForwardGaussian, ForwardMixture
from pyroqmri.guides.forward import axis_coordinates
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import Direction, frame_around
from pyroqmri.priors import Hierarchical, StandardNormal
from pyroqmri.signals import BallStick, BoundSignal
from pyroqmri.svi import Training, fit_svi, seeded
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import SIGMA, quadratic_data, quadratic_model, quadratic_posterior, quadratic_signal, rician, shells
from tests.svi.test_closed_form import error

FORWARD = pytest.mark.parametrize("kind", [ForwardGaussian, ForwardMixture])


def trained(kind, model, voxels, steps=400, **settings):
    guide = kind(model, voxels.y.shape[1], **settings)
    voxels = guide.prepare(voxels)
    with seeded(0, voxels.y):
        lessons = guide.training_set(voxels)
    fit_svi(model, guide, lessons, Training(steps=steps, batch_size=512), seed=0)
    return guide


@FORWARD
def test_the_posterior_is_the_closed_form_though_no_measurement_was_seen(kind):
    model = quadratic_model()
    # the noise level and the number of measurements are all that it takes from these
    guide = trained(kind, model, Voxels(torch.zeros(20, 8) + torch.arange(8)), simulations=10_000)
    y = quadratic_data(500, seed=9)
    q = guide.z_dist(guide.prepare(y))
    exact_loc, exact_covariance = quadratic_posterior(y)
    assert error(q.mean.detach(), exact_loc) < 0.03
    assert error(q.variance.detach(), exact_covariance.diagonal()) < 0.06


def test_noise_levels_of_the_voxels_are_amortised():
    # levels from .5 to 2 times; the exact sds differ by up to 3
    model = quadratic_model()
    generator = torch.Generator().manual_seed(0)
    sigma = SIGMA * (torch.rand(300, 1, generator=generator) * 4).log2().clamp(-1, 1).exp2()
    guide = trained(ForwardGaussian, model, Voxels(quadratic_data(300), sigma), simulations=20_000)
    y, low, high = quadratic_data(100, seed=3), SIGMA / 2, 2 * SIGMA
    for level in (low, high):
        q = guide.z_dist(guide.prepare(Voxels(y, torch.full((100, 1), level))))
        design = quadratic_signal()({k: v for k, v in zip("abc", torch.eye(3), strict=True)}).mT
        exact = torch.linalg.inv(design.mT @ design / level**2 + torch.eye(3))
        assert error(q.variance.detach(), exact.diagonal()) < 0.08


def test_simulations_come_with_their_truth_in_the_frame_of_their_mode():
    signal = BoundSignal(BallStick, shells(0, 20, 1.0, 2.0))
    model = VoxelModel(signal, StandardNormal(3, 2), IdentityDecoder(3, 2), RicianLikelihood(), 0.001)
    guide = ForwardMixture(model, 40, simulations=64)
    theta = {"f": 0.5, "D_par": 1.5, "D_iso": 0.8}
    axes = torch.nn.functional.normalize(torch.randn(64, 3), dim=-1)
    y = rician(signal({k: torch.full((64,), v) for k, v in theta.items()} | {"n": axes}), 0.001)
    lessons = guide.training_set(guide.prepare(y))
    again = model.simulate(lessons.truth, lessons)
    # a thousandth of noise: what the truth gives in the mode's frame is what was simulated in another
    assert (again - lessons.y).abs().max() < 0.01
    assert lessons.truth[:, 3:].norm(dim=-1).median() < 0.2


def test_coordinates_of_an_axis_are_the_inverse_of_its_direction():
    generator = torch.Generator().manual_seed(0)
    s = 1.2 * torch.randn(200, 2, generator=generator)
    s[:3] = torch.tensor([[0.0, 0.0], [1e-4, -1e-4], [0.01, 0.02]])
    frame = frame_around(torch.randn(200, 3, generator=generator))
    axis = Direction("n", "n", "axis").constrain(s, frame)
    # at 90 degrees to the frame's axis, where s has no end, float32 knows it to a percent
    torch.testing.assert_close(axis_coordinates(axis, frame), s, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(axis_coordinates(-axis, frame), s, rtol=1e-2, atol=1e-3)


@FORWARD
def test_what_makes_no_sense_is_refused(kind):
    signal = quadratic_signal()
    with pytest.raises(InputError, match="carry no information on a population"):
        kind(quadratic_model(Hierarchical(3)), 8)
    with pytest.raises(InputError, match="carry no information on a population"):
        kind(VoxelModel(signal, StandardNormal(3), IdentityDecoder(3), GaussianLikelihood(learn=True)), 8)
    with pytest.raises(InputError, match="identity decoder"):
        kind(VoxelModel(signal, StandardNormal(3), NetworkDecoder(3), GaussianLikelihood()), 8)
