"""The exact posterior mean under a prior that can be sampled: the lowest squared error any estimator can reach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals import SignalModel
from pyroqmri.simulate import simulate

_VALUES = 4_000_000  # numbers that a chunk's largest array may hold
_NODES = 24  # of the Bessel function in the measurement: errors stay below those of float32 up to SNR 100
_SHIFT = 0.3  # noise levels added to a measurement, whose logarithm the nodes are spread over


@dataclass(frozen=True)
class PriorMean:
    """Posterior means of voxels by weighting one sample of the prior with each voxel's likelihood.

    Parameters
    ----------
    values
        The sample, each parameter ``(K,)``.
    signals
        Their noise-free measurements ``(K, M)``.
    sigma, rician
        The noise.
    """

    values: dict[str, Tensor]
    signals: Tensor
    sigma: float
    rician: bool

    def __call__(self, y: Tensor) -> dict[str, Tensor]:
        """Posterior mean of each parameter ``(N,)`` of measurements ``(N, M)``, and ``n_effective`` points."""
        table = torch.stack([*self.values.values(), torch.ones(len(self.signals))], -1)
        unit = y.float() / self.sigma
        right, top = self._terms(float(unit.max())) if len(unit) else (self._gaussian(), 0.0)
        parts = [torch.zeros(0, table.shape[1])]
        for part in unit.split(max(1, _VALUES // len(self.signals))):
            log_weight = self._features(part, top) @ right
            weight = torch.exp(log_weight - log_weight.amax(-1, keepdim=True))
            sums = weight @ table
            effective = sums[:, -1:].square() / weight.square().sum(-1, keepdim=True)
            parts.append(torch.cat([sums[:, :-1] / sums[:, -1:], effective], -1))
        return dict(zip([*self.values, "n_effective"], torch.cat(parts).unbind(-1), strict=True))

    def _terms(self, top: float) -> tuple[Tensor, float]:
        """What multiplies the features of measurements up to ``top`` noise levels ``(F, K)``.

        But for what depends on y alone a log-likelihood is y s - s^2 / 2 + log(exp(-y s) I0(y s)).
        The last term is a Chebyshev series in log(y + shift), so all of it is one matrix product.
        """
        if not self.rician:
            return self._gaussian(), top
        order = torch.arange(_NODES, dtype=torch.float64)
        position = torch.cos(math.pi * (order + 0.5) / _NODES)
        node = _SHIFT * torch.exp((position + 1) / 2 * math.log(top / _SHIFT + 1)) - _SHIFT
        value = torch.special.i0e(node.float()[:, None] * (self.signals / self.sigma).flatten()).log()
        transform = torch.cos(math.pi * order[:, None] * (order + 0.5) / _NODES) * 2 / _NODES
        transform[0] /= 2
        series = (transform.float() @ value).reshape(_NODES, *self.signals.shape)
        return torch.cat([self._gaussian(), series.permute(2, 0, 1).flatten(0, 1)]), top

    def _gaussian(self) -> Tensor:
        unit = self.signals / self.sigma
        return torch.cat([unit.T, -unit.square().sum(-1)[None] / 2])

    def _features(self, unit: Tensor, top: float) -> Tensor:
        """Measurements in noise levels, a one, and where Rician the Chebyshev polynomials of each ``(n, F)``."""
        plain = torch.cat([unit, torch.ones(len(unit), 1)], -1)
        if not self.rician:
            return plain
        position = (2 * torch.log1p(unit.double() / _SHIFT) / math.log1p(top / _SHIFT) - 1).clamp(-1, 1)
        series = torch.cos(torch.arange(_NODES) * position.acos()[..., None]).float()
        return torch.cat([plain, series.flatten(1)], -1)


def prior_mean(
    signal: type[SignalModel],
    acquisition: Acquisition,
    ranges: Mapping[str, tuple[float, float]],
    *,
    snr: float,
    noise: str = "rician",
    n_points: int = 2**15,
    seed: int = 0,
) -> PriorMean:
    """The estimator that no other beats where truths are uniform in ``ranges``, by quasi-Monte Carlo.

    Parameters
    ----------
    signal, acquisition, snr, noise
        What is measured; S0 is 1 unless the ranges have it.
    ranges
        Of each parameter.
    n_points
        Points of the prior, a power of two; ``n_effective`` of the answer tells whether they are enough.

    Raises
    ------
    InputError
        When the noise is neither rician nor gaussian.
    """
    if noise not in ("rician", "gaussian"):
        raise InputError(f"noise is {noise!r}; choose rician or gaussian")
    points = torch.quasirandom.SobolEngine(len(ranges), scramble=True, seed=seed).draw(n_points)
    low, high = (torch.tensor(edge) for edge in zip(*ranges.values(), strict=True))
    values = dict(zip(ranges, (low + (high - low) * points).unbind(-1), strict=True))
    signals = simulate(signal, acquisition, values, noise="none").float()
    return PriorMean(values, signals, 1 / snr, noise == "rician")
