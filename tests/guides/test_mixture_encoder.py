"""Encoders for mixture priors: what they answer and refuse; the relaxed one survives low temperatures."""

import pyro
import pytest
import torch

from pyroqmri.errors import InputError
from pyroqmri.guides import MixtureEncoder, RelaxedEncoder, Structured
from pyroqmri.priors import Mixture, RelaxedMixture
from pyroqmri.svi import Training, fit_svi
from tests.guides.test_structured import LOC, exact_evidence, two_classes
from tests.helpers import quadratic_data, quadratic_model

PAIRS = pytest.mark.parametrize(
    ("guide", "prior"),
    [(MixtureEncoder, Mixture), (RelaxedEncoder, RelaxedMixture), (Structured, Mixture)],
)


def made(guide, prior, classes=3):
    torch.manual_seed(0)
    model, y = quadratic_model(prior(3, classes=classes)), quadratic_data(200)
    built = guide(model, y.shape[1], width=16)
    voxels = built.prepare(y)
    built.start(voxels)
    return model, built, voxels


@PAIRS
def test_one_component_a_class(guide, prior):
    _, built, voxels = made(guide, prior)
    q = built.z_dist(voxels)
    assert q.probs.shape == (200, 3)
    torch.testing.assert_close(q.probs.sum(-1), torch.ones(200))
    assert torch.isfinite(q.log_prob(q.sample())).all()


# the structured guide starts where the others end
@pytest.mark.parametrize(("guide", "prior"), [(MixtureEncoder, Mixture), (RelaxedEncoder, RelaxedMixture)])
def test_training_raises_the_elbo(guide, prior):
    model, built, voxels = made(guide, prior)
    trace = fit_svi(model, built, voxels, Training(steps=60, batch_size=128, check_every=10, held_out=20))
    assert trace.train[-1] < trace.train[0]


def test_the_enumerated_elbo_is_the_sum_over_classes():
    model, built, voxels = made(MixtureEncoder, Mixture, classes=2)
    torch.manual_seed(1)
    with torch.no_grad():
        losses = [float(model.prior.elbo().loss(model, built, voxels)) for _ in range(200)]
        q = built.z_dist(voxels)
        population = model.prior.classes()
        total = []
        for _ in range(200):
            value = 0.0
            for c in range(2):
                z_dist = pyro.distributions.MultivariateNormal(q.loc[:, c], scale_tril=q.scale_tril[:, c])
                z = z_dist.sample()
                prior = pyro.distributions.MultivariateNormal(
                    population.loc[c], scale_tril=population.scale_tril[c]
                ).log_prob(z)
                joint = model.y_dist(z, voxels).log_prob(voxels.y) + prior + population.log_weights[c]
                value += (q.probs[:, c] * (joint - z_dist.log_prob(z) - q.logits[:, c])).sum()
            total.append(float(value))
    hyper = float(pyro.poutine.trace(model.prior.population).get_trace().log_prob_sum().detach())
    ours, theirs = torch.tensor(losses), -torch.tensor(total) - hyper
    standard_error = (ours.var() / 200 + theirs.var() / 200).sqrt()
    # two means of 200 losses each: 5 standard errors fail once in 2 million seeds
    assert abs(float(ours.mean() - theirs.mean())) < 5 * float(standard_error)


def test_the_relaxed_pair_stays_finite_at_its_last_temperature():
    model, built, voxels = made(RelaxedEncoder, RelaxedMixture)
    model.prior.anneal(1.0)
    assert float(model.prior.temperature) == pytest.approx(0.3)
    losses = [model.prior.elbo().differentiable_loss(model, built, voxels) for _ in range(50)]
    assert torch.isfinite(torch.stack(losses)).all()


def test_what_makes_no_sense_says_why():
    with pytest.raises(InputError, match="needs a mixture prior"):
        MixtureEncoder(quadratic_model(), 8)
    with pytest.raises(InputError, match="needs the relaxed_mixture prior"):
        RelaxedEncoder(quadratic_model(Mixture(3)), 8)
    with pytest.raises(InputError, match=r"last_temperature must lie between 0\.1"):
        RelaxedMixture(3, last_temperature=0.05)
    with pytest.raises(InputError, match="classes must be above zero"):
        Mixture(3, classes=0)


def trained(prior, kind, steps: int, n: int = 2000):
    model = quadratic_model(prior)
    guide = kind(model, 8, width=32)
    voxels = guide.prepare(two_classes(n))
    model.start(voxels)
    guide.start(voxels)
    trace = fit_svi(model, guide, voxels, Training(steps=steps, batch_size=256, held_out=200, lr=1e-2))
    return model, guide, voxels, trace


@pytest.mark.slow
@pytest.mark.parametrize(("prior", "kind"), [(Mixture, MixtureEncoder), (RelaxedMixture, RelaxedEncoder)])
def test_it_comes_near_the_exact_evidence_and_responsibilities(prior, kind):
    torch.manual_seed(0)
    made = prior(3, classes=2)
    with torch.no_grad():  # which class is which must not be left to chance
        made.loc.copy_(LOC / 2)
    model, guide, voxels, trace = trained(made, kind, 800)
    exact = exact_evidence(voxels.y)
    assert trace.held_out[-1] < trace.held_out[0]
    responsibilities = guide.z_dist(voxels).probs.detach()
    assert (responsibilities.argmax(-1) == exact.argmax(-1)).float().mean() > 0.93
    if prior is Mixture:  # a relaxed component is another model, with another bound
        assert (responsibilities - exact.softmax(-1)).abs().mean() < 0.06
        assert -trace.held_out[-1] == pytest.approx(float(exact.logsumexp(-1).mean()), abs=0.5)
        torch.testing.assert_close(model.prior.loc.detach(), LOC, atol=0.2, rtol=0)


def test_the_temperature_falls_while_training():
    model, *_ = trained(RelaxedMixture(3, classes=2, temperature=1.0, last_temperature=0.4), RelaxedEncoder, 10, n=100)
    assert float(model.prior.temperature) == pytest.approx(0.4 ** (9 / 10))


def test_a_straight_through_component_is_a_corner_with_a_gradient():
    model = quadratic_model(RelaxedMixture(3, classes=2, straight_through=True))
    guide = RelaxedEncoder(model, 8)
    trace = pyro.poutine.trace(guide).get_trace(guide.prepare(two_classes(20)))
    log_c = trace.nodes["c"]["value"].detach().requires_grad_()
    c = model.prior.component(log_c)
    torch.testing.assert_close(c.amax(-1), torch.ones(20))
    c[:, 0].sum().backward()
    assert log_c.grad is not None
    assert log_c.grad.abs().sum() > 0
    trace = fit_svi(model, guide, guide.prepare(two_classes(200)), Training(steps=20, batch_size=64, check_every=10))
    assert all(value == value for value in trace.train)
