"""What a network is taught: the truth, the maximum of each voxel's likelihood, both, or the measurements themselves.

Source: Epstein et al. 2022, Choice of training label matters, arXiv:2205.05587, equations 7 to 10.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.likelihoods import LIKELIHOODS
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.networks.cache import content_key, kept
from pyroqmri.signals import BoundSignal
from pyroqmri.voxelwise.search import Search, search


@dataclass(frozen=True)
class Examples:
    """Voxels to train on with their labels.

    Parameters
    ----------
    voxels
        N voxels as the network's ``prepare`` left them.
    labels
        A sets of labels ``(N, A, Q)``: scalar parameters in the signal's order, then a direction's three components;
        None where the measurements are the labels.
    shares
        Weight of each set in the loss.
    """

    voxels: Voxels
    labels: Tensor | None
    shares: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.voxels)

    def __getitem__(self, index: Tensor | slice) -> "Examples":
        labels = None if self.labels is None else self.labels[index]
        return Examples(self.voxels[index], labels, self.shares)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on another device."""
        return Examples(self.voxels.to(device), None if self.labels is None else self.labels.to(device), self.shares)


def as_columns(signal: BoundSignal, theta: Mapping[str, Tensor]) -> Tensor:
    """Free parameters ``(..., Q)``: scalars, then a direction's components."""
    columns = [torch.stack([theta[p.name] for p in signal.tissue], -1)]
    return torch.cat([*columns, *([] if signal.direction is None else [theta[signal.direction.name]])], -1)


def parameter_loss(signal: BoundSignal, weights: Tensor, theta: Mapping[str, Tensor], examples: Examples) -> Tensor:
    """Weighted squared distance to the labels ``(K, N)``; of a direction, the squared sine of the angle to it."""
    assert examples.labels is not None
    n = signal.n_tissue
    estimate = torch.stack([theta[p.name] for p in signal.tissue], -1)
    total = torch.zeros_like(estimate[..., 0])
    for labels, share in zip(examples.labels.unbind(1), examples.shares, strict=True):
        loss = (weights * (estimate - labels[:, :n])).square().sum(-1)
        if signal.direction is not None:
            loss = loss + 1 - (theta[signal.direction.name] * labels[:, n:]).sum(-1).square()
        total = total + share * loss
    return total


class Labels(ABC):
    """What a recipe trains its network on, and with which loss.

    Parameters
    ----------
    n_average
        How many measurements each entry is the mean of ``(M,)``; None for single measurements.
    """

    from_data = False  # trains on the data themselves

    def __init__(self, n_average: Tensor | None = None) -> None:
        self.n_average = n_average

    @abstractmethod
    def examples(self, signal: BoundSignal, voxels: Voxels, truth: Tensor) -> tuple[Examples, int]:
        """Voxels ``(N,)`` of known truth ``(N, Q)`` with labels, and how many were held out."""

    def loss(self, signal: BoundSignal, weights: Tensor, theta: Mapping[str, Tensor], examples: Examples) -> Tensor:
        """Loss of each network and voxel ``(K, N)``."""
        return parameter_loss(signal, weights, theta, examples)


class TruthLabels(Labels):
    """The parameters that the measurements were simulated from: low spread, estimates drawn to the middle."""

    def examples(self, signal, voxels, truth):
        """All voxels, with their truth."""
        return Examples(voxels, truth.unsqueeze(1), (1.0,)), 0


class MLLabels(Labels):
    """The maximum of each simulated voxel's own likelihood; labels at a bound are held out.

    Parameters
    ----------
    likelihood
        Noise that the labels assume: ``rician`` or ``gaussian`` (least squares).
    margin
        A label within this share of a parameter's range from a bound is at the bound.
    steps
        Of the search for the maximum.
    """

    def __init__(
        self, n_average: Tensor | None = None, likelihood: str = "rician", margin: float = 0.01, steps: int = 40
    ) -> None:
        super().__init__(n_average)
        _check_likelihood(likelihood)
        self.likelihood, self.margin, self.steps = likelihood, margin, steps

    def examples(self, signal, voxels, truth):
        """The voxels whose label was found inside the bounds."""
        labels, good = ml_labels(signal, voxels, self.likelihood, self.steps, self.margin, self.n_average)
        found = self._combined(labels[good], truth[good])
        return Examples(voxels[torch.nonzero(good).squeeze(-1)], *found), int((~good).sum())

    def _combined(self, labels: Tensor, truth: Tensor) -> tuple[Tensor, tuple[float, ...]]:
        return labels.unsqueeze(1), (1.0,)


class HybridLabels(MLLabels):
    """A weighted sum of the loss to maximum-likelihood labels and of the loss to the truth.

    Parameters
    ----------
    alpha
        Weight of the maximum-likelihood labels; the truth has the rest.
    likelihood, margin, steps
        As for :class:`MLLabels`.
    """

    def __init__(
        self,
        n_average: Tensor | None = None,
        alpha: float = 0.5,
        likelihood: str = "rician",
        margin: float = 0.01,
        steps: int = 40,
    ) -> None:
        super().__init__(n_average, likelihood, margin, steps)
        if not 0 <= alpha <= 1:
            raise InputError(f"labels.alpha must lie between 0 and 1, got {alpha:g}")
        self.alpha = alpha

    def _combined(self, labels, truth):
        return torch.stack([labels, truth], 1), (self.alpha, 1 - self.alpha)


class MeasurementLabels(Labels):
    """The measurements themselves: the signal of the answer has to be near them.

    Parameters
    ----------
    likelihood
        ``gaussian`` is the sum of squares of the published methods; ``rician`` the negative log-likelihood times the
        noise variance, which tends to it in bright voxels.
    """

    from_data = True

    def __init__(self, n_average: Tensor | None = None, likelihood: str = "gaussian") -> None:
        super().__init__(n_average)
        _check_likelihood(likelihood)
        self.likelihood = LIKELIHOODS[likelihood](n_average)
        self.squares = likelihood == "gaussian"

    def examples(self, signal, voxels, truth):
        """All voxels, without labels."""
        return Examples(voxels, None, ()), 0

    def loss(self, signal, weights, theta, examples):
        """Distance of the measurements from the signal of the answer ``(K, N)``."""
        voxels = examples.voxels
        clean = signal(theta, voxels.inputs)
        if self.squares:
            return (clean - voxels.y).square().sum(-1)
        likelihood = self.likelihood.to(clean.device)
        return -(likelihood(clean, voxels.noise).log_prob(voxels.y) * voxels.noise.squeeze(-1).square())


LABELS: dict[str, type[Labels]] = {
    "truth": TruthLabels,
    "maximum_likelihood": MLLabels,
    "hybrid": HybridLabels,
    "measurements": MeasurementLabels,
}


def _check_likelihood(name: str) -> None:
    if name not in LIKELIHOODS:
        raise InputError(f"labels.likelihood is {name!r}; there are {', '.join(LIKELIHOODS)}")


def ml_labels(
    signal: BoundSignal, voxels: Voxels, likelihood: str, steps: int, margin: float, n_average: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood labels ``(N, Q)`` of simulated voxels, and which of them can be trained on ``(N,)``.

    Left out are those at a bound and those whose search did not end. The labels are kept in the cache folder by
    the content of everything they are made from.
    """
    how = Search("levenberg_marquardt", steps=steps)
    settings = {
        "signal": [signal.signal.__module__, signal.signal.__name__], "fixed": signal.fixed, "tied": signal.tied,
        "s0": signal.infer_s0, "likelihood": likelihood, "search": asdict(how),
    }  # fmt: skip
    tensors = {f"acq.{k}": v for k, v in signal.acquisition.settings().items()} | {"y": voxels.y, "sigma": voxels.noise}
    tensors |= {f"input.{k}": v for k, v in voxels.inputs.items()}
    if n_average is not None:
        tensors["n_average"] = n_average

    def fit() -> dict[str, Tensor]:
        every = torch.arange(len(voxels))
        batch = Batch(voxels, every, torch.ones(len(voxels), dtype=torch.uint8), torch.ones(len(voxels)))
        found = search(signal, LIKELIHOODS[likelihood](n_average), batch, how)
        return {"labels": as_columns(signal, found.theta).float(), "converged": found.converged}

    found = kept("labels", content_key(settings, tensors), fit)
    inside = found["converged"].clone()
    theta = {p.name: found["labels"][:, i] for i, p in enumerate(signal.tissue)}
    for p in signal.tissue:
        share = p.share(theta[p.name], signal.box(p, theta))
        inside &= (share > margin) & (share < 1 - margin)
    return found["labels"], inside
