"""The subset of candidate measurements that is worth most under a fit's population."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError, brief
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.protocol import compare_protocols
from pyroqmri.measurements.arguments import as_seed
from pyroqmri.planning.choice import choose, gain_of
from pyroqmri.planning.directions import spread_over
from pyroqmri.planning.information import population_information
from pyroqmri.protocol_checks.undetermined import distinct
from pyroqmri.signals import SIGNALS

P = ParamSpec("P")


@dataclass(frozen=True)
class Plan:
    """Chosen measurements and what they gain.

    Attributes
    ----------
    index, even
        The chosen candidates ``(n,)`` in rising order, and as many that are evenly spread over the settings.
    gain, even_gain, whole_gain
        Expected information gain in nats of the two, and of all candidates.
    curve
        The gain after one, two, ... measurements, chosen greedily.
    sd, even_sd, whole_sd, population_sd
        Expected posterior sd of each scalar quantity after the two choices, after all candidates and before any, in
        the units of ``units``.
    minutes
        What the choice takes, or None where that is unknown.
    few
        Distinct settings of the choice and unknowns of a voxel, where the former are fewer; None where they are not.
    """

    index: Tensor
    even: Tensor
    gain: float
    even_gain: float
    whole_gain: float
    curve: list[float]
    sd: dict[str, float]
    even_sd: dict[str, float]
    whole_sd: dict[str, float]
    population_sd: dict[str, float]
    units: dict[str, str]
    minutes: float | None = None
    few: tuple[int, int] | None = None

    def sentences(self) -> list[str]:
        """The gain in words."""
        n, m = len(self.index), len(self.even)
        than = f"than with {m} measurements spread evenly over the candidates"
        smaller = [
            f"sd of {name} {abs(1 - self.sd[name] / even):.0%} {'smaller' if self.sd[name] < even else 'larger'}"
            for name, even in self.even_sd.items()
        ]
        rests = [] if self.few is None else [
            f"the choice has {self.few[0]} distinct settings for {self.few[1]} unknowns per voxel: without the "
            "population it determines nothing; choose more, or plan for all parameters"
        ]  # fmt: skip
        return [
            f"{n} measurements, expected gain {self.gain:.2f} nats ({self.even_gain:.2f} evenly spread, "
            f"{self.whole_gain:.2f} with all candidates)",
            f"expected {', '.join(smaller)} {than}",
            *rests,
        ]


def plan(
    fit: Fit,
    candidates: Acquisition,
    n: int | None = None,
    *,
    parameters: Sequence[str] | None = None,
    minutes: float | None = None,
    seconds: Any = None,
    snr: float | None = None,
    draws: int = 256,
    seed: int = 0,
    each: bool = False,
) -> Plan:
    """The candidate measurements that are worth most under the fit's population, compared with an even choice.

    The expected information gain of the Laplace posterior, averaged over voxels drawn from the population with axes
    in all directions; greedy choice, then exchange. :func:`pyroqmri.design` returns the indices ``(n,)`` alone, in
    rising order.

    Parameters
    ----------
    fit
        A fit of a voxel model: its population, noise level and likelihood count.
    candidates
        M measurements to choose from, each at most once; list one several times to allow repeats.
    n
        How many to choose.
    parameters
        Scalar parameters, derived quantities or the direction that count, such as ``["K"]``; all when None.
    minutes, seconds
        A budget in place of ``n``, and how long each candidate takes, a number or ``(M,)``.
    snr
        S0 over the noise level; the fit's own when None.
    draws
        Voxels of the population that the gain is averaged over.
    seed
        The same seed gives the same choice.
    each
        Count what each quantity gains by itself, and sum it up; together otherwise, where their correlation counts.

    Raises
    ------
    InputError
        When the signal cannot use the candidates, they are too few, none measures an S0 that the fit divides by, or
        the fit has no population.
    """
    compare_protocols(fit.acquisition, candidates, fit.signal_name, "candidates")  # or raises
    cost, budget = _budget(len(candidates), n, minutes, seconds)
    if snr is not None and not (math.isfinite(snr) and snr > 0):
        raise InputError(f"snr must be above zero, got {brief(snr)}")
    if fit.preparation.s0 == "measured":
        _check_b0(fit, candidates)
    _check_enough(fit, candidates, len(cost) if n is None else n)
    found = population_information(fit, candidates, parameters, draws, as_seed(seed), snr, each)
    selection = choose(found, cost, budget)
    index = torch.tensor(sorted(selection.index))
    if "bvec" not in SIGNALS[fit.signal_name].requires and minutes is None:
        index = spread_over(index, candidates, fit.preparation.negligible_b)
    whole = torch.arange(len(candidates))
    even = even_choice(fit, candidates, len(index))
    none = torch.zeros(0, dtype=torch.long)
    settings = _n_settings(fit, candidates[index]), _n_unknown(fit)
    return Plan(
        index, even, gain_of(found, index), gain_of(found, even), gain_of(found, whole), selection.curve,
        found.sd(index), found.sd(even), found.sd(whole), found.sd(none),
        dict(zip(found.names, found.units, strict=True)), None if seconds is None else float(cost[index].sum()) / 60,
        settings if settings[0] < settings[1] else None,
    )  # fmt: skip


def _index_of(whole: Callable[P, Plan]) -> Callable[P, Tensor]:
    """The indices of a plan alone, by the same arguments."""

    @functools.wraps(whole)
    def design(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return whole(*args, **kwargs).index

    design.__name__ = design.__qualname__ = "design"
    design.__signature__ = inspect.signature(whole).replace(return_annotation=Tensor)  # type: ignore[attr-defined]
    return design


design = _index_of(plan)


def even_choice(fit: Fit, candidates: Acquisition, n: int) -> Tensor:
    """As many candidates ``(n,)`` as asked for, every so many of them in the order of their settings, b0 first."""
    used = (*SIGNALS[fit.signal_name].requires, *SIGNALS[fit.signal_name].optional)
    keys = [torch.arange(len(candidates)).double()]
    keys += [v.double() for name, v in candidates.settings().items() if name in used and name != "bvec"]
    order = torch.arange(len(candidates))
    for key in keys:
        order = order[torch.argsort(key[order], stable=True)]
    places = torch.linspace(0, len(candidates) - 1, n).round().long()
    return order[places].sort().values


def _budget(m: int, n: Any, minutes: float | None, seconds: Any) -> tuple[Tensor, float]:
    """Cost of each candidate ``(M,)`` and what may be spent."""
    if (n is None) == (minutes is None):
        raise InputError("give either n, how many measurements to choose, or minutes, how long they may take")
    if minutes is None:
        if isinstance(n, bool) or int(n) != n or not 1 <= n <= m:
            raise InputError(f"n must be a whole number from 1 to the {m} candidates, got {brief(n)}")
        found = torch.ones(m).double()
        return found, float(n)
    if seconds is None:
        raise InputError("minutes need seconds, how long each candidate takes: one number or one per candidate")
    cost = torch.as_tensor(seconds, dtype=torch.float64).flatten()
    if len(cost) not in (1, m) or not bool((cost.isfinite() & (cost > 0)).all()):
        raise InputError(f"seconds must be above zero, one number or one for each of the {m} candidates")
    cost = cost.expand(m).clone()
    if not 60 * minutes >= float(cost.min()):
        raise InputError(f"{minutes:g} minutes are too short for any candidate, the shortest takes {cost.min():g} s")
    return cost, 60 * minutes


def _check_b0(fit: Fit, candidates: Acquisition) -> None:
    try:
        fit.preparation.s0_volumes(candidates)
    except InputError as error:
        raise InputError(
            f"the fit divides each voxel by its measured S0, and no candidate measures it ({error}); add b0 candidates"
        ) from error


def _check_enough(fit: Fit, candidates: Acquisition, most: int) -> None:
    """Refuse candidates, or a number of them, with which the signal has more unknowns than settings."""
    settings, unknown = min(_n_settings(fit, candidates), most), _n_unknown(fit)
    if settings < unknown:
        what = "n allows" if most < _n_settings(fit, candidates) else "the candidates have"
        raise InputError(
            f"{what} {settings} distinct settings for {unknown} unknowns per voxel, S0 among them; choose more "
            "measurements, or offer more settings"
        )


def _n_settings(fit: Fit, acquisition: Acquisition) -> int:
    model = SIGNALS[fit.signal_name]
    return len(distinct(acquisition, (*model.requires, *model.optional)))


def _n_unknown(fit: Fit) -> int:
    return fit.signal.n_latents + int(fit.preparation.s0 == "measured")
