"""What estimators make of a quarter of a scan, measured against the whole of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pyroqmri.commands.noise import given_noise
from pyroqmri.commands.summary import Summary, summarise
from pyroqmri.fitting.train import fit
from pyroqmri.io import Scan
from pyroqmri.measurements.shells import shell_indices
from pyroqmri.measurements.status import UNFITTED
from pyroqmri.measurements.thinning import thin
from pyroqmri.signals.tensor import elements_of, fractional_anisotropy, log_linear_tensor

SHARE = 0.25
WHITE_FA, WHITE_MD = 0.4, 1.2  # um2/ms
TENSOR_B = 1.5  # ms/um2; beyond it a tensor does not describe tissue
ESTIMATORS = {"least squares": "least_squares", "posterior mean": "hierarchical"}


@dataclass(frozen=True)
class Difference:
    """How far an estimate from a quarter of the volumes lies from one of the full scan, over the voxels of a tissue.

    ``reference`` is the estimator that the full scan was given to. ``inside`` is the share of
    voxels in which the 90 % interval from the quarter holds the full scan's estimate; ``sd``
    the median standard deviation that the estimator states.
    """

    signal: str
    parameter: str
    unit: str
    tissue: str
    n: int
    estimator: str
    reference: str
    median: float
    p90: float
    sd: float
    inside: float


@dataclass(frozen=True)
class Quarter:
    """Estimates from the kept volumes by ``(signal, estimator)``, what they miss, and the noise levels used."""

    volumes: np.ndarray
    summaries: dict[tuple[str, str], Summary]
    differences: list[Difference]
    sigma: dict[str, Any]


def compare_quarter(
    scan: Scan,
    references: Mapping[str, Mapping[str, Summary]],
    settings: Mapping[str, Mapping[str, Any]],
    progress: bool,
) -> Quarter:
    """Estimate from a quarter of the volumes; compare with least squares, and with themselves, on the full scan.

    Parameters
    ----------
    references
        Estimates from the full scan by signal and estimator; least squares has to be among them.
    settings
        Changes to the recipe of the posterior mean, by signal.
    """
    volumes = thin(scan.acquisition, SHARE)
    part = Scan(
        np.ascontiguousarray(scan.y[:, volumes]), scan.mask, scan.acquisition[torch.from_numpy(volumes)], scan.ref,
        [], scan.background,
    )  # fmt: skip
    noise = given_noise(part, "estimate")
    if noise is None:  # the scanner's noise is that of the whole scan
        noise = given_noise(scan, "estimate")
    summaries, differences, sigma = {}, [], {}
    for signal, wholes in references.items():
        for name, recipe in ESTIMATORS.items():
            changed = settings.get(signal, {}) if recipe == "hierarchical" else {}
            found = fit(
                part.y,
                part.acquisition,
                signal=signal,
                recipe=recipe,
                sigma=noise,
                settings=changed,
                progress=progress,
                causes=False,
            )
            summaries[signal, name] = summarise(found, part.y, progress=progress)
            sigma[f"{signal}, {name}"] = found.sigma_record
        differences += _differences(signal, wholes, summaries, tissues(scan))
    return Quarter(volumes, summaries, differences, sigma)


def tissues(scan: Scan) -> dict[str, np.ndarray]:
    """Voxels ``(N,)`` bool by tissue: white matter by the tensor of the lower b-values, and all."""
    acq = scan.acquisition
    assert acq.bval is not None
    low = acq.bval <= TENSOR_B
    b0 = scan.y[:, shell_indices(acq.bval)[0]].mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.nan_to_num(scan.y[:, low.numpy()] / b0, nan=1.0, posinf=1.0, neginf=0.0)
    tensor = log_linear_tensor(acq[low], torch.from_numpy(relative))
    md = tensor.diagonal(dim1=-2, dim2=-1).mean(-1)
    white = (fractional_anisotropy(*elements_of(tensor)) > WHITE_FA) & (md < WHITE_MD)
    return {"white matter": white.numpy(), "all": np.ones(len(scan.y), bool)}


def _differences(
    signal: str,
    references: Mapping[str, Summary],
    summaries: Mapping[tuple[str, str], Summary],
    where: Mapping[str, np.ndarray],
) -> list[Difference]:
    estimates = {name: summaries[signal, name] for name in ESTIMATORS}
    first = references["least squares"]
    usable = np.ones(len(first.status), bool)
    for summary in (*references.values(), *estimates.values()):
        usable &= ~np.isin(summary.status.numpy(), UNFITTED)
    found = []
    for parameter in first.signal.tissue:
        for tissue, voxels in where.items():
            chosen = usable & voxels
            if not chosen.any():
                continue
            what = signal, parameter.name, parameter.unit, tissue, int(chosen.sum())
            for name, summary in estimates.items():
                for other in dict.fromkeys(("least squares", name)):
                    if other in references:
                        numbers = _apart(summary, references[other], parameter.name, chosen)
                        found.append(Difference(*what, name, other, *numbers))
    return found


def _apart(summary: Summary, reference: Summary, name: str, chosen: np.ndarray) -> tuple[float, ...]:
    """Median and 90th percentile of the distance, median sd, and share of intervals that hold the reference."""
    truth = reference.mean[name].numpy()[chosen]
    low, high = (summary.quantile(q)[name].numpy()[chosen] for q in (0.05, 0.95))
    distance = np.abs(summary.mean[name].numpy()[chosen] - truth)
    inside = (low <= truth) & (truth <= high)
    sd = np.median(summary.sd[name].numpy()[chosen])
    return float(np.median(distance)), float(np.quantile(distance, 0.9)), float(sd), float(inside.mean())
