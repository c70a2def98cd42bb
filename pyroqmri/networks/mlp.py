"""Small networks, several starts of one at a time."""

import itertools
import math

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """K multilayer perceptrons of one shape with ELU layers, evaluated and trained together.

    Networks this small leave a processor idle: sixteen starts side by side cost little more than one.

    Parameters
    ----------
    n_in, n_out
        Inputs and outputs.
    width, depth
        Of the hidden layers.
    starts
        K, networks with different first weights, drawn as torch draws those of a linear layer.
    """

    def __init__(self, n_in: int, n_out: int, width: int, depth: int, starts: int = 1) -> None:
        super().__init__()
        sizes = [n_in, *[width] * depth, n_out]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise(sizes):
            reach = 1 / math.sqrt(before)
            self.weights.append(nn.Parameter(torch.empty(starts, before, after).uniform_(-reach, reach)))
            self.biases.append(nn.Parameter(torch.empty(starts, 1, after).uniform_(-reach, reach)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Width of each layer, inputs first."""
        return (*(w.shape[1] for w in self.weights), self.weights[-1].shape[2])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(K, N, n_out)`` of inputs ``(N, n_in)``."""
        x = x.expand(len(self.weights[0]), *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < len(self.weights) - 1:
                x = nn.functional.elu(x)
        return x

    @torch.no_grad()
    def pick(self, k: int) -> None:
        """Keep the ``k``-th network alone."""
        for parameters in (self.weights, self.biases):
            for i, p in enumerate(parameters):
                parameters[i] = nn.Parameter(p[k : k + 1].clone())
