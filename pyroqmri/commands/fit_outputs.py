"""What a fit says of a scan, written into a folder."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyroqmri.calibration.predicted import Predicted, predicted
from pyroqmri.commands.inputs import per_voxel
from pyroqmri.commands.summary import PointSummary, Summary, summarise
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import Nearby
from pyroqmri.fitting.save import save_fit
from pyroqmri.fitting.scan_misfit import scan_causes
from pyroqmri.io import Scan
from pyroqmri.maps import write_maps
from pyroqmri.measurements.status import UNFITTED
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.voxel_sample import spread_over
from pyroqmri.protocol_checks.judge import known_nuisances
from pyroqmri.protocol_checks.no_signal import mask_in_air
from pyroqmri.report import write_report
from pyroqmri.report.fit_numbers import (
    PREDICTIVE_P,
    RESIDUAL_P,
    FitNumbers,
    model_size,
    share_bad_khat,
    share_misfit,
    share_not_converged,
    share_of_codes,
)
from pyroqmri.report.verdict import Verdict, judge
from pyroqmri.report.voxel_file import VOXELS, write_voxels
from pyroqmri.signals import SIGNALS

NETCDF_VOXELS = 100


def write_results(
    fit: Fit,
    scan: Scan,
    folder: Path,
    *,
    level: Any = None,
    notes: Sequence[str] = (),
    left_out: Mapping[str, Any] | None = None,
    khat: bool = False,
    predictive: bool = False,
    pages: bool = True,
    jobs: int = 1,
    progress: bool = False,
) -> Summary:
    """Write maps, the fit with its record, a sample of the posterior and the report.

    Parameters
    ----------
    level
        Noise level of the scan's voxels where it is a map ``(N,)``; anything else is the fit's own.
    notes
        Sentences to stand beside the scan's own.
    left_out
        What was left out of the scan (:func:`pyroqmri.commands.left_out.left_out_record`).
    khat
        Map the PSIS diagnostic also where nothing is reweighted.
    predictive
        Predict volumes that are kept aside, and record how often intervals contain them.
    pages
        Write the report and the sample of the posterior, which take seconds.
    jobs
        Processes that share the maps.
    """
    begin = time.monotonic()
    own = per_voxel(level)
    place = np.argwhere(scan.mask)
    nearby = fit.nearby(scan.y, own, scan.inputs, voxels=place) if fit.is_field else None
    chosen = _chosen(fit, scan) if pages else None
    summary = summarise(fit, scan.y, own, progress, scan.inputs, khat, nearby, jobs, chosen)
    fit.name_causes(*scan_causes(fit, scan.y, own, scan.inputs, place))
    # a map of this scan's noise means nothing to the next
    kept = replace(fit, noise=replace(fit.noise, level=fit.noise.sigma, field=None))
    kept.seconds = {**fit.seconds, "posterior": time.monotonic() - begin}
    _, status = write_maps(
        summary, scan.ref, scan.mask, folder, signal_name=fit.signal_name, suffix=SIGNALS[fit.signal_name].suffix,
        recipe=fit.recipe.name, likelihood=fit.recipe.kind("likelihood"), sources=[scan.ref.path.name],
        khat=summary.khat is not None,
    )  # fmt: skip
    codes, counts = np.unique(status, return_counts=True)
    aside = predicted(fit, scan.y, own, scan.inputs) if predictive else None
    numbers = fit_numbers(fit, summary, status, aside)
    alarms = [*scan.warnings, *_alarms(judge(numbers), summary.status.numpy(), scan.mask)]
    save_fit(kept, folder / "fit", {
        "notes": [*scan.notes, *_notes(fit), *notes],
        "sources": [scan.ref.path.name],
        "n_mapped": len(scan.y),
        "left_out": dict(left_out or {}),
        "at_bound": dict(numbers.at_bound),
        "beyond_bound": dict(numbers.beyond_bound or {}),
        "status_counts": {str(code): int(n) for code, n in zip(codes, counts, strict=True)},
        "warnings": list(dict.fromkeys([*fit.warnings, *alarms])),  # the fit and the scan may name the same
        "alarms": alarms,
        "predictive": None if aside is None else aside.record(),
    })  # fmt: skip
    if pages:
        _write_netcdf(fit, scan, summary, own, nearby, folder / "posterior.nc")
        if summary.sample is not None:
            settings = fit.preparation.seen(fit.acquisition).acquisition.settings()
            write_voxels(folder / VOXELS, summary.sample, place, {k: v.cpu().numpy() for k, v in settings.items()})
        write_report(folder)
    return summary


def _notes(fit: Fit) -> list[str]:
    """Which S0 the fit used, and which populations it took as known."""
    used = [fit.preparation.note(fit.acquisition)] if SIGNALS[fit.signal_name].has_s0(fit.acquisition) else []
    return used + known_nuisances(fit.signal_name, fit.recipe.tables, (*fit.fixed, *fit.tied))


def _alarms(verdict: Verdict, status: np.ndarray, mask: np.ndarray) -> list[str]:
    """What the verdict alarms of, and whether the mask lies in air where it does not name that already."""
    found = [check.plain for check in verdict.alarms]
    return found if any(check.kind == "few" for check in verdict.alarms) else [*mask_in_air(status, mask), *found]


def _chosen(fit: Fit, scan: Scan) -> np.ndarray:
    """Voxels ``(N,)`` that the page shows in full."""
    n_seen = len(fit.preparation.seen(fit.acquisition).acquisition)
    return spread_over(len(scan.y), n_seen, len(fit.signal.scalars))


def fit_numbers(fit: Fit, summary: Summary, status: np.ndarray, aside: Predicted | None = None) -> FitNumbers:
    """What the verdict is taken from; ``status`` are the voxels' codes ``(N,)`` as they were written."""
    return FitNumbers(
        signal=fit.signal_name,
        noise_factor=fit.sigma_record["learned_factor"],
        size=model_size(fit.signal_name, fit.acquisition, fit.preparation, {**fit.fixed, **fit.tied}),
        at_bound=shares_of_fitted(summary, summary.n_at_bound),
        beyond_bound=shares_of_fitted(summary, summary.n_beyond_bound),
        symbols={name: p.symbol for name, p in summary.parameters.items()},
        p_name=RESIDUAL_P if isinstance(summary, PointSummary) else PREDICTIVE_P,
        misfit=share_misfit(summary.goodness_of_fit.ppc.numpy()),
        bad_khat=share_bad_khat(None if summary.khat is None else summary.khat.numpy()),
        not_converged=share_not_converged(status),
        uninformed=fit.uninformed,
        causes=tuple(cause.kind for cause in fit.causes),
        predictive={} if aside is None else aside.record(),
        codes=share_of_codes(status),
    )


def shares_of_fitted(summary: Summary, counts: Mapping[str, int]) -> dict[str, float]:
    """Counts of voxels, one for each free parameter, over the fitted voxels."""
    return {name: n / summary.n_fitted for name, n in counts.items()}


def _write_netcdf(
    fit: Fit, scan: Scan, summary: Summary, level: np.ndarray | None, nearby: Nearby | None, path: Path
) -> None:
    """Draws of voxels spread over the mask, as ArviZ reads them; a point estimate has none."""
    from pyroqmri.diagnostics import write_netcdf

    if fit.guide is None:
        return
    fitted = np.flatnonzero(~np.isin(summary.status.numpy(), UNFITTED))
    chosen = fitted[np.linspace(0, len(fitted) - 1, min(NETCDF_VOXELS, len(fitted))).round().astype(int)]
    inputs = {name: value[chosen] for name, value in scan.inputs.items()}
    posterior = fit.posterior(
        scan.y[chosen], sigma=None if level is None else level[chosen], inputs=inputs,
        neighbours=True if nearby is None else nearby.at(torch.from_numpy(chosen)),
    )  # fmt: skip
    if not isinstance(posterior, Posterior):
        return
    # voxels go by their place in the mask
    index = torch.from_numpy(chosen)[posterior.batch.index]
    posterior.batch = replace(posterior.batch, index=index)
    write_netcdf(posterior.to_arviz(slice(None), ijk=np.argwhere(scan.mask)), path)
