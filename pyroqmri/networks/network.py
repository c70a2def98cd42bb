"""A network from the measurements of a voxel straight to its parameters."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from pyroqmri.errors import InputError
from pyroqmri.laplace.start import CHUNK
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.networks.mlp import MLP
from pyroqmri.parameter import frame_around
from pyroqmri.posterior.estimates import Estimates
from pyroqmri.posterior.goodness_of_fit import GoodnessOfFit, judge_fit
from pyroqmri.signals import BoundSignal

_REACH = 5.0  # a voxel unlike all others must not push the network where it never was


@dataclass(frozen=True)
class Shape:
    """Hidden layers of a network, as a recipe states them.

    Parameters
    ----------
    width
        Of each hidden layer; 0 is as wide as the protocol.
    depth
        Number of hidden layers.
    """

    width: int = 0
    depth: int = 3

    def __post_init__(self) -> None:
        if self.width < 0 or self.depth < 1:
            raise InputError(
                f"network.width must be 0 (as wide as the protocol) or more and network.depth above zero, "
                f"got {self.width} and {self.depth}"
            )


class ParameterNetwork(nn.Module):
    """K networks that answer the parameters of a voxel, inside their bounds.

    Measurements, and per-voxel inputs of the signal, are standardised as the training voxels say. A scalar parameter
    is one output through the parameter's own box; a direction is the axis of the linear tensor fit with three
    outputs added, scaled to length one.

    Parameters
    ----------
    signal
        The signal at the acquisition that the network sees.
    shape
        Hidden layers.
    starts
        K.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, signal: BoundSignal, shape: Shape, starts: int = 1) -> None:
        super().__init__()
        self.signal = signal
        n_in = len(signal.acquisition) + len(signal.signal.inputs)
        n_out = signal.n_tissue + (0 if signal.direction is None else 3)
        self.mlp = MLP(n_in, n_out, shape.width if shape.width else n_in, shape.depth, starts)
        self.register_buffer("loc", torch.zeros(n_in))
        self.register_buffer("scale", torch.ones(n_in))

    def _seen(self, voxels: Voxels) -> Tensor:
        inputs = [voxels.inputs[name].unsqueeze(-1) for name in self.signal.signal.inputs]
        return torch.cat([voxels.y, *inputs], -1)

    @torch.no_grad()
    def standardise(self, voxels: Voxels) -> None:
        """Take location and scale of the inputs from training voxels."""
        # percentiles: a signal that leaves its range in a few voxels must not set the scale for all
        ordered = self._seen(voxels).sort(0).values
        low, middle, high = (ordered[int(q * (len(ordered) - 1))] for q in (0.16, 0.5, 0.84))
        self.loc.copy_(middle)
        self.scale.copy_(((high - low) / 2).clamp_min(1e-3))

    def forward(self, voxels: Voxels) -> dict[str, Tensor]:
        """Parameters, each ``(K, N)``, a direction ``(K, N, 3)``; voxels come as :meth:`prepare` leaves them."""
        out = self.mlp(((self._seen(voxels) - self.loc) / self.scale).clamp(-_REACH, _REACH))
        if self.signal.direction is None:
            return self.signal.constrain(out)
        assert voxels.frame is not None, "prepare the voxels first"
        n = self.signal.n_tissue
        axis = nn.functional.normalize(voxels.frame[..., 0, :] + out[..., n:], dim=-1)
        z = torch.cat([out[..., :n], torch.zeros_like(out[..., n : n + 2])], -1)
        return self.signal.constrain(z, frame_around(axis))

    def prepare(self, voxels: Voxels) -> Voxels:
        """The voxels with what the network adds its answer to: the axis of a direction, on the side of positive z."""
        if self.signal.direction is None:
            return voxels
        axis = self.signal.signal.initial_axis(self.signal.acquisition, voxels.y)
        return replace(voxels, frame=frame_around(axis * torch.where(axis[..., 2:] < 0, -1.0, 1.0)))


class NetworkEstimates(Estimates):
    """What a network answers for N voxels: one estimate each, and no uncertainty."""

    has_sd = False
    likelihood: Likelihood

    def __init__(self, name: str, network: ParameterNetwork, likelihood: Likelihood, batch: Batch) -> None:
        super().__init__(network.signal, batch)
        self.name, self.network, self.likelihood = name, network, likelihood

    @cached_property
    @torch.no_grad()
    def _theta(self) -> dict[str, Tensor]:
        """Parameters of the fitted voxels in the model's own units."""
        parts = []
        for i in range(0, max(1, len(self.batch.voxels)), CHUNK):
            part = self.network.prepare(self.batch.voxels[i : i + CHUNK])
            parts.append({name: value[0] for name, value in self.network(part).items()})
        theta = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        return theta

    @cached_property
    def _quantities(self) -> dict[str, Tensor]:
        """Everything that maps show, in the scan's units; the axis on the side of positive z."""
        theta = self.rescale(self._theta)
        theta = theta | self.signal.signal.derived(theta)
        if self.signal.axis is None:
            return theta
        n = theta[self.signal.axis.name]
        turned = {self.signal.axis.name: n * torch.where(n[..., 2:] < 0, -1.0, 1.0)}
        return theta | self.signal.signal.derived({**theta, **turned}) | turned

    @cached_property
    def mean(self):
        """The network's answer for each quantity ``(N,)``."""
        return {name: self.scatter(self._quantities[name]) for name in self.names}

    @property
    def sd(self):
        """Refused: a network trained on labels says nothing of its error."""
        raise InputError(self._refusal("standard deviation"))

    def quantile(self, q):
        """Refused, as the standard deviation is."""
        raise InputError(self._refusal("quantiles or intervals"))

    def draws(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Refused, as the standard deviation is."""
        raise InputError(self._refusal("draws"))

    def _refusal(self, what: str) -> str:
        return (
            f"recipe {self.name} is a network that returns one estimate per voxel and has no {what}; "
            "a recipe with a posterior (hierarchical, vae_gmm) has them"
        )

    @property
    def axes(self):
        """Axis of each direction ``(N, 3)`` by its name."""
        return {p.name: self.scatter(self._quantities[p.name]) for p in self.signal.axes}

    @property
    def responsibilities(self) -> None:
        """There are no classes."""
        return None

    @cached_property
    @torch.no_grad()
    def goodness_of_fit(self) -> GoodnessOfFit:
        """What each voxel's measurements say against the answer ``(N,)``."""
        voxels = self.batch.voxels
        signal = self.signal(self._theta, voxels.inputs)
        mean, variance = self.likelihood.moments(signal, voxels.noise)
        residuals, n = (voxels.y - mean) / variance.sqrt(), voxels.y.shape[1]
        found = judge_fit(residuals.square().sum(-1).unsqueeze(0), n, lambda index: residuals[index])
        return GoodnessOfFit.gathered(found.found() | self.direction_misfit(voxels, self._theta), self.scatter)
