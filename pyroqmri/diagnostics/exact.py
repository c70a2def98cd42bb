"""The exact posterior mean under a prior that can be sampled: the lowest squared error any estimator can reach."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals import SignalModel
from pyroqmri.simulate import simulate

_VALUES = 4_000_000  # numbers that a chunk's largest array may hold
_FACTORS = 8  # Bessel functions multiplied before a logarithm: sixteen of them can leave float32


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
        parts = []
        step = max(1, _VALUES // len(self.signals))
        for part in y.float().split(step):
            log_weight = self._log_likelihood(part)
            weight = torch.exp(log_weight - log_weight.amax(-1, keepdim=True))
            sums = weight @ table
            effective = sums[:, -1:].square() / weight.square().sum(-1, keepdim=True)
            parts.append(torch.cat([sums[:, :-1] / sums[:, -1:], effective], -1))
        return dict(zip([*self.values, "n_effective"], torch.cat(parts).unbind(-1), strict=True))

    def _log_likelihood(self, y: Tensor) -> Tensor:
        """Up to what depends on the measurements alone ``(n, K)``."""
        unit_y, unit_s = y / self.sigma, self.signals / self.sigma
        total = unit_y @ unit_s.T - unit_s.square().sum(-1) / 2
        if not self.rician:
            return total
        product = torch.ones_like(total)
        for m in range(y.shape[1]):
            product *= torch.special.i0e(unit_y[:, m, None] * unit_s[:, m])
            if m % _FACTORS == _FACTORS - 1 or m == y.shape[1] - 1:
                total += product.log()
                product.fill_(1)
        return total


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
