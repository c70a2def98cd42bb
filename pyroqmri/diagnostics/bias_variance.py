"""Bias, spread and error of an estimator over a grid of truths, each measured many times."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals import SignalModel
from pyroqmri.simulate import simulate

STATISTICS = ("bias", "sd", "rmse")


@dataclass(frozen=True)
class BiasVariance:
    """How an estimator does at every point of a grid of truths.

    Parameters
    ----------
    axes
        Values of each parameter ``(G,)``; the grid is their product, in this order.
    mean
        Average estimate of each parameter over the noise ``(G, G, ...)``.
    variance
        Of the estimate over the noise, unbiased, ``(G, G, ...)``.
    n_draws
        How often each truth was measured.
    n_missing
        Measurements without an estimate, left out.
    """

    axes: dict[str, Tensor]
    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    n_draws: int
    n_missing: int = 0

    def truth(self, name: str) -> Tensor:
        """Value of a parameter, shaped to broadcast over the grid."""
        shape = [-1 if other == name else 1 for other in self.axes]
        return self.axes[name].reshape(shape)

    def bias(self, name: str) -> Tensor:
        """Average estimate less truth at every point of the grid."""
        return self.mean[name] - self.truth(name)

    def mse(self, name: str) -> Tensor:
        """Mean squared error at every point of the grid."""
        return self.bias(name).square() + self.variance[name] * (1 - 1 / self.n_draws)

    def point(self, statistic: str, name: str) -> Tensor:
        """Bias, sd or RMSE at every point of the grid."""
        if statistic == "bias":
            return self.bias(name)
        return (self.variance[name] if statistic == "sd" else self.mse(name)).sqrt()

    def marginal(self, statistic: str, name: str, along: str | None = None) -> Tensor:
        """Bias, sd or RMSE over the values of one parameter ``(G,)``, its own or ``along`` another.

        The others are averaged over: biases as they are, sds and RMSEs by their squares.
        """
        over = self._others(name if along is None else along)
        if statistic == "bias":
            return self.bias(name).mean(over)
        return (self.variance[name] if statistic == "sd" else self.mse(name)).mean(over).sqrt()

    def mapping(self, name: str) -> Tensor:
        """Average estimate for each true value ``(G,)``: where the arrows of information compression end."""
        return self.axes[name] + self.marginal("bias", name)

    def slope(self, name: str) -> float:
        """Slope of the bias over the truth: 0 keeps differences between tissues, -1 tells none apart."""
        x = self.axes[name] - self.axes[name].mean()
        return float((x * self.marginal("bias", name)).sum() / x.square().sum())

    def overall(self, name: str) -> dict[str, float]:
        """One row of a table.

        ``bias`` is signed and over the whole grid, ``size_of_bias`` the mean absolute value of the bias curve over the
        parameter's own values, ``sd`` and ``rmse`` root mean squares over the grid, ``slope`` that of the bias curve.
        """
        return {
            "bias": float(self.bias(name).mean()),
            "size_of_bias": float(self.marginal("bias", name).abs().mean()),
            "slope": self.slope(name),
            "sd": float(self.variance[name].mean().sqrt()),
            "rmse": float(self.mse(name).mean().sqrt()),
        }

    def _others(self, name: str) -> tuple[int, ...]:
        return tuple(i for i, other in enumerate(self.axes) if other != name)


def grid_of(ranges: Mapping[str, tuple[float, float]], n: int = 10) -> dict[str, Tensor]:
    """``n`` evenly spaced values of each parameter, ends included."""
    if n < 2:
        raise InputError(f"a grid needs at least 2 values per dimension, got {n}")
    return {name: torch.linspace(low, high, n) for name, (low, high) in ranges.items()}


def bias_variance(
    estimate: Callable[[Tensor], Mapping[str, Tensor]],
    signal: type[SignalModel],
    acquisition: Acquisition,
    axes: Mapping[str, Tensor],
    *,
    snr: float,
    n_draws: int = 500,
    noise: str = "rician",
    seed: int = 0,
) -> BiasVariance:
    """Measure every truth of a grid ``n_draws`` times and estimate it anew each time.

    Parameters
    ----------
    estimate
        From measurements ``(N, M)`` to an estimate of each parameter ``(N,)``, such as
        ``lambda y: fit.posterior(y).mean``.
    signal, acquisition, snr, noise
        What is simulated; S0 is 1 unless the grid has it.
    axes
        Values of each parameter ``(G,)``, see :func:`grid_of`.
    n_draws, seed
        Noise draws a truth; the same seed makes the same noise for every estimator.

    Raises
    ------
    InputError
        When there are fewer than 2 draws, from which no spread can be told.
    """
    if n_draws < 2:
        raise InputError(f"the spread under noise needs at least 2 draws, got {n_draws}")
    shape = tuple(len(values) for values in axes.values())
    points = torch.meshgrid(*axes.values(), indexing="ij")
    theta = {name: values.flatten() for name, values in zip(axes, points, strict=True)}
    count = {name: torch.zeros(theta[name].shape, dtype=torch.float64) for name in axes}
    mean, squares = ({name: torch.zeros_like(c) for name, c in count.items()} for _ in range(2))
    for i in range(n_draws):
        y = simulate(signal, acquisition, theta, snr=snr, noise=noise, seed=seed * 1_000_003 + i)
        found = estimate(y)
        for name in axes:
            value = found[name].double()
            good = torch.isfinite(value)
            count[name] += good
            step = torch.where(good, value - mean[name], 0)
            mean[name] += step / count[name].clamp_min(1)
            squares[name] += step * torch.where(good, value - mean[name], 0)
    variance = {name: (squares[name] / (count[name] - 1).clamp_min(1)).reshape(shape) for name in axes}
    missing = sum(int(n_draws * c.numel() - c.sum()) for c in count.values())
    return BiasVariance(
        dict(axes), {name: m.reshape(shape) for name, m in mean.items()}, variance, n_draws, missing // len(axes)
    )
