r"""Choosing measurements one by one, then by exchange.

With the covariance :math:`C_s` of a voxel's latents after what was chosen so far and :math:`G_s` the derivatives of the
quantities that count, the gain of a choice is

.. math:: \tfrac12\, \mathbb E_s \big[ \log |G_s C_s^{0} G_s^\top| - \log |G_s C_s G_s^\top| \big]

nats, the expected information of a Laplace posterior at the drawn voxels, or the sum of that for each quantity by
itself where correlations are not to count. One measurement more changes
:math:`C_s` by a matrix of rank one, so that all candidates are ranked by a few products.

Source: Fedorov 1972, Theory of Optimal Experiments (exchange); Chaloner and Verdinelli 1995,
doi:10.1214/ss/1177009939 (Bayesian D-optimality).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyroqmri.planning.information import PopulationInformation

SWEEPS = 20
LEAST = 1e-6  # nats that an exchange has to gain


@dataclass
class Selection:
    """Measurements chosen so far, in order, and what is left of the latents' covariance."""

    information: PopulationInformation
    cost: Tensor
    budget: float
    index: list[int] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.covariance = self.information.covariance
        self.gain = 0.0

    @property
    def spent(self) -> float:
        """Cost of what was chosen."""
        return float(self.cost[self.index].sum())

    def _pulled(self) -> tuple[Tensor, Tensor]:
        """Covariance times each slope ``(S, M, L)``, and the variance of each measurement over its noise's."""
        v = self.information.slopes @ self.covariance
        return v, (v * self.information.slopes).sum(-1).clamp_min(0)

    def gains(self) -> Tensor:
        """Nats that each candidate would add ``(M,)``; minus infinity where it is chosen or exceeds the budget."""
        v, q = self._pulled()
        targets = self.information.targets
        w = v @ targets.mT
        before = targets @ self.covariance @ targets.mT
        if self.information.apart:
            share = w.square() / (before.diagonal(dim1=-2, dim2=-1).unsqueeze(1) * (1 + q).unsqueeze(-1))
        else:
            share = (w * torch.linalg.solve(before, w.mT).mT).sum(-1, keepdim=True) / (1 + q).unsqueeze(-1)
        found = -torch.log1p(-share.clamp(0, 1 - 1e-12)).sum(-1).mean(0) / 2
        found[self.index] = -torch.inf
        found[self.cost > self.budget - self.spent + 1e-9] = -torch.inf
        return found

    def add(self, i: int, gain: float) -> None:
        """Choose candidate ``i``."""
        self._move(i, 1.0)
        self.index.append(i)
        self.gain += gain

    def remove(self, i: int) -> None:
        """Take candidate ``i`` out again."""
        self.index.remove(i)
        self._move(i, -1.0)

    def _move(self, i: int, sign: float) -> None:
        f = self.information.slopes[:, i]
        v = (self.covariance @ f.unsqueeze(-1)).squeeze(-1)
        q = (v * f).sum(-1)
        self.covariance = self.covariance - sign * v.unsqueeze(-1) * v.unsqueeze(-2) / (1 + sign * q)[:, None, None]

    def refresh(self) -> None:
        """The covariance anew from what is chosen: rounding of many changes of rank one adds up."""
        self.covariance = self.information.spread(torch.tensor(self.index, dtype=torch.long))


def gain_of(information: PopulationInformation, index: Tensor) -> float:
    """Expected information gain of the measurements ``index`` in nats."""
    targets = information.targets
    before, after = (targets @ c @ targets.mT for c in (information.covariance, information.spread(index)))
    if information.apart:
        alone = (m.diagonal(dim1=-2, dim2=-1).log().sum(-1).mean() for m in (before, after))
        return float(next(alone) - next(alone)) / 2
    return float((before.logdet() - after.logdet()).mean() / 2)


def choose(information: PopulationInformation, cost: Tensor, budget: float) -> Selection:
    """The candidates that gain most within a budget: greedily, then by exchange of single ones.

    Parameters
    ----------
    cost
        Of each candidate ``(M,)``; ones where the budget is a number of measurements.
    budget
        Sum of costs at most.
    """
    selection = Selection(information, cost, budget)
    greedy(selection)
    exchange(selection)
    selection.gain = gain_of(information, torch.tensor(selection.index, dtype=torch.long))
    return selection


def greedy(selection: Selection) -> None:
    """Add what gains most for its cost until the budget is spent; ``curve`` has the gain after each one."""
    b0 = selection.information.b0
    if bool(b0.any()):  # nothing is measured without S0
        first = int(torch.where(b0, selection.cost, torch.inf).argmin())
        selection.add(first, 0.0)
        selection.curve.append(gain_of(selection.information, torch.tensor([first])))
    while len(selection.index) < len(selection.cost):
        gains = selection.gains()
        best = int((gains / selection.cost).argmax())
        if not bool(gains[best] > -torch.inf):
            break
        selection.add(best, float(gains[best]))
        if len(selection.index) % 10 == 0:
            selection.refresh()
        selection.curve.append((selection.curve[-1] if selection.curve else 0.0) + float(gains[best]))


def exchange(selection: Selection) -> None:
    """Swap single measurements for better ones while there are any."""
    b0 = selection.information.b0
    for _ in range(SWEEPS):
        swapped = False
        for i in list(selection.index):
            if bool(b0[i]) and int(b0[selection.index].sum()) == 1:
                continue
            selection.remove(i)
            gains = selection.gains()
            best = int(gains.argmax())
            better = bool(gains[best] > gains[i] + LEAST)
            selection.add(best if better else i, 0.0)
            swapped = swapped or better
        selection.refresh()
        if not swapped:
            return
