"""Encoders of mixture priors."""

import pyro
import pytest
import torch

from pyroqmri.errors import InputError
from pyroqmri.guides import MixtureEncoder, RelaxedEncoder
from pyroqmri.priors import Mixture, RelaxedMixture, StandardNormal
from pyroqmri.svi import Training, fit_svi
from tests.guides.test_structured import LOC, exact_evidence, two_classes
from tests.helpers import quadratic_model


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


def test_a_straight_through_component_is_a_corner():
    model = quadratic_model(RelaxedMixture(3, classes=2))
    guide = RelaxedEncoder(model, 8, straight_through=True)
    trace = pyro.poutine.trace(guide).get_trace(guide.prepare(two_classes(20)))
    c = trace.nodes["c"]["value"].detach()
    torch.testing.assert_close(c.amax(-1), torch.ones(20))


@pytest.mark.parametrize(
    ("prior", "kind", "said"),
    [
        (StandardNormal(3), MixtureEncoder, "needs a mixture prior with two classes or more"),
        (Mixture(3, classes=1), MixtureEncoder, "needs a mixture prior with two classes or more"),
        (Mixture(3, classes=2), RelaxedEncoder, "needs the relaxed_mixture prior"),
    ],
)
def test_a_prior_that_does_not_fit_is_said(prior, kind, said):
    with pytest.raises(InputError, match=said):
        kind(quadratic_model(prior), 8)
