"""The calibration check: voxels whose truth is known, on the user's protocol and noise, and what a fit says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.calibration.own_image import own_image
from pyroqmri.calibration.ranked_samples import ranked_samples
from pyroqmri.calibration.ranks import LEAST, SHIFT, WIDTH, Cell, assess, resolution
from pyroqmri.calibration.simulated_voxels import SimulatedVoxels, own_voxels, scan_voxels, tissue_voxels
from pyroqmri.errors import InputError
from pyroqmri.fitting.coils import coils_of, with_coils
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.neighbours import refuse_field
from pyroqmri.fitting.schema import plan_recipe
from pyroqmri.fitting.train import fit
from pyroqmri.posterior.recalibration import learn_recalibration
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import NOISES
from pyroqmri.voxelwise.estimates import PointEstimates

NOMINAL = ", each measurement counted in full at nominal gradients, unlike those of the fit"
DRAWS = 499  # ranks in steps of 1/500
UNMARKED = "status fine"  # the group of voxels that no code marks


@dataclass(frozen=True)
class Check:
    """What a calibration check found.

    Attributes
    ----------
    simulated
        Where the truths came from, in words.
    cells
        Numbers of each parameter over all voxels, then in each group of them.
    ranks
        Ranks ``(n,)`` of each parameter over all voxels, for figures.
    n, n_lost
        Voxels simulated, and how many of them could not be fitted.
    told
        The call: signal, recipe, SNR, protocol.
    """

    simulated: str
    cells: tuple[Cell, ...]
    ranks: dict[str, np.ndarray] = field(repr=False)
    n: int
    n_lost: int
    told: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether every cell that counts passes."""
        return all(cell.holds for cell in self.cells if cell.counts)

    @property
    def resolution(self) -> dict[str, float]:
        """What this check would have seen; see :func:`pyroqmri.calibration.ranks.resolution`."""
        counted = [cell for cell in self.cells if cell.counts]
        return resolution(min(cell.n for cell in counted), len(counted))

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        counted = [cell for cell in self.cells if cell.counts]
        failed = [cell for cell in counted if not cell.holds]
        if not failed:
            seen = self.resolution
            first = (
                f"Calibrated on {self.simulated}: no interval is off by more than {WIDTH:.0%} of its width or "
                f"{SHIFT:g} sd. These {self.n} voxels would have shown intervals {seen['too_narrow_by']:.0%} too "
                f"narrow, or a shift of {seen['shift']:.2f} sd, nine times in ten."
            )
        else:
            first = f"Not calibrated on {self.simulated}: " + "; ".join(_in_words(cell) for cell in failed) + "."
        rest = [cell for cell in self.cells if not cell.counts and not cell.holds]
        groups = f" In groups: {'; '.join(_in_words(cell) for cell in rest)}." if rest else ""
        lost = f" {self.n_lost} voxels could not be fitted." if self.n_lost else ""
        return first + groups + lost

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "ground": self.simulated, "holds": self.holds, "verdict": self.verdict, "n": self.n, "n_lost": self.n_lost,
            "told": self.told, "tolerance": {"width": WIDTH, "shift": SHIFT}, "resolution": self.resolution,
            "cells": [cell.record() for cell in self.cells],
        }  # fmt: skip


def _in_words(cell: Cell) -> str:
    where = "" if cell.group == "all" else f" in {cell.group}"
    numbers = f"90 % intervals cover {cell.coverage[2]:.0%}, centre shifted by {cell.shift:+.2f} sd"
    return f"{cell.parameter}{where} {' and '.join(cell.faults)} ({numbers})"


def check(
    found: Fit,
    *,
    n: int = 4000,
    snr: float | None = None,
    truth: SimulatedVoxels | str = "own",
    seed: int = 0,
    n_draws: int = DRAWS,
    inputs: Mapping[str, Any] | None = None,
    averages: Any = None,
) -> Check:
    """Simulate voxels, ask the fit about them, and compare.

    Parameters
    ----------
    found
        A fit; nothing is trained.
    n, snr, seed
        Voxels to simulate; S0 over sigma, the training's when None; seed of truths, noise and draws.
    truth
        ``"own"``: from the fit's own learned population, which tests the inference alone. ``"scan"``: the same with the
        noise that its scan's residuals show, which tests noise level and likelihood. ``"tissue"``: from white and grey
        matter and csf (:attr:`SignalModel.typical_tissue`), which tests the population too. Or voxels made elsewhere.
    inputs
        Per-voxel inputs of the signal as :func:`pyroqmri.simulate.draw_inputs` takes them; their defaults when None.
    averages
        How many magnitudes each measurement is the mean of; as in the training when None.

    Raises
    ------
    InputError
        When the estimator has no uncertainty, or too few voxels are asked for.
    """
    if n < LEAST:
        raise InputError(f"a check of {n} voxels has no power; ask for {LEAST} at least")
    found = found if averages is None else found.on(found.acquisition.averaged(averages))
    simulated = truth if isinstance(truth, SimulatedVoxels) else simulated_voxels(found, truth, n, seed, snr, inputs)
    samples, kept, classes, fine = ranked_samples(found, simulated, seed, n_draws)
    groups = _groups(simulated, kept, classes)
    counting = simulated.counts or classes is not None
    n_cells = len(samples) * (1 + (len(groups) if counting else 0))
    cells = [assess(s, "all", n_cells) for s in samples]
    cells += [assess(s[pick], name, n_cells, counting) for name, pick in groups.items() for s in samples]
    if truth not in ("own", "scan") and LEAST <= int(fine.sum()) < len(fine):
        cells += [assess(s[fine.numpy()], UNMARKED, n_cells, False) for s in samples]
    told = {
        "signal": found.signal_name, "recipe": found.recipe.name, "likelihood": found.recipe.kind("likelihood"),
        "s0": found.preparation.s0, "snr": simulated.snr, "n_measurements": len(found.acquisition), "seed": seed,
        "n_draws": n_draws, "fixed": found.fixed, "tied": found.tied, "recalibrated": found.recalibration is not None,
        "status_fine": float(fine.double().mean()) if len(fine) else None,
    }  # fmt: skip
    ranks = {s.parameter: s.rank for s in samples}
    name = simulated.name + (NOMINAL if found.own_protocol else "")
    return Check(name, tuple(cells), ranks, len(kept), int((~kept).sum()), told)


def simulated_voxels(
    found: Fit, truth: str, n: int, seed: int, snr: float | None = None, inputs: Mapping[str, Any] | None = None
) -> SimulatedVoxels:
    """Voxels with known truth for a fit: of its ``own`` population, with its ``scan``'s noise, or of ``tissue``.

    Of a fit whose prior is a field they are an image, of its own field.
    """
    if found.is_field:
        if truth != "own":
            refuse_field(found.recipe.name, True)
        return own_image(found, n, seed, snr, inputs)
    if truth in ("own", "scan"):
        return own_voxels(found, n, seed, snr, inputs) if truth == "own" else scan_voxels(found, n, seed, inputs)
    if truth != "tissue":
        raise InputError(f"truth must be 'own', 'scan' or 'tissue', got {truth!r}")
    return tissue_voxels(found, n, seed, snr, inputs)


def fit_protocol(
    acquisition: Acquisition,
    *,
    signal: str,
    recipe: str | Path | Recipe,
    snr: float,
    n_train: int = 10_000,
    likelihood: str | None = None,
    coils: float | None = None,
    s0: str | float = "measured",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    given: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    averages: Any = None,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Fit a recipe to simulated tissue on a protocol at a noise level, to be checked.

    Options as in :func:`fit`; ``inputs`` as in :func:`check`; ``snr`` is S0 over the noise of one magnitude.
    """
    if signal not in SIGNALS:
        raise InputError(f"there is no signal {signal!r}; there are {', '.join(SIGNALS)}")
    if not snr > 0:
        raise InputError(f"snr must be above zero, got {snr}")
    acquisition = acquisition.averaged(averages)
    held = {"fixed": dict(fixed or {}), "tied": dict(tied or {})}
    plan = with_coils(plan_recipe(recipe, settings, {"likelihood": likelihood}), coils)
    kind = "gaussian" if SIGNALS[signal].signed else plan.kind("likelihood")
    of = signal, acquisition, s0, held, kind if kind in NOISES else "rician"
    train = tissue_voxels(of, n_train, seed + 7919, snr, inputs, coils_of(plan))
    return fit(
        train.y, acquisition, signal=signal, recipe=recipe, likelihood=likelihood, coils=coils, sigma=train.sigma,
        s0=s0, seed=seed, settings=settings, given=given, progress=progress, inputs=train.inputs, **held,
    )  # fmt: skip


def recalibrate(
    found: Fit,
    *,
    n: int = 8000,
    snr: float | None = None,
    truth: SimulatedVoxels | str = "own",
    seed: int = 1,
    n_draws: int = DRAWS,
    inputs: Mapping[str, Any] | None = None,
) -> Fit:
    """The fit with its intervals corrected by what simulations show; the arguments of :func:`check`."""
    refuse_field(found.recipe.name, found.is_field)
    plain = replace(found, recalibration=None)
    simulated = truth if isinstance(truth, SimulatedVoxels) else simulated_voxels(plain, truth, n, seed, snr, inputs)
    posterior = plain.posterior(simulated.y, sigma=simulated.sigma, inputs=simulated.inputs)
    if isinstance(posterior, PointEstimates) or not hasattr(posterior, "draws"):
        raise InputError(f"recipe {found.recipe.name} has no posterior to recalibrate; take a Bayesian recipe")
    draws = posterior.draws(min(n_draws, 250), seed=seed)
    made = {"simulated": simulated.name, "snr": simulated.snr, "n": len(simulated.y), "seed": seed}
    scalars = {name: p for name, p in posterior.parameters.items() if name in draws}
    return replace(found, recalibration=learn_recalibration(draws, simulated.truth, scalars, made))


def _groups(simulated: SimulatedVoxels, kept: Tensor, classes: Tensor | None) -> dict[str, np.ndarray]:
    """Voxels by the class that the posterior itself finds likeliest, else by the tissue they were made of.

    A right posterior is right among the voxels that any rule applied to the measurements picks, so the first counts
    in a verdict. Among voxels of one true tissue even the exact posterior is drawn to the others: the second does not.
    """
    if simulated.labels is not None:
        label, names = simulated.labels[kept].numpy(), simulated.classes
    elif classes is not None:
        label = classes.numpy()
        names = tuple(f"class {i + 1}" for i in range(int(label.max()) + 1))
    else:
        return {}
    groups = {name: label == i for i, name in enumerate(names)}
    return {name: pick for name, pick in groups.items() if pick.sum() >= LEAST and not pick.all()}
