"""Ranks are uniform and intervals cover what they say where the truth is drawn from the model's own prior."""

import functools

import numpy as np
import pytest
from scipy.stats import kstest

import pyroqmri as pq
from benchmarks.protocols import EPSTEIN, protocol
from pyroqmri.diagnostics.calibration import randomised_ranks
from pyroqmri.grounds import own_ground
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate, tissue_classes, uniform
from tests.helpers import shells

pytestmark = pytest.mark.slow

N = 2500
SIGMA = 0.07
# what is learned again from voxels of its own population, before it is asked about others of it
AGAIN = ("hierarchical", "hierarchical_mixture")
NETWORKS = ("vae_unig", "vae_gmm", "vae_gmm_relaxed")


def first_fit(recipe: str) -> pq.Fit:
    """A fit whose population is the truth of what follows: of three tissues, or uniform in stated ranges."""
    if recipe == "uniform":
        acq, ivim = protocol("epstein"), SIGNALS["ivim"]
        y = simulate(ivim, acq, uniform(ivim, 500, 1, EPSTEIN), snr=15, seed=2)
        ranges = {f"range.{name}": list(pair) for name, pair in EPSTEIN.items()}
        return pq.fit(y, acq, signal="ivim", recipe=recipe, sigma=1 / 15, s0="inferred", seed=0, settings=ranges)
    acq, msdki = shells(8, 12, 1.0, 2.0, bvec=False), SIGNALS["msdki"]
    theta, _ = tissue_classes(msdki).sample(3000, 1)
    y = simulate(msdki, acq, theta, sigma=SIGMA, seed=2)
    return pq.fit(y, acq, signal="msdki", recipe=recipe, sigma=SIGMA, s0=1.0, seed=0)


@functools.cache
def ranks(recipe: str) -> dict[str, np.ndarray]:
    """Rank of the truth among 999 draws, of every parameter, in voxels of the model's own population.

    A population over the physical parameters is learned anew from as many voxels of it. A network's latents are its
    own, and so is the population that they make: there the trained pair itself is asked.
    """
    fit = first_fit(recipe)
    if recipe in AGAIN:
        ground = own_ground(fit, 5000, seed=3)
        again = pq.fit(ground.y, fit.acquisition, signal=fit.signal_name, recipe=recipe, sigma=ground.sigma, s0=1.0)
    ground = own_ground(fit, N, seed=4)
    posterior = (again if recipe in AGAIN else fit).posterior(ground.y, sigma=ground.sigma)
    draws, rng = posterior.draws(999, seed=5), np.random.default_rng(6)
    return {p.name: randomised_ranks(draws[p.name].numpy(), ground.truth[p.name].numpy(), rng)
            for p in fit.signal.tissue}  # fmt: skip


@pytest.mark.parametrize("recipe", ["uniform", *AGAIN, *NETWORKS])
def test_ranks_are_uniform_and_intervals_cover_what_they_say(recipe):
    for name, rank in ranks(recipe).items():
        cover = {p: float((np.abs(rank - 0.5) < p / 2).mean()) for p in (0.5, 0.9)}
        found = f"{recipe} {name}: {cover}, KS {kstest(rank, 'uniform').statistic:.3f}"
        print(found)
        # 2,500 voxels: standard errors .006 and .01, and ranks of an exact posterior reach .033 once in 100
        assert abs(cover[0.9] - 0.9) < 0.02, found
        assert abs(cover[0.5] - 0.5) < 0.035, found
        assert kstest(rank, "uniform").statistic < 0.04, found
