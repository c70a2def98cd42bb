"""The numbers that the verdict on a fit is taken from, and how they are read back from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.measurements.status import NOT_CONVERGED, OUTSIDE
from pyroqmri.parameter import Parameter
from pyroqmri.posterior.goodness_of_fit import P_MISFIT
from pyroqmri.report.folder_of_maps import FolderOfMaps
from pyroqmri.signals import SIGNALS

KHAT_BAD = 0.7
BOUND_MARGIN = 0.01  # of the range; what lies closer to a bound is at it
RESIDUAL_P, PREDICTIVE_P = "residual p-value", "posterior predictive p-value"


class ModelSize(NamedTuple):
    """Free parameters of a voxel, measurements that the model sees, and whether these are means over directions."""

    n_free: int
    n_seen: int
    averaged: bool


@dataclass(frozen=True)
class FitNumbers:
    """The evidence against a fit; each share is of the voxels that have a number.

    Parameters
    ----------
    signal
        Name of the signal model.
    noise_factor
        Learned over measured noise level; None where it was not learned.
    size
        Parameters and measurements; None where they are not known.
    at_bound, symbols
        Share of voxels with each free parameter at a bound, and the symbols of those parameters, by name.
    beyond_bound
        Share of voxels whose data ask for a value beyond the bound at which each lies; None where that is not known.
    p_name
        What kind of p-value ``misfit`` is of.
    misfit, bad_khat
        Share with a p-value below, and a Pareto k above, what can be trusted; None where these were not found.
    not_converged
        Share of all voxels in the mask.
    uninformed
        Parameters that the protocol does not determine.
    causes
        Kinds of the causes of misfit that the residuals show.
    predictive
        Record of :class:`pyroqmri.calibration.predicted.Predicted`; empty where no volume was kept aside.
    codes
        Share of the voxels in the mask with each status code that is there.
    """

    signal: str
    noise_factor: float | None
    size: ModelSize | None
    at_bound: Mapping[str, float]
    symbols: Mapping[str, str]
    p_name: str
    misfit: float | None
    bad_khat: float | None
    not_converged: float
    uninformed: tuple[str, ...] = ()
    beyond_bound: Mapping[str, float] | None = None
    causes: tuple[str, ...] = ()
    predictive: Mapping[str, Any] = field(default_factory=dict)
    codes: Mapping[int, float] = field(default_factory=dict)


def model_size(signal: str, acquisition: Acquisition, preparation: Preparation, held: Mapping[str, Any]) -> ModelSize:
    """Sizes of a signal's fit in which the parameters ``held`` are fixed or tied."""
    n_free = sum(p.n_latents for p in SIGNALS[signal].parameters if p.name not in held)
    n_free += preparation.s0 == "inferred" and SIGNALS[signal].has_s0(acquisition)
    return ModelSize(n_free, len(preparation.seen(acquisition).groups), preparation.average)


def share_misfit(p: NDArray | None) -> float | None:
    """Share of p-values ``(N,)`` that are too small for noise; None without any."""
    return None if p is None else _share(p, lambda values: values < P_MISFIT)


def share_bad_khat(k: NDArray | None) -> float | None:
    """Share of Pareto shapes ``(N,)`` that are too large to trust; None without any."""
    return None if k is None else _share(k, lambda values: values > KHAT_BAD)


def share_not_converged(codes: NDArray) -> float:
    """Share of the status codes ``(N,)`` inside the mask that say so."""
    return int((codes == NOT_CONVERGED).sum()) / max(int((codes != OUTSIDE).sum()), 1)


def share_of_codes(codes: NDArray) -> dict[int, float]:
    """Share of the voxels in the mask with each of the status codes ``(N,)``, the most frequent first."""
    found, counts = np.unique(codes[codes != OUTSIDE], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(found[i]): float(counts[i] / counts.sum()) for i in order}


def _share(values: NDArray, bad: Any) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.mean(bad(values))) if values.size else None


def numbers_of(folder: FolderOfMaps) -> FitNumbers:
    """The numbers of a fit as its files have them."""
    sigma = folder.record.get("sigma")
    shares = _bound_shares(folder)
    return FitNumbers(
        signal=folder.signal,
        noise_factor=sigma.get("learned_factor") if isinstance(sigma, dict) else None,
        size=_recorded_size(folder),
        at_bound=shares,
        symbols={name: folder.parameter(name).symbol for name in shares if folder.has(name, "mean")},
        p_name=p_name(folder),
        misfit=share_misfit(_values(folder, "ppc")),
        bad_khat=share_bad_khat(_values(folder, "khat")),
        not_converged=share_not_converged(folder.status),
        uninformed=tuple(map(str, folder.record.get("uninformed", ()))),
        beyond_bound=folder.record.get("beyond_bound") or None,
        causes=_recorded_causes(folder),
        predictive=_recorded_predictive(folder),
        codes=share_of_codes(folder.status),
    )


def _recorded_causes(folder: FolderOfMaps) -> tuple[str, ...]:
    found = folder.record.get("causes")
    entries = found if isinstance(found, list) else []
    return tuple(str(cause["kind"]) for cause in entries if isinstance(cause, dict) and "kind" in cause)


def _recorded_predictive(folder: FolderOfMaps) -> dict[str, Any]:
    """The record of volumes kept aside, if it is one."""
    found = folder.record.get("predictive")
    if not isinstance(found, dict) or not isinstance(found.get("volumes"), list):
        return {}
    shares = [found.get("inside")]
    for group in ("by_setting", "by_class", "by_status"):
        values = found.get(group)
        shares += list(values.values()) if isinstance(values, dict) else [None]
    return found if all(isinstance(share, int | float) for share in shares) else {}


def p_name(folder: FolderOfMaps) -> str:
    """What kind of p-value the check map holds."""
    said = str(folder.sidecar("", "ppc").get("Description", "")) if folder.has("", "ppc") else ""
    return RESIDUAL_P if said.startswith("p-value of the residual") else PREDICTIVE_P


def _values(folder: FolderOfMaps, description: str) -> NDArray | None:
    """A check map inside the mask ``(N,)``, if there is one."""
    return folder.volume("", description)[folder.mask] if folder.has("", description) else None


def _recorded_size(folder: FolderOfMaps) -> ModelSize | None:
    found = _recorded_protocol(folder)
    if folder.signal not in SIGNALS or found is None:
        return None
    return model_size(folder.signal, *found, {**folder.record.get("fixed", {}), **folder.record.get("tied", {})})


def _recorded_protocol(folder: FolderOfMaps) -> tuple[Acquisition, Preparation] | None:
    record = folder.record
    if "preparation" not in record or "protocol" not in record:
        return None
    acquisition = Acquisition(**{name: torch.tensor(value) for name, value in record["protocol"].items()})
    return acquisition, Preparation.of(record["preparation"], acquisition)


def s0_count(folder: FolderOfMaps) -> int | None:
    """Measurements that each voxel's S0 was made of; None where it was not measured, or nothing is known of it."""
    found = _recorded_protocol(folder)
    return None if found is None else found[1].seen(found[0]).n_s0


def _bound_shares(folder: FolderOfMaps) -> dict[str, float]:
    """Share of voxels with each free parameter at a bound: as recorded, else from the maps."""
    recorded = {k: v for k, v in folder.record.get("at_bound", {}).items() if v is not None}
    if recorded or folder.signal not in SIGNALS:
        return recorded
    kept = {**folder.record.get("fixed", {}), **folder.record.get("tied", {})}
    scalars = [p for p in SIGNALS[folder.signal].parameters if isinstance(p, Parameter)]
    free = [p for p in scalars if folder.has(p.name, "mean") and p.name not in kept]
    return {p.name: _at_bound(p, folder.volume(p.name, "mean")[folder.mask]) for p in free}


def _at_bound(parameter: Parameter, values: NDArray) -> float:
    share = parameter.share(torch.from_numpy(values[np.isfinite(values)])).numpy()
    outside = (share < BOUND_MARGIN) | (share > 1 - BOUND_MARGIN)
    return float(np.mean(outside)) if share.size else 0.0
