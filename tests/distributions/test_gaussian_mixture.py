"""The mixture of normals against torch's own."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.distributions.gaussian_mixture import nearly_alike


def a_mixture(batch=(3,), n_classes=4, n_latents=2, seed=0) -> GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*batch, n_classes, generator=generator)
    loc = 2 * torch.randn(*batch, n_classes, n_latents, generator=generator)
    tril = torch.randn(*batch, n_classes, n_latents, n_latents, generator=generator).tril(-1)
    diagonal = 0.3 + torch.rand(*batch, n_classes, n_latents, generator=generator)
    return GaussianMixture(logits, loc, 0.4 * tril + diagonal.diag_embed())


def torchs(q: GaussianMixture) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=q.logits), MultivariateNormal(q.loc, scale_tril=q.scale_tril))


@pytest.mark.parametrize("n_classes", [1, 4])
def test_log_prob_and_its_gradient_are_torchs(n_classes):
    q = a_mixture(n_classes=n_classes)
    value = torch.randn(5, 3, 2, requires_grad=True)
    ours, reference = q.log_prob(value), torchs(q).log_prob(value)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    weights = torch.randn(5, 3)
    gradients = [torch.autograd.grad((weights * f).sum(), value)[0] for f in (ours, reference)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_mean_and_variance_are_torchs():
    q = a_mixture()
    torch.testing.assert_close(q.mean, torchs(q).mean)
    torch.testing.assert_close(q.variance, torchs(q).variance)
    torch.testing.assert_close(q.probs.sum(-1), torch.ones(3))


@pytest.mark.parametrize("n_classes", [1, 4])
def test_samples_have_its_moments(n_classes):
    # 40,000 draws: standard errors of mean and variance are near .5 % and 1 %, and a tenth of that is not noise
    q = a_mixture(n_classes=n_classes)
    torch.manual_seed(0)
    draws = q.sample((40_000,))
    assert draws.shape == (40_000, 3, 2)
    torch.testing.assert_close(draws.mean(0), q.mean, rtol=0.04, atol=0.06)
    torch.testing.assert_close(draws.var(0), q.variance, rtol=0.06, atol=0.0)


@pytest.mark.parametrize("n_classes", [1, 4])
def test_transported_points_have_its_moments_and_its_covariance(n_classes):
    q = a_mixture(n_classes=n_classes)
    draws = q.transport(normal_points(8192, 2, seed=0))
    assert draws.shape == (8192, 3, 2)
    torch.testing.assert_close(draws.mean(0), q.mean, rtol=0.01, atol=0.01)
    torch.testing.assert_close(draws.var(0), q.variance, rtol=0.01, atol=0.0)
    within = q.scale_tril @ q.scale_tril.mT
    between = q.loc - q.mean.unsqueeze(-2)
    covariance = (q.probs[..., None, None] * (within + between.unsqueeze(-1) * between.unsqueeze(-2))).sum(-3)
    ours = torch.stack([torch.cov(draws[:, i].T) for i in range(3)])
    torch.testing.assert_close(ours, covariance, rtol=0.02, atol=0.02)


def test_transport_is_the_same_for_every_voxel_with_the_same_posterior():
    one = a_mixture(batch=(1,))
    draws = one.expand((5,)).transport(normal_points(64, 2, seed=0))
    torch.testing.assert_close(draws, draws[:, :1].expand(64, 5, 2))


def test_single_is_a_normal():
    loc, tril = torch.randn(3, 2), torch.tensor([[0.5, 0.0], [0.3, 0.7]]).expand(3, 2, 2)
    q, normal = GaussianMixture.single(loc, tril), MultivariateNormal(loc, scale_tril=tril)
    value = torch.randn(3, 2)
    torch.testing.assert_close(q.log_prob(value), normal.log_prob(value))
    torch.testing.assert_close(q.component_sd().squeeze(-2), normal.stddev)


def test_expand():
    q = a_mixture(batch=(1,)).expand((6, 3))
    assert (q.batch_shape, q.event_shape) == ((6, 3), (2,))
    assert q.sample((2,)).shape == (2, 6, 3, 2)
    value = torch.randn(6, 3, 2)
    torch.testing.assert_close(q.log_prob(value), torchs(q).log_prob(value), rtol=1e-5, atol=1e-5)


def test_one_heavy_class_takes_all_points():
    q = GaussianMixture(torch.tensor([-60.0, 0.0]), torch.tensor([[9.0], [1.0]]), torch.full((2, 1, 1), 0.1))
    assert q.transport(normal_points(512, 1, seed=1)).max() < 2
    assert q.sample((512,)).max() < 2


def test_normal_points_are_normal_and_repeat():
    points = normal_points(4096, 3, seed=5)
    assert points.shape == (4096, 4)
    assert torch.equal(points, normal_points(4096, 3, seed=5))
    assert not torch.equal(points, normal_points(4096, 3, seed=6))
    np.testing.assert_allclose(points[:, 1:].mean(0), 0, atol=5e-3)
    np.testing.assert_allclose(torch.cov(points[:, 1:].T), np.eye(3), atol=1e-2)
    assert points[:, 0].min() > 0
    assert points[:, 0].max() < 1


@pytest.mark.parametrize("n_classes", [1, 4])
def test_marginal_quantiles_are_those_of_the_distribution_function(n_classes):
    q = a_mixture(n_classes=n_classes)
    for level in (0.02, 0.5, 0.95):
        at = q.marginal_quantile(level)
        assert at.shape == (3, 2)
        below = torch.special.ndtr((at.unsqueeze(-2) - q.loc) / q.component_sd())
        torch.testing.assert_close((q.probs.unsqueeze(-1) * below).sum(-2), torch.full((3, 2), level))


@pytest.mark.parametrize(
    ("value", "batch"), [((2,), (3,)), ((5, 1, 3, 2), (4, 3)), ((5, 4, 3, 2), (4, 3)), ((7, 2), ())]
)
def test_log_prob_takes_values_of_any_shape(value, batch):
    q = a_mixture(batch)
    x = torch.randn(value)
    torch.testing.assert_close(q.log_prob(x), torchs(q).log_prob(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("spread", "alike"), [(0.05, True), (3.0, False)])
def test_many_classes_that_are_nearly_the_same_have_torchs_density(spread, alike):
    g = torch.Generator().manual_seed(1)
    n, n_classes = 5, 32
    own = 0.3 * torch.randn(n, n, generator=g).tril(-1) + (0.2 + torch.rand(n, generator=g)).diag()
    tril = own @ (torch.eye(n) + spread * torch.randn(n_classes, n, n, generator=g).tril())
    tril = tril * torch.sign(tril.diagonal(dim1=-2, dim2=-1)).unsqueeze(-2)
    loc = torch.randn(n, generator=g) + spread * torch.randn(n_classes, n, generator=g)
    q = GaussianMixture(torch.randn(n_classes, generator=g), loc, tril)
    value = loc[0] + 8 * (torch.randn(40, 3, n, generator=g) @ own.mT)
    assert (nearly_alike(q.logits, q.loc, q.scale_tril, value) is not None) == alike
    reference = MixtureSameFamily(
        Categorical(logits=q.logits.double()), MultivariateNormal(loc.double(), scale_tril=tril.double())
    ).log_prob(value.double())
    with torch.no_grad():
        found = q.log_prob(value)
    assert found.shape == (40, 3)
    torch.testing.assert_close(found.double(), reference, rtol=2e-5, atol=2e-3)
