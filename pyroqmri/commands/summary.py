"""The posterior of a whole image, block by block, of which only what maps show is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyroqmri.commands.summary_blocks import CONE, Block, Blocks
from pyroqmri.errors import InputError
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import Nearby
from pyroqmri.measurements.arguments import as_inputs, as_tensor
from pyroqmri.measurements.status import STATUS
from pyroqmri.networks.network import NetworkEstimates
from pyroqmri.parameter import Parameter
from pyroqmri.posterior.estimates import Estimates
from pyroqmri.posterior.goodness_of_fit import GoodnessOfFit
from pyroqmri.posterior.voxel_sample import VoxelSample, joined
from pyroqmri.progress import progress_bar
from pyroqmri.signals.bound import S0
from pyroqmri.voxelwise.estimates import PointEstimates


class Summary(Estimates):
    """Means, standard deviations, quantiles and checks of N voxels.

    Attributes
    ----------
    status
        Codes ``(N,)``: see :data:`pyroqmri.measurements.preparation.STATUS`.
    sample
        Some voxels in full, where they were asked for.
    n_fitted, n_at_bound, n_beyond_bound
        Voxels with numbers, how many of them have each parameter at a bound, and in how many the data ask for more.
    """

    def __init__(self, fit: Fit, n: int, has_sd: bool = True) -> None:
        self.signal, self.has_sd = fit.signal, has_sd
        self.parameters = {p.name: p for p in fit.signal.scalars}
        scale = fit.preparation.scale
        for name in fit.signal.in_scan_units:  # maps have them so
            if isinstance(p := self.parameters.get(name), Parameter):
                doc = "signal without encoding" if p.name == S0.name else p.doc
                self.parameters[name] = replace(p, lower=p.lower * scale, upper=p.upper * scale, doc=doc)
        self._kept: dict[str, Tensor] = {}
        self._codes = torch.zeros(n, dtype=torch.uint8)
        self.sample: VoxelSample | None = None
        self.n_fitted = 0
        self.n_at_bound = dict.fromkeys((p.name for p in fit.signal.tissue), 0)
        self.n_beyond_bound = dict(self.n_at_bound)

    def put(self, where: slice, block: Block) -> None:
        """Take over what is known of the voxels at ``where``."""
        self._codes[where] = block.status
        self.n_fitted += block.n_fitted
        for total, counts in ((self.n_at_bound, block.n_at_bound), (self.n_beyond_bound, block.n_beyond_bound)):
            for name, count in counts.items():
                total[name] += count
        for key, values in block.arrays.items():
            if key not in self._kept:
                self._kept[key] = torch.full((len(self._codes), *values.shape[1:]), torch.nan)
            self._kept[key][where] = values

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
    def neighbours(self) -> dict[str, Tensor]:
        """Share of what is known of each parameter that neighbours have stated ``(N,)``, where there are any."""
        return {name: self._kept[key] for name in self.names if (key := f"neighbours {name}") in self._kept}

    @property
    def alone(self) -> Tensor | None:
        """Probability that each voxel is mapped by itself ``(N,)``, where neighbours are known."""
        return self._kept.get("alone")

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
        if q != CONE:
            raise ValueError(f"only the cone of {CONE} is kept, not {q}")
        return self._kept[f"cone {self.direction_name(name)}"]


class NetworkSummary(Summary):
    """Summary of a network: one estimate a voxel, and no uncertainty."""


class PointSummary(Summary, PointEstimates):
    """Summary of least squares or maximum likelihood: its sd is asymptotic, and maps say so."""


_SUMMARIES: dict[type, type[Summary]] = {PointEstimates: PointSummary, NetworkEstimates: NetworkSummary}


def summarise(
    fit: Fit,
    y: Any,
    sigma: Any = None,
    progress: bool = False,
    inputs: Mapping[str, Any] | None = None,
    khat: bool = False,
    nearby: Nearby | None = None,
    jobs: int = 1,
    chosen: NDArray[np.bool_] | None = None,
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
    jobs
        Processes that share the blocks, each with one thread; one works in this process.
    chosen
        Voxels ``(N,)`` to keep in full, as ``sample`` of the summary.

    Raises
    ------
    InputError
        When a process is lost, as for want of memory.
    InputError
        When no voxel can be fitted.
    """
    blocks = Blocks(fit, as_tensor(y), sigma, as_inputs(inputs), khat, nearby, chosen)
    summary: Summary | None = None
    blank: list[tuple[slice, Tensor]] = []
    samples = dict[int, VoxelSample]()
    with progress_bar("maps", blocks.n, progress) as report:
        done = 0
        for where, block in blocks.run(jobs):
            done += where.stop - where.start
            if block.kind is None:
                blank.append((where, block.status))
                continue
            if summary is None:
                summary = _SUMMARIES.get(block.kind, PosteriorSummary)(fit, blocks.n, block.has_sd)
            summary.put(where, block)
            if block.sample is not None:
                samples[where.start] = block.sample
            report(done)
    if summary is None:
        raise _nothing_fitted(blank)
    for where, status in blank:
        summary.leave(where, status)
    summary.sample = joined(samples)
    return summary


def _nothing_fitted(blank: Sequence[tuple[slice, Tensor]]) -> InputError:
    codes, counts = torch.cat([status for _, status in blank]).unique(return_counts=True)
    found = ", ".join(f"{n} x {STATUS[code]}" for code, n in zip(codes.tolist(), counts.tolist(), strict=True))
    return InputError(
        f"no voxel of the mask can be fitted: {found}; the mask, the noise level or the measurements without encoding "
        "(S0) are not those of these data"
    )
