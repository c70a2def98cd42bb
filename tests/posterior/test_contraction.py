"""How much narrower a voxel's posterior is than the population, and voxels that are marked by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.measurements.status import UNINFORMED

SHORT = {"training.steps": 20, "training.check_every": 5}


@pytest.fixture(scope="module")
def two_pools():
    """A fit of ten echoes, whose noise leaves the fast pool's time open and the slow pool's not."""
    rng, n, te = np.random.default_rng(1), 400, np.arange(10.0, 110, 10)
    f, short, long = (np.clip(rng.normal(m, s, (n, 1)), 0.02, None) for m, s in ((0.05, 0.01), (18, 4), (90, 15)))
    s = 1000 * (f * np.exp(-te / short) + (1 - f) * np.exp(-te / long))
    y = np.abs(s + 15 * (rng.normal(size=s.shape) + 1j * rng.normal(size=s.shape)))
    fit = pq.fit(y, pq.Acquisition(te=te), signal="t2_biexp", recipe="hierarchical", sigma=15.0, settings=SHORT)
    # the population is set to that of the simulation: probits of shares of the logarithmic ranges in the table
    shares = np.hstack([f, np.log(short / 0.05) / np.log(200 / 0.05), np.log(long / short) / np.log(5000 / short)])
    z = torch.special.ndtri(torch.as_tensor(shares))
    s0 = fit.signal.tissue[3].unconstrain(torch.tensor(1000 / fit.preparation.scale)) + 0.05 * torch.randn(n)
    z = torch.column_stack([z, s0]).float()
    fit.model.prior.update(torch.ones(1), z.mean(0)[None], torch.cov(z.T)[None])
    for weights in fit.guide.network[-1].parameters():  # the network was trained under another population
        torch.nn.init.zeros_(weights)
    return fit, fit.posterior(y), y


def test_it_is_one_minus_the_ratio_of_variances_of_population_and_posterior(two_pools):
    fit, post, _ = two_pools
    prior = fit.model.prior
    loc, tril = prior.classes().loc[0].detach().double(), prior.classes().scale_tril[0].detach().double()
    z = loc + torch.randn(100_000, len(loc), generator=torch.Generator().manual_seed(0)).double() @ tril.mT
    # by hand, from the bounds of the table: uniform logarithms between them, under a standard normal
    share = torch.special.ndtr(z)
    short = 0.05 * (200 / 0.05) ** share[:, 1]
    expected = {"f": share[:, 0], "T2_short": short, "T2_long": short * (5000 / short) ** share[:, 2]}
    for name, draws in expected.items():
        by_hand = 1 - (post.sd[name].double() / draws.std()).square()
        torch.testing.assert_close(post.contraction[name].double(), by_hand, atol=0.05, rtol=0.05)


def test_what_the_scan_leaves_open_has_none_and_its_voxels_are_marked(two_pools):
    _, post, _ = two_pools
    assert float(post.contraction["T2_short"].median()) < 0.1
    assert float(post.contraction["T2_long"].median()) > 0.5
    assert float((post.status == UNINFORMED).float().mean()) > 0.5


def test_more_voxels_are_marked_where_the_population_has_another_shape(two_pools, tmp_path):
    fit, post, y = two_pools
    assert not fit.rests_on_shape
    replace(fit, rests_on_shape=True).save(tmp_path)
    again = pq.load_fit(tmp_path)
    assert again.rests_on_shape
    before, after = post.status == UNINFORMED, again.posterior(y).status == UNINFORMED
    assert bool(after[before].all())
    # a slow pool whose posterior keeps less than a third of the population's sd marks no voxel
    open_time = post.contraction["T2_short"] < 0.89
    assert int(after.sum()) > int(before.sum())
    assert bool(open_time[after & ~before].all())


def test_a_uniform_phantom_is_not_marked_for_its_narrow_population():
    rng, te = np.random.default_rng(2), np.arange(10.0, 210, 20)
    y = np.abs(1000 * np.exp(-te / 80) + 20 * (rng.normal(size=(300, 10)) + 1j * rng.normal(size=(300, 10))))
    fit = pq.fit(y, pq.Acquisition(te=te), signal="t2_decay", recipe="hierarchical", sigma=20.0, settings=SHORT)
    fit.model.prior.update(torch.ones(1), fit.model.prior.classes().loc, 1e-5 * torch.eye(2)[None])
    post = fit.posterior(y)
    assert float(post.contraction["T2"].median()) < 0.5
    assert not bool((post.status == UNINFORMED).any())
