"""The training loop of networks: what it keeps of each."""

import torch

from pyroqmri.networks.mlp import MLP
from pyroqmri.networks.training import _Best


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
