"""The relaxed mixture."""

import pyro
import pytest
import torch

from pyroqmri.errors import InputError
from pyroqmri.priors import RelaxedMixture


def drawn(prior: RelaxedMixture, n: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    with pyro.plate("voxels", n):
        trace = pyro.poutine.trace(prior).get_trace(prior.classes())
    return trace.nodes["c"]["value"].detach().exp(), trace.nodes["z"]["value"].detach()


def test_components_are_points_of_the_simplex_and_come_near_its_corners():
    prior = RelaxedMixture(2, classes=3, last_temperature=0.1)
    blunt, _ = drawn(prior)
    prior.anneal(1.0)
    sharp, z = drawn(prior)
    for c in (blunt, sharp):
        torch.testing.assert_close(c.sum(-1), torch.ones(3000))
        assert (c >= 0).all()
    assert sharp.amax(-1).mean() > 0.95 > blunt.amax(-1).mean()
    assert z.shape == (3000, 2)
    assert torch.isfinite(z).all()


def test_the_temperature_falls_geometrically():
    prior = RelaxedMixture(2, temperature=2.0, last_temperature=0.5)
    found = []
    for share in (0.0, 0.5, 1.0):
        prior.anneal(share)
        found.append(float(prior.temperature))
    assert found == pytest.approx([2.0, 1.0, 0.5])
    assert "temperature" in prior.state_dict()


@pytest.mark.parametrize("temperatures", [(1.0, 0.05), (0.2, 0.3), (1.0, float("nan"))])
def test_temperatures_that_float32_does_not_bear_are_refused(temperatures):
    with pytest.raises(InputError, match=r"prior\.last_temperature must lie between 0\.1"):
        RelaxedMixture(2, temperature=temperatures[0], last_temperature=temperatures[1])


def test_the_objective_does_not_enumerate():
    assert type(RelaxedMixture(2).elbo()).__name__ == "Trace_ELBO"
