"""One normal a voxel: against posteriors that are known, for voxels it was trained on and others."""

import pytest
import torch

from pyroqmri.decoders import IdentityDecoder, NetworkDecoder
from pyroqmri.errors import InputError
from pyroqmri.guides import Free
from pyroqmri.guides.free import balanced_points
from pyroqmri.likelihoods import RicianLikelihood
from pyroqmri.priors import Hierarchical, RelaxedMixture, StandardNormal
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.svi import Training, fit_svi
from pyroqmri.voxel_model import VoxelModel
from tests.helpers import msdki_data, quadratic_data, quadratic_model, quadratic_posterior
from tests.svi.test_closed_form import COVARIANCE, LOC, error, marginal_mode


def trained(model, y, seed=0, **settings):
    guide = Free(model, y.shape[1])
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    numbered = guide.training_set(voxels)
    fit_svi(model, guide, numbered, Training(held_out=0, **settings), seed=seed)
    return guide, numbered


def moments(q):
    tril = q.scale_tril.squeeze(-3).detach()
    return q.loc.squeeze(-2).detach(), tril @ tril.mT


def test_training_and_prediction_find_the_population_and_the_posterior_of_the_closed_form():
    # 1,000 voxels, each visited 500 times: one draw a visit leaves their own normals 3 % off
    y = quadratic_data(1000, loc=LOC, tril=torch.linalg.cholesky(COVARIANCE))
    prior = Hierarchical(3)
    model = quadratic_model(prior)
    guide, numbered = trained(model, y, steps=500, batch_size=1000, lr=2e-2)
    best_loc, best_covariance = marginal_mode(y)
    _, loc, tril = prior.classes()
    assert error(loc[0].detach(), best_loc) < 0.03
    assert error((tril[0] @ tril[0].mT).detach(), best_covariance) < 0.08
    exact_loc, exact_covariance = quadratic_posterior(y, best_loc, best_covariance)
    found, covariance = moments(guide.z_dist(numbered))
    assert error(found, exact_loc) < 0.05
    assert error(covariance, exact_covariance) < 0.15
    # anew, at the population that was learned: exact but for the optimiser's last steps
    learned = quadratic_posterior(y, loc[0].detach(), (tril[0] @ tril[0].mT).detach())
    found, covariance = moments(guide.z_dist(guide.prepare(y)))
    assert error(found, learned[0]) < 0.005
    assert error(covariance, learned[1]) < 0.02


def test_voxels_that_it_was_not_trained_on_have_their_posterior():
    model = quadratic_model()
    guide, _ = trained(model, quadratic_data(50), steps=5, batch_size=50)
    y = quadratic_data(50, seed=9)  # as many as were trained on, and others
    found, covariance = moments(guide.z_dist(guide.prepare(y)))
    exact_loc, exact_covariance = quadratic_posterior(y)
    assert error(found, exact_loc) < 0.005
    assert error(covariance, exact_covariance) < 0.02


def test_training_voxels_need_their_number():
    model = quadratic_model()
    guide, numbered = trained(model, quadratic_data(50), steps=5, batch_size=50)
    with pytest.raises(InputError, match=r"guide\.training_set"):
        guide(quadratic_data(50))
    guide(numbered[10:20])


def test_prediction_improves_on_the_laplace_approximation_under_rician_noise():
    y, acq = msdki_data(40, sigma=0.1)
    keep = torch.nonzero(acq.bval > 0).squeeze(-1)
    signal = BoundSignal(MSDKI, acq[keep])
    model = VoxelModel(signal, StandardNormal(2), IdentityDecoder(2), RicianLikelihood(), 0.1)
    bounds = []
    for steps in (0, 120):
        guide = Free(model, len(keep), steps=steps)
        voxels = guide.prepare(y[:, keep])
        q = guide.z_dist(voxels)
        torch.manual_seed(0)
        z = q.sample((2000,))
        prior = torch.distributions.Normal(0, 1).log_prob(z).sum(-1)
        bounds.append((model.y_dist(z, voxels).log_prob(voxels.y) + prior - q.log_prob(z)).mean(0))
    gain = bounds[1] - bounds[0]
    assert gain.mean() > 0.01
    # 2,000 draws of a difference near zero: no voxel loses more than its Monte Carlo error
    assert gain.min() > -0.05


def test_what_makes_no_sense_is_refused():
    signal = quadratic_model().signal
    with pytest.raises(InputError, match="identity decoder"):
        Free(VoxelModel(signal, StandardNormal(3), NetworkDecoder(3), RicianLikelihood()), 8)
    with pytest.raises(InputError, match="no relaxed component"):
        Free(quadratic_model(RelaxedMixture(3)), 8)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_balanced_points_have_the_moments_of_a_standard_normal(n):
    points = balanced_points(32, n)
    torch.testing.assert_close(points.mean(0), torch.zeros(n), atol=1e-5, rtol=0)
    torch.testing.assert_close(points.mT @ points / len(points), torch.eye(n), atol=1e-4, rtol=0)
