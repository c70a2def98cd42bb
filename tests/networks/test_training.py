"""The training loop of networks: what it keeps of each."""

import torch

import pyroqmri as pq
from pyroqmri.networks import training
from pyroqmri.networks.mlp import MLP
from pyroqmri.networks.training import _Best
from tests.helpers import msdki_data


def test_voxels_for_validation_are_not_trained_on(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path))
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    honest = training._loss

    def loss(network, labels, weights, batch):
        seen[torch.is_grad_enabled()].append(batch.voxels.y)
        return honest(network, labels, weights, batch)

    monkeypatch.setattr(training, "_loss", loss)
    y, acq = msdki_data(100, s0=100.0)
    settings = {"truth.voxels": 200, "training.starts": 1, "training.epochs": 1, "training.batch_size": 20}
    pq.fit(y, acq, signal="msdki", recipe="supervised_gt", sigma=5.0, s0=100.0, settings=settings)
    trained, held = torch.cat(seen[True]), torch.cat(seen[False])
    assert (len(trained), len(held)) == (160, 40)
    assert not (held[:, None] == trained).all(-1).any()


def moved(network: MLP, to: float) -> None:
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(to)


def test_each_network_keeps_the_weights_of_its_lowest_loss_and_the_best_is_named():
    network = MLP(3, 2, 4, 1, starts=2)
    best = _Best(network, patience=10)
    with torch.no_grad():
        for step, loss in enumerate(([3.0, 5.0], [2.0, 1.0], [4.0, 0.5], [9.0, 9.0])):
            moved(network, float(step))
            best.look(torch.tensor(loss))
    assert best.restore() == 1
    for p in network.parameters():
        assert torch.equal(p[0], torch.full_like(p[0], 1.0))
        assert torch.equal(p[1], torch.full_like(p[1], 2.0))


def test_a_network_stops_once_its_loss_has_not_fallen_for_long_enough():
    network = MLP(3, 2, 4, 1, starts=2)
    best = _Best(network, patience=2)
    with torch.no_grad():
        for loss in ([1.0, 3.0], [1.0, 2.0], [2.0, 1.0]):
            best.look(torch.tensor(loss))
        assert best.stopped.tolist() == [True, False]
        best.look(torch.tensor([0.0, 0.5]))  # too late for the first
    assert best.loss.tolist() == [1.0, 0.5]
