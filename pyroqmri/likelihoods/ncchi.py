"""Noise of magnitude images that are sums of squares over coils."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyroqmri.distributions import NCChi, log_g_and_slope, log_norm, ncchi_fisher, ncchi_moments
from pyroqmri.errors import InputError
from pyroqmri.likelihoods.base import Information
from pyroqmri.likelihoods.rician import Moments, RicianLikelihood


class NCChiLikelihood(RicianLikelihood):
    """Root of the sum of squares of the magnitudes of several coils; one coil is exactly Rician.

    Parameters
    ----------
    coils
        Number of coils. Coils whose noise is correlated, and parallel imaging, make the effective number smaller
        than that of the array, so it need not be whole (Aja-Fernandez et al. 2011, doi:10.1002/mrm.22701).

    Source: Constantinides et al. 1997, doi:10.1002/mrm.1910380524.
    """

    def __init__(
        self, n_average: Tensor | None = None, n_s0: int | None = None, learn: bool = False, coils: float = 1.0
    ) -> None:
        super().__init__(n_average, n_s0, learn)
        self.coils = self.coils_of({"coils": coils})

    @staticmethod
    def coils_of(settings: Mapping[str, Any]) -> float:
        """The number of coils that a recipe's table of the likelihood has; one where it has none."""
        coils = settings.get("coils", 1.0)
        if isinstance(coils, bool) or not isinstance(coils, int | float) or not 1 <= coils <= 256:
            raise InputError(f"likelihood.coils must be a number from 1 to 256, got {coils!r}")
        return float(coils)

    def _single(self, signal, sigma):
        return (
            super()._single(signal, sigma) if self.coils == 1 else NCChi(signal, sigma, self.coils, validate_args=False)
        )

    def _log_power(self, y):
        return (2 * self.coils - 1) * y.log()

    def _single_moments(self, signal, sigma):
        if self.coils == 1:
            return super()._single_moments(signal, sigma)
        return Moments(*ncchi_moments(signal, sigma, self.coils))

    def _single_information(self, signal, y, sigma):
        if self.coils == 1:
            return super()._single_information(signal, y, sigma)
        x, a = y / sigma, signal / sigma
        log_g, slope = log_g_and_slope(x * a, self.coils)
        shape = (2 * self.coils - 1) * x.log() - log_norm(self.coils)
        log_prob = shape - sigma.log() - (x - a).square() / 2 + log_g
        return Information(log_prob, (x - a + x * slope) / sigma, ncchi_fisher(signal, sigma, self.coils))
