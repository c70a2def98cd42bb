"""The same fit on CUDA as on the CPU; runs where there is a GPU."""

import pytest
import torch

import pyroqmri as pq
from pyroqmri.distributions import Rician
from pyroqmri.signals import SIGNALS, BoundSignal
from tests.helpers import shells

pytestmark = pytest.mark.gpu
SIGMA = 0.03


def data(signal: str, acq: pq.Acquisition, n: int = 600) -> torch.Tensor:
    bound = BoundSignal(SIGNALS[signal], acq)
    theta = {p.name: p.lower + (0.3 + 0.2 * torch.rand(n)) * (p.upper - p.lower) for p in bound.tissue}
    if bound.direction is not None:
        theta["n"] = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    return Rician(bound(theta), torch.tensor(SIGMA)).sample()


@pytest.mark.parametrize("recipe", ["hierarchical", "hierarchical_mixture", "vae_unig"])
@pytest.mark.parametrize("signal", ["msdki", "ball_stick"])
def test_posteriors_agree_with_the_cpu(signal, recipe):
    acq = shells(4, 30, 1.0, 2.0)
    y = data(signal, acq)
    settings = {"training.steps": 200, "data.average": "volumes"}
    posts = {}
    for device in ("cpu", "cuda"):
        fit = pq.fit(y, acq, signal=signal, recipe=recipe, sigma=SIGMA, s0=1.0, device=device, settings=settings)
        posts[device] = fit.posterior(y)
    for name in posts["cpu"].names:
        if name in ("theta", "phi"):
            continue
        # other random numbers, so other weights: within a quarter of the posterior sd for nearly all voxels
        off = (posts["cpu"].mean[name] - posts["cuda"].mean[name]).abs() / posts["cpu"].sd[name]
        assert off.quantile(0.9) < 0.25, name


def test_weights_move_between_devices(tmp_path):
    acq = shells(4, 30, 1.0, 2.0)
    y = data("ball_stick", acq)
    fit = pq.fit(
        y, acq, signal="ball_stick", recipe="hierarchical", sigma=SIGMA, s0=1.0, device="cuda",
        settings={"training.steps": 20},
    )  # fmt: skip
    fit.save(tmp_path)
    here, there = pq.load_fit(tmp_path).posterior(y), fit.posterior(y)
    torch.testing.assert_close(here.mean["f"], there.mean["f"], rtol=1e-3, atol=1e-4)
