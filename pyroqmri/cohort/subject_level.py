"""The level of subjects under a cohort's fit: learned once, and each image's population moved to its own mean."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyroqmri.cohort.levels import Information, Levels, SubjectMean, learn_levels, subject_mean
from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.fitting.fit import Fit
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Hierarchical
from pyroqmri.whole_files import write_bytes

LEVELS = "subject_level.json"
N_VOXELS = 2000  # of one image: its mean is then known far better than subjects scatter
_LEARNED = 400  # of one subject
_ROUNDS = 3


def has_level(fit: Fit) -> bool:
    """Whether the recipe's population can have a level of subjects: one class over the physical parameters."""
    return fit.model is not None and type(fit.model.prior) is Hierarchical and fit.model.is_identity


def cohort_levels(
    fit: Fit, y: NDArray, sigma: NDArray, owner: NDArray, subjects: Sequence[str], sites: Mapping[str, str],
    inputs: Mapping[str, NDArray] | None = None,
) -> Levels:  # fmt: skip
    """Levels from the voxels that a fit was trained on.

    Parameters
    ----------
    fit
        Of the cohort.
    y, sigma, owner
        Voxels ``(N, M)``, their noise level ``(N,)`` and the place of each in ``subjects`` ``(N,)``.
    subjects
        Whose image each is; several images of one subject count as one.
    sites
        The site of a subject; one for all that are not in it.
    inputs
        Weights and deviations of the gradients of the voxels, as in :meth:`pyroqmri.Fit.posterior`.

    Raises
    ------
    InputError
        When the recipe has no such level, or there are fewer than three subjects.
    """
    if not has_level(fit):
        raise InputError(f"a level of subjects needs recipe hierarchical, and this fit is by {fit.recipe.name}")
    names = sorted(set(subjects))
    whose = np.array([names.index(one) for one in subjects])[owner]
    loc, spread = population_of(fit)
    home = [sites.get(name, "") for name in names]
    chosen = [np.flatnonzero(whose == i) for i in range(len(names))]
    chosen = [rows[:: -(-len(rows) // _LEARNED)] for rows in chosen]
    voxels = [fit.prepare(y[rows], sigma[rows], _of(inputs, rows)) for rows in chosen]
    fits, levels = [fit] * len(names), None
    for _ in range(_ROUNDS):  # what a voxel states is Gaussian only near where it was expanded
        each = [_information(one, some) for one, some in zip(fits, voxels, strict=True)]
        levels = learn_levels(each, home, loc, spread)
        means = [subject_mean(info, levels, site) for info, site in zip(each, home, strict=True)]
        fits = [with_population(fit, one.mean, levels.within + one.covariance) for one in means]
    assert levels is not None
    return levels


def for_subject(
    fit: Fit, levels: Levels, y: NDArray, sigma: Any, site: str = "", inputs: Mapping[str, NDArray] | None = None
) -> tuple[Fit, SubjectMean]:
    """The fit under the population of one subject, its mean shrunk to that of its site.

    Parameters
    ----------
    fit, levels
        Of the cohort.
    y, sigma
        Voxels of the subject ``(N, M)`` and their noise level, one number or ``(N,)``.
    site
        Of the subject.
    inputs
        As in :func:`cohort_levels`.
    """
    every = max(1, len(y) // N_VOXELS)
    some = y[::every]
    level = sigma[::every] if isinstance(sigma, np.ndarray | torch.Tensor) and np.ndim(sigma) else sigma
    voxels = fit.prepare(some, level, _of(inputs, slice(None, None, every)))
    found = with_population(fit, levels.of(site), levels.within)
    mean = SubjectMean(levels.of(site), levels.between)
    for _ in range(_ROUNDS):  # what a voxel states is linear only near where it was expanded
        mean = subject_mean(_information(found, voxels), levels, site)
        # the subject's mean is not known for certain either
        found = with_population(fit, mean.mean, levels.within + mean.covariance)
    return found, mean


def _of(inputs: Mapping[str, NDArray] | None, rows: Any) -> dict[str, NDArray]:
    return {name: values[rows] for name, values in (inputs or {}).items()}


def with_population(fit: Fit, mean: NDArray, covariance: NDArray) -> Fit:
    """A copy of a fit whose population has another mean ``(P,)`` and covariance ``(P, P)``."""
    model, guide = copy.deepcopy((fit.model, fit.guide))
    assert model is not None
    like = model.sigma
    loc, cov = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (mean, covariance))
    model.prior.update(torch.ones(1).to(like), loc[None], cov[None])
    return replace(fit, model=model, guide=guide)


def population_of(fit: Fit) -> tuple[NDArray, NDArray]:
    """Mean ``(P,)`` and covariance ``(P, P)`` of a fit's population over the latents of the tissue."""
    assert fit.model is not None
    with torch.no_grad():
        classes, n = fit.model.prior.classes(), fit.model.prior.n_tissue
        tril = classes.scale_tril[0, :n, :n].double().cpu().numpy()
        return classes.loc[0, :n].double().cpu().numpy(), tril @ tril.T


def _information(fit: Fit, voxels: Voxels) -> Information:
    """What the measurements of voxels state of their latents, to second order around their posteriors' means."""
    assert fit.model is not None and fit.guide is not None
    n = fit.model.prior.n_tissue
    with torch.no_grad():
        q = fit.guide.z_dist(voxels)
        loc = q.loc[:, 0] if isinstance(q, GaussianMixture) else q.loc  # type: ignore[attr-defined]
        short = voxels if voxels.short is None else voxels.short
        found = fit.model.expand_short(loc, short)
    z, slope, precision = (t.double().cpu().numpy() for t in (loc, found.gradient, found.information))
    pull = (precision @ z[..., None])[..., 0] + slope
    if z.shape[1] > n:  # a direction, whose latents are standard normal, is averaged over
        other = np.linalg.inv(precision[:, n:, n:] + np.eye(z.shape[1] - n))
        taken = precision[:, :n, n:] @ other
        pull = pull[:, :n] - (taken @ pull[:, n:, None])[..., 0]
        precision = precision[:, :n, :n] - taken @ precision[:, n:, :n]
    return Information((precision + precision.transpose(0, 2, 1)) / 2, pull)


def write_levels(folder: Path, fit: Fit, levels: Levels) -> None:
    """Write the levels beside the fit, in latents and in physical units."""
    record = {
        "parameters": [p.name for p in fit.signal.tissue],
        "units": [p.unit for p in fit.signal.tissue],
        "sites": list(levels.sites),
        "mean": levels.mean.tolist(),
        "mean_covariance": levels.mean_covariance.tolist(),
        "between": levels.between.tolist(),
        "within": levels.within.tolist(),
        "physical": {site: _physical(fit, levels, i) for i, site in enumerate(levels.sites)},
    }
    write_bytes(folder / LEVELS, (json.dumps(record, indent=1) + "\n").encode())


def _physical(fit: Fit, levels: Levels, i: int) -> dict[str, Any]:
    """A site's median of each parameter with its sd, and the sd of subjects and of voxels around it."""
    spreads = {
        "sd": levels.mean_covariance[i], "sd between subjects": levels.between, "sd within subjects": levels.within,
    }  # fmt: skip
    found: dict[str, Any] = {}
    for k, p in enumerate(fit.signal.tissue):
        found[p.name] = {"median": float(constrained(fit, levels.mean[i])[p.name])}
        for name, covariance in spreads.items():
            step = np.zeros(len(levels.mean[i]))
            step[k] = np.sqrt(max(covariance[k, k], 0))
            high, low = (constrained(fit, levels.mean[i] + sign * step)[p.name] for sign in (1, -1))
            found[p.name][name] = float(abs(high - low) / 2)
    return found


def constrained(fit: Fit, latents: NDArray) -> dict[str, float]:
    """Physical parameters of tissue latents ``(P,)``."""
    values = fit.signal.constrain_tissue(torch.as_tensor(latents, dtype=torch.float32)[None])
    return {name: float(value) for name, value in values.items()}


def read_levels(fit_dir: Path) -> Levels:
    """The levels beside a fit.

    Raises
    ------
    InputError
        When there are none, or they are damaged.
    """
    record = read_table(fit_dir / LEVELS, "level of subjects")
    try:
        arrays = {name: np.array(record[name], float) for name in ("mean", "mean_covariance", "between", "within")}
        levels = Levels(tuple(str(site) for site in record["sites"]), **arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{fit_dir / LEVELS} is damaged ({error}); train again with --relearn") from error
    size = levels.within.shape[0]
    if levels.mean.shape != (len(levels.sites), size) or not all(np.isfinite(a).all() for a in arrays.values()):
        raise InputError(f"{fit_dir / LEVELS} is damaged; train again with --relearn")
    return levels
