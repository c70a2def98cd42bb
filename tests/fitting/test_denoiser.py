"""A denoiser's seed."""

import torch

import pyroqmri as pq
from pyroqmri.fitting import denoiser
from pyroqmri.svi import Trace
from tests.helpers import msdki_data

Y, ACQ = msdki_data(60, s0=300.0)


def test_the_seed_is_that_of_the_first_weights_and_of_the_training(monkeypatch):
    seen = []

    def train(network, source, schedule, *, seed, **rest):
        seen.append(({k: v.clone() for k, v in network.state_dict().items()}, seed))
        return Trace()

    monkeypatch.setattr(denoiser, "train", train)
    for seed in (1, 1, 2):
        pq.fit_denoiser(Y, ACQ, sigma=15.0, seed=seed, signal="msdki", settings={"targets.voxels": 200})
    weights = [first for first, _ in seen]
    assert [seed for _, seed in seen] == [1, 1, 2]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
    assert not all(torch.equal(v, weights[2][k]) for k, v in weights[0].items())
