"""The logarithm of a Gumbel-softmax."""

import pyro
import torch
from pyro.distributions import RelaxedOneHotCategorical

from pyroqmri.distributions import ExpRelaxed


def test_it_is_the_relaxed_component_by_another_coordinate():
    logits, temperature = torch.tensor([0.5, -0.2, 0.1]), torch.tensor(0.7)
    log_c = ExpRelaxed(temperature, logits=logits).sample(torch.Size([50]))
    torch.testing.assert_close(log_c.exp().sum(-1), torch.ones(50))
    # the change of coordinates does not know of the logits: it drops out of a ratio of two densities
    other = torch.tensor([1.0, 0.0, -1.0])
    ours = [ExpRelaxed(temperature, logits=x).log_prob(log_c) for x in (logits, other)]
    theirs = [RelaxedOneHotCategorical(temperature, logits=x).log_prob(log_c.exp()) for x in (logits, other)]
    torch.testing.assert_close(ours[0] - ours[1], theirs[0] - theirs[1], atol=1e-4, rtol=1e-4)


def test_it_bears_a_component_that_is_as_good_as_one_hot():
    logits = torch.tensor([0.0, 300.0, -300.0])
    torch.manual_seed(0)
    with pyro.plate("voxels", 200):
        log_c = pyro.sample("c", ExpRelaxed(torch.tensor(0.1), logits=logits))
    density = ExpRelaxed(torch.tensor(0.1), logits=torch.zeros(3)).log_prob(log_c)
    assert (log_c.exp() == 0).any()  # a corner, in float32
    assert torch.isfinite(density).all()
