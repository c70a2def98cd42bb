"""The posterior of a whole image, block by block, of which only what maps show is kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import Nearby
from pyroqmri.measurements.arguments import as_inputs, as_tensor
from pyroqmri.measurements.voxel_inputs import complete_inputs
from pyroqmri.networks.network import NetworkEstimates
from pyroqmri.parameter import Parameter
from pyroqmri.posterior.estimates import Estimates, at_bound
from pyroqmri.posterior.goodness_of_fit import GoodnessOfFit
from pyroqmri.posterior.posterior import QUANTILES
from pyroqmri.posterior.voxel_sample import VoxelSampler
from pyroqmri.progress import progress_bar
from pyroqmri.signals.bound import S0
from pyroqmri.voxelwise.estimates import PointEstimates

BLOCK = 16_384  # voxels; their copies stay below the size of one volume
_CONE = 0.9


class Summary(Estimates):
    """Means, standard deviations, quantiles and checks of N voxels.

    Attributes
    ----------
    status
        Codes ``(N,)``: see :data:`pyroqmri.measurements.preparation.STATUS`.
    n_fitted, n_at_bound, n_beyond_bound
        Voxels with numbers, how many of them have each parameter at a bound, and in how many the data ask for more.
    """

    def __init__(self, fit: Fit, n: int, has_sd: bool = True, khat: bool = False) -> None:
        self.signal, self.has_sd, self._wants_khat = fit.signal, has_sd, khat
        self.parameters = {p.name: p for p in fit.signal.scalars}
        scale = fit.preparation.scale
        for name in fit.signal.in_scan_units:  # maps have them so
            if isinstance(p := self.parameters.get(name), Parameter):
                doc = "signal without encoding" if p.name == S0.name else p.doc
                self.parameters[name] = replace(p, lower=p.lower * scale, upper=p.upper * scale, doc=doc)
        self._kept: dict[str, Tensor] = {}
        self._codes = torch.zeros(n, dtype=torch.uint8)
        self.n_fitted = 0
        self.n_at_bound = dict.fromkeys((p.name for p in fit.signal.tissue), 0)
        self.n_beyond_bound = dict(self.n_at_bound)

    def put(self, where: slice, part: Any) -> None:
        """Take over what is known of the voxels at ``where``."""
        self._codes[where] = part.status
        self.n_fitted += len(part.batch.index)
        for name, bound in at_bound(part).items():
            self.n_at_bound[name] += int(bound.sum())
        for name, bound in part.beyond_bounds().items():
            self.n_beyond_bound[name] += int(bound.sum())
        found = {"mean": part.mean}
        if self.has_sd:
            found |= {"sd": part.sd} | {str(q): part.quantile(q) for q in QUANTILES}
        arrays = {f"{stat} {name}": values[name] for stat, values in found.items() for name in self.names}
        arrays |= {
            **part.goodness_of_fit.found(),
            **{f"axis {name}": axis for name, axis in part.axes.items()},
            "responsibilities": part.responsibilities,
        }
        arrays |= {f"contraction {name}": values for name, values in part.contraction.items()}
        if hasattr(part, "cone"):
            arrays |= {f"cone {p.name}": part.cone(_CONE, p.name) for p in self.signal.axes}
        # where voxels are reweighted the weights are there, and so is their shape
        if getattr(part, "has_khat", False) or (self._wants_khat and hasattr(part, "khat")):
            arrays["khat"] = part.khat
        for key, values in arrays.items():
            if values is None:
                continue
            if key not in self._kept:
                self._kept[key] = torch.full((len(self._codes), *values.shape[1:]), torch.nan)
            self._kept[key][where] = values.float()

    def leave(self, where: slice, status: Tensor) -> None:
        """Note the status of voxels of which none can be fitted."""
        self._codes[where] = status

    def _get(self, stat: str) -> dict[str, Tensor]:
        return {name: self._kept[f"{stat} {name}"] for name in self.names}

    @property
    def mean(self):
        """Posterior mean of each quantity ``(N,)``."""
        return self._get("mean")

    @property
    def sd(self):
        """Posterior standard deviation of each quantity ``(N,)``."""
        return self._get("sd")

    def quantile(self, q):
        """Quantile of each quantity ``(N,)``; only those that maps show."""
        return self._get(str(q))

    @property
    def contraction(self) -> dict[str, Tensor]:
        """Share of the population's variance that a voxel's measurements take away ``(N,)``, where there is one."""
        return {name: self._kept[key] for name in self.names if (key := f"contraction {name}") in self._kept}

    @property
    def goodness_of_fit(self) -> GoodnessOfFit:
        """What each voxel's measurements say against the fit ``(N,)``."""
        return GoodnessOfFit.gathered(self._kept)

    @property
    def khat(self) -> Tensor | None:
        """Pareto shape of each voxel's importance weights ``(N,)``, or None where it was not asked for."""
        return self._kept.get("khat")

    @property
    def axes(self):
        """Mean axis of each direction ``(N, 3)`` by its name."""
        return {p.name: self._kept[f"axis {p.name}"] for p in self.signal.axes}

    @property
    def responsibilities(self) -> Tensor | None:
        """Probability of each tissue class ``(N, C)``, or None."""
        return self._kept.get("responsibilities")

    @property
    def status(self) -> Tensor:
        """Status code of each voxel ``(N,)``."""
        return self._codes


class PosteriorSummary(Summary):
    """Summary of a Bayesian fit."""

    def cone(self, q: float, name: str | None = None) -> Tensor:
        """Half-angle in degrees of the cone that contains probability 0.9, ``(N,)``."""
        if q != _CONE:
            raise ValueError(f"only the cone of {_CONE} is kept, not {q}")
        return self._kept[f"cone {self.direction_name(name)}"]


class NetworkSummary(Summary):
    """Summary of a network: one estimate a voxel, and no uncertainty."""


class PointSummary(Summary, PointEstimates):
    """Summary of least squares or maximum likelihood: its sd is asymptotic, and maps say so."""


_SUMMARIES = {PointEstimates: PointSummary, NetworkEstimates: NetworkSummary}


def summarise(
    fit: Fit,
    y: Any,
    sigma: Any = None,
    progress: bool = False,
    inputs: Mapping[str, Any] | None = None,
    khat: bool = False,
    nearby: Nearby | None = None,
    sampler: VoxelSampler | None = None,
) -> Summary:
    """What a fit says of voxels ``(N, M)``, in memory that does not grow with M.

    Parameters
    ----------
    sigma
        Noise level, one number or ``(N,)``; the fit's when None.
    inputs
        Per-voxel inputs of the signal, each ``(N,)``.
    khat
        Find the Pareto shape of every voxel's importance weights, which costs as much as all else or more.
    nearby
        What the rest of the image states about each voxel, of a fit whose prior is a field.
    sampler
        Keeps some voxels in full.
    """
    y, known = as_tensor(y), as_inputs(inputs)
    complete = complete_inputs(fit.signal.signal, known, len(y))
    level = torch.as_tensor(fit.noise.level if sigma is None else sigma, dtype=torch.float32)
    summary: Summary | None = None
    blank: list[tuple[slice, Tensor]] = []
    with progress_bar("maps", len(y), progress) as report:
        for i in range(0, len(y), BLOCK):
            where = slice(i, min(i + BLOCK, len(y)))
            part_level = level[where] if level.dim() else level
            # a block of background has nobody to ask
            part_inputs = {name: value[where] for name, value in complete.items()}
            batch = fit.preparation(y[where], part_level, fit.acquisition, part_inputs)
            if len(batch.voxels) == 0:
                blank.append((where, batch.status))
                continue
            part = fit.posterior(
                y[where], sigma=part_level, inputs={k: v[where] for k, v in known.items()},
                neighbours=True if nearby is None else nearby.at(where),
            )  # fmt: skip
            if summary is None:
                kind = next((kind for answer, kind in _SUMMARIES.items() if isinstance(part, answer)), PosteriorSummary)
                summary = kind(fit, len(y), part.has_sd, khat)
            if sampler is not None:
                sampler.watch(part, where.start)
            summary.put(where, part)
            report(where.stop)
    if summary is None:
        raise ValueError("no voxel could be fitted")
    for where, status in blank:
        summary.leave(where, status)
    return summary
