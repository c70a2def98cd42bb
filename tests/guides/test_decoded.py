"""Laplace modes through a network decoder: exact where signal and decoder are linear."""

import pyro
import pytest
import torch

from pyroqmri.decoders import NetworkDecoder
from pyroqmri.errors import InputError
from pyroqmri.guides import RelaxedDecoded, Structured, StructuredDecoded
from pyroqmri.guides.decoded import normal_population
from pyroqmri.likelihoods import GaussianLikelihood
from pyroqmri.priors import Mixture, RelaxedMixture, StandardNormal
from pyroqmri.svi import Training, fit_svi
from pyroqmri.voxel_model import VoxelModel
from tests.guides.test_structured import LOC, SD, exact, exact_evidence, known_mixture, two_classes
from tests.helpers import SIGMA, quadratic_data, quadratic_model, quadratic_posterior, quadratic_signal

CENTRE = torch.tensor([0.4, -0.3, 0.2])
FACTOR = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.1, 0.3]])


def decoded(prior, latents: int | None = None) -> VoxelModel:
    decoder = NetworkDecoder(3, latents=latents, width=8)
    return VoxelModel(quadratic_signal(), prior, decoder, GaussianLikelihood(), SIGMA)


def test_with_a_linear_decoder_it_is_the_exact_posterior():
    y = quadratic_data(100, 0, CENTRE, FACTOR)
    model = decoded(StandardNormal(3))
    model.decoder.centre(CENTRE, FACTOR @ FACTOR.mT)
    guide = exact(StructuredDecoded(model, 8))
    q = guide.z_dist(guide.prepare(y))
    loc, covariance = quadratic_posterior(y, CENTRE, FACTOR @ FACTOR.mT)
    weight = model.decoder.linear.weight.detach()
    torch.testing.assert_close(model.decoder(q.loc[:, 0]), loc, atol=3e-3, rtol=0)
    found = weight @ q.scale_tril[:, 0] @ q.scale_tril[:, 0].mT @ weight.mT
    torch.testing.assert_close(found, covariance.expand(100, 3, 3), atol=1e-4, rtol=1e-2)


def test_classes_have_their_exact_evidence():
    y = two_classes(100)
    guide = exact(StructuredDecoded(decoded(known_mixture()), 8))
    q = guide.z_dist(guide.prepare(y))
    torch.testing.assert_close(q.probs, exact_evidence(y).softmax(-1), atol=2e-3, rtol=0)


def test_modes_follow_a_decoder_that_moved():
    torch.manual_seed(0)
    model, y = decoded(known_mixture()), two_classes(200)
    with torch.no_grad():  # as far from the identity as training may take it
        model.decoder.linear.weight.copy_(torch.tensor([[0.0, 2.0, 0.0], [1.5, 0.0, 0.0], [0.0, 0.3, -1.0]]))
        model.decoder.linear.bias.copy_(torch.tensor([1.0, -1.0, 0.5]))
    lost, follows = exact(Structured(model, 8)), exact(StructuredDecoded(model, 8))
    voxels = follows.prepare(y)
    population = model.prior.classes()
    reached = [g.laplace(voxels, population, 0)[0].objective for g in (lost, follows)]
    settled = follows.laplace(voxels, population, 20)[0].objective
    # a linear decoder and signal: the start is the mode already
    torch.testing.assert_close(reached[1], settled, atol=0.05, rtol=0)
    assert (settled - reached[0]).median() > 1


def test_the_population_of_a_linear_signal_is_found():
    y = quadratic_data(2000, 0, CENTRE, FACTOR)
    voxels = quadratic_model().prepare(y, mode=True)
    loc, covariance = normal_population(voxels, 3)
    # sampling error of 2,000 voxels: .011 for a mean of sd .5, .008 for a variance of .25; five of each
    torch.testing.assert_close(loc, CENTRE, atol=0.06, rtol=0)
    torch.testing.assert_close(covariance, FACTOR @ FACTOR.mT, atol=0.04, rtol=0)


@pytest.mark.parametrize("latents", [1, 2, 3, 5])
def test_a_decoder_starts_at_the_population_whatever_its_latents(latents):
    decoder = NetworkDecoder(3, latents=latents)
    covariance = FACTOR @ FACTOR.mT
    decoder.centre(CENTRE, covariance)
    torch.testing.assert_close(decoder(torch.zeros(1, latents))[0], CENTRE)
    made = decoder.linear.weight @ decoder.linear.weight.mT
    lost = torch.linalg.eigvalsh(covariance).flip(0)[latents:].sum()
    torch.testing.assert_close(torch.trace(covariance - made), lost, atol=1e-5, rtol=0)


@pytest.mark.parametrize("latents", [2, 3, 4])
@pytest.mark.parametrize(
    ("prior", "kind"),
    [(StandardNormal, StructuredDecoded), (Mixture, StructuredDecoded), (RelaxedMixture, RelaxedDecoded)],
)
def test_it_trains_with_any_number_of_latents(prior, kind, latents):
    torch.manual_seed(0)
    model = decoded(prior(latents), latents)
    guide = kind(model, 8, width=16)
    voxels = guide.prepare(two_classes(300))
    model.start(voxels)
    guide.start(voxels)
    trace = fit_svi(model, guide, voxels, Training(steps=30, batch_size=128, check_every=10, held_out=20))
    assert all(value == value for value in trace.train)
    assert torch.isfinite(guide.z_dist(voxels).loc).all()


def relaxed(straight_through: bool = False) -> tuple[VoxelModel, RelaxedDecoded]:
    prior = RelaxedMixture(3, classes=2, straight_through=straight_through)
    prior.update(torch.tensor([0.3, 0.7]), LOC, SD.square()[:, None, None] * torch.eye(3))
    model = decoded(prior)
    return model, exact(RelaxedDecoded(model, 8))


def test_a_relaxed_component_at_a_corner_is_the_class():
    model, guide = relaxed()
    voxels = guide.prepare(two_classes(50))
    population = model.prior.classes()
    modes, logits = guide.laplace(voxels, population, 4)
    q = guide.z_dist(voxels)
    for k in range(2):
        c = torch.eye(2)[k].expand(50, -1)
        loc, tril = guide._given(voxels, c, modes, logits.mT, population)
        torch.testing.assert_close(loc, q.loc[:, k], atol=3e-3, rtol=0)
        torch.testing.assert_close(tril @ tril.mT, q.scale_tril[:, k] @ q.scale_tril[:, k].mT, atol=1e-4, rtol=1e-2)


def test_the_components_gradient_passes_through_the_mode():
    model, guide = relaxed()
    voxels = guide.prepare(two_classes(20))
    population = model.prior.classes()
    modes, logits = guide.laplace(voxels, population, 6)
    share = torch.full((20,), 0.4, requires_grad=True)

    def loc(w: torch.Tensor) -> torch.Tensor:
        return guide._given(voxels, torch.stack([w, 1 - w], -1), modes, logits.mT, population)[0].sum(-1)

    (slope,) = torch.autograd.grad(loc(share).sum(), share)
    with torch.no_grad():
        numeric = (loc(share + 0.01) - loc(share - 0.01)) / 0.02
    torch.testing.assert_close(slope, numeric, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("straight_through", [False, True])
def test_a_relaxed_component_as_sharp_as_evidence_makes_it_stays_finite(straight_through):
    model, guide = relaxed(straight_through)
    model.prior.anneal(1.0)
    voxels = guide.prepare(50 * two_classes(40))  # hundreds of nats between the classes
    loss = model.prior.elbo().differentiable_loss(model, guide, voxels)
    loss.backward()
    assert torch.isfinite(loss)
    found = [p.grad for p in (*guide.parameters(), *model.prior.parameters()) if p.grad is not None]
    assert found
    assert all(torch.isfinite(g).all() for g in found)


def test_what_makes_no_sense_says_why():
    with pytest.raises(InputError, match="needs decoder network"):
        StructuredDecoded(quadratic_model(), 8)
    with pytest.raises(InputError, match="needs prior relaxed_mixture"):
        RelaxedDecoded(decoded(Mixture(3)), 8)


def test_both_are_pyro_programs():
    model, guide = relaxed()
    voxels = guide.prepare(two_classes(10))
    trace = pyro.poutine.trace(guide).get_trace(voxels)
    replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace)).get_trace(voxels)
    assert {"c", "z"} <= set(trace.nodes) & set(replayed.nodes)
