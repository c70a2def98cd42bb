"""What a choice of measurements is worth by simulation, and not by the criterion that it was chosen by."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.calibration.check import LEAST, check
from pyroqmri.calibration.simulated_voxels import own_voxels
from pyroqmri.fitting.fit import Fit
from pyroqmri.posterior import Posterior

LEVEL = 0.9


@dataclass(frozen=True)
class Simulated:
    """One choice on simulated voxels of the population, each entry by scalar quantity.

    Attributes
    ----------
    variance
        Mean posterior variance.
    rmse
        Root mean squared error of the posterior mean.
    coverage
        Share of truths inside central 90 % intervals.
    """

    variance: dict[str, float]
    rmse: dict[str, float]
    coverage: dict[str, float]

    def record(self) -> dict[str, Any]:
        """As plain values, for a file."""
        return {"variance": self.variance, "rmse": self.rmse, "coverage": self.coverage}


@torch.no_grad()
def simulated(
    fit: Fit, candidates: Acquisition, choices: Mapping[str, Tensor], n: int = 1000, seed: int = 0,
    snr: float | None = None,
) -> dict[str, Simulated]:  # fmt: skip
    """Measure voxels drawn from a fit's population by each of several choices, and fit them by the population.

    Parameters
    ----------
    fit
        A fit whose guide takes any protocol.
    choices
        Indices of candidates by name.
    n, seed
        How many voxels, the same for every choice, noise of a common candidate included.
    snr
        S0 over the noise level; the fit's own when None.

    Raises
    ------
    InputError
        When the fit cannot be applied to another protocol.
    """
    voxels, found = own_voxels(_at_one_level(fit, candidates), n, seed, snr), {}
    for name, index in choices.items():
        inputs = voxels.inputs or None
        posterior = fit.on(candidates[index]).posterior(voxels.y[:, index], voxels.sigma, inputs)
        assert isinstance(posterior, Posterior)
        fitted = posterior.batch.index
        intervals = posterior.interval(LEVEL)
        names = [key for key, p in posterior.parameters.items() if p.unit != "rad"]
        truth = {key: voxels.truth[key][fitted] for key in names}
        low = {key: intervals[key][fitted, 0] for key in names}
        high = {key: intervals[key][fitted, 1] for key in names}
        found[name] = Simulated(
            {key: float(posterior.sd[key][fitted].square().mean()) for key in names},
            {key: float((posterior.mean[key][fitted] - truth[key]).square().mean().sqrt()) for key in names},
            {key: float(((low[key] < truth[key]) & (truth[key] < high[key])).double().mean()) for key in names},
        )
    return found


def checked(fit: Fit, chosen: Acquisition, n: int = 1000, seed: int = 0, snr: float | None = None) -> str:
    """What :func:`pyroqmri.check` finds on a chosen protocol, in words; empty for fewer voxels than have power.

    Parameters
    ----------
    fit, n, seed, snr
        As in :func:`simulated`.
    chosen
        The measurements.
    """
    return check(_at_one_level(fit, chosen), n=n, seed=seed, snr=snr).verdict if n >= LEAST else ""


def _at_one_level(fit: Fit, acquisition: Acquisition) -> Fit:
    """The fit on a protocol at one noise level, as simulated voxels have no places."""
    found = fit.on(acquisition)
    one = isinstance(found.noise.level, Tensor)
    return replace(found, noise=replace(found.noise, level=found.noise.sigma)) if one else found
