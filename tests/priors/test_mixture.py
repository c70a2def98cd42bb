"""Classes of tissue."""

import pyro
import pytest
import torch

from pyroqmri.errors import InputError
from pyroqmri.priors import Mixture
from pyroqmri.priors.hierarchical import hyperprior

GIVEN = torch.tensor([[[2.0, -1.0], [0.1, 0.2]]])


def test_learned_classes_come_first_and_given_ones_stay():
    prior = Mixture(2, n_direction=2, classes=2, given=GIVEN)
    log_weights, loc, tril = prior.classes()
    assert prior.n_classes == 3
    torch.testing.assert_close(log_weights.exp().detach(), torch.full((3,), 1 / 3))
    assert loc[2].tolist() == [2.0, -1.0, 0.0, 0.0]
    torch.testing.assert_close(tril[2], torch.diag(torch.tensor([0.1, 0.2, 1.0, 1.0])))
    assert not any(GIVEN is p for p in prior.parameters())
    assert "given" in prior.state_dict()


def test_classes_do_not_start_at_one_point():
    loc = Mixture(2, classes=3).classes().loc
    assert torch.pdist(loc.detach()).min() > 0.5


def test_start_finds_separated_clusters():
    torch.manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    prior = Mixture(2, classes=3)
    prior.start((centres[:, None] + 0.1 * torch.randn(3, 100, 2)).flatten(0, 1))
    found = prior.loc.detach()
    torch.testing.assert_close(found[found[:, 0].argsort()], centres, atol=0.1, rtol=0)


def test_update_sets_all_but_what_is_given():
    prior = Mixture(2, classes=1, given=GIVEN)
    covariance = torch.tensor([[[0.5, 0.2], [0.2, 0.4]], [[9.0, 0.0], [0.0, 9.0]]])
    prior.update(torch.tensor([0.2, 0.8]), torch.tensor([[1.0, 2.0], [7.0, 7.0]]), covariance)
    log_weights, loc, tril = (t.detach() for t in prior.classes())
    torch.testing.assert_close(log_weights.exp(), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(loc, torch.tensor([[1.0, 2.0], [2.0, -1.0]]))
    torch.testing.assert_close(tril[0] @ tril[0].mT, covariance[0])
    torch.testing.assert_close(tril[1], torch.diag(GIVEN[0, 1]))


def test_without_covariances():
    prior = Mixture(3, classes=2, diagonal=True)
    tril = prior.classes().scale_tril
    assert torch.equal(tril, torch.diag_embed(tril.diagonal(dim1=-2, dim2=-1)))


def test_latents_come_from_their_class():
    prior = Mixture(2, classes=2)
    prior.update(
        torch.tensor([0.25, 0.75]), torch.tensor([[-3.0, 0.0], [3.0, 0.0]]), 0.01 * torch.eye(2).repeat(2, 1, 1)
    )
    torch.manual_seed(0)
    with pyro.plate("voxels", 2000):
        trace = pyro.poutine.trace(prior).get_trace(prior.classes())
    c, z = trace.nodes["c"]["value"], trace.nodes["z"]["value"]
    assert torch.equal(z[:, 0] > 0, c == 1)
    # standard error .01
    assert float(c.float().mean()) == pytest.approx(0.75, abs=0.05)


def density_of_the_population(weights, loc, sd):
    """Log density that the program adds for three classes without covariances, one of them given."""
    prior = Mixture(2, classes=2, diagonal=True, given=GIVEN)
    covariance = torch.cat([sd, sd[:1]]).square().diag_embed()
    prior.update(torch.tensor(weights), torch.cat([loc, loc[:1]]), covariance)
    return float(pyro.poutine.trace(prior.population).get_trace().log_prob_sum().detach())


def test_weights_are_dirichlet_and_learned_classes_have_the_hyperprior():
    one, other = [0.2, 0.3, 0.5], [0.6, 0.1, 0.3]
    loc, sd = torch.tensor([[0.3, -1.0], [0.0, 2.0]]), torch.tensor([[0.5, 1.0], [2.0, 0.2]])
    dirichlet = torch.distributions.Dirichlet(torch.full((3,), 2.0))
    expected = dirichlet.log_prob(torch.tensor(one)) - dirichlet.log_prob(torch.tensor(other))
    found = density_of_the_population(one, loc, sd) - density_of_the_population(other, loc, sd)
    assert found == pytest.approx(float(expected), abs=1e-4)
    moved = 2 * loc, 0.5 * sd
    after, before = (hyperprior(*at, torch.eye(2).expand(2, 2, 2)).sum() for at in (moved, (loc, sd)))
    found = density_of_the_population(one, *moved) - density_of_the_population(one, loc, sd)
    assert found == pytest.approx(float(after - before), abs=1e-4)


def test_the_objective_enumerates():
    assert type(Mixture(2).elbo()).__name__ == "TraceEnum_ELBO"


def test_no_class_is_no_mixture():
    with pytest.raises(InputError, match=r"prior\.classes must be above zero"):
        Mixture(2, classes=0)
