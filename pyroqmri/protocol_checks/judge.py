"""Everything that is judged before a fit."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.likelihoods import Likelihood
from pyroqmri.protocol_checks.reach import beyond_reach
from pyroqmri.protocol_checks.settings import check_times, look_locker, short_repetition, unused_settings
from pyroqmri.protocol_checks.undetermined import sentence, undetermined
from pyroqmri.signals import SIGNALS, BoundSignal

_FREE = {"t1_vfa": "t1_vfa_free_b1", "mp2rage": "mp2rage_free_b1", "t2_epg_given_b1": "t2_epg"}
_POPULATIONS = ("hierarchical", "full_hierarchical", "gmrf")  # kinds of prior that take what is known of a population
_BEST = 0.25  # share of voxels by whose noise a protocol is judged: a mask may hold air


@dataclass(frozen=True)
class Judged:
    """Names of what a scan does not determine, and sentences that warn of it."""

    uninformed: tuple[str, ...]
    warnings: list[str]


def judge_protocol(
    signal: BoundSignal, likelihood: Likelihood, acquisition: Acquisition, name: str, noise: Tensor
) -> Judged:
    """Judge a scan's protocol for a signal.

    Parameters
    ----------
    signal, likelihood
        At the settings that the model sees.
    acquisition
        The scan's own settings.
    name
        The signal's.
    noise
        Noise levels of the voxels over S0 ``(N, 1)``.

    Raises
    ------
    InputError
        When settings contradict one another.
    """
    check_times(acquisition)
    warnings = [f(acquisition, name) for f in (unused_settings, beyond_reach, short_repetition, look_locker)]
    found = [text for some in warnings for text in some]
    if len(noise) == 0:
        return Judged((), found)
    level = float(torch.quantile(noise.flatten()[:100_000].double(), _BEST))
    open_ = undetermined(signal, likelihood, level)
    if open_.names:
        found.insert(0, sentence(open_, signal, acquisition, level))
    return Judged(open_.names, found)


def missing_inputs(name: str, given: Collection[str], tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence where a map of B1 is missing that biases the parameters, in a recipe of these ``tables``."""
    model = SIGNALS[name]
    if "B1" not in model.inputs or "B1" in given:
        return _unknown_nuisances(name, tables)
    # the angles of MP2RAGE matter less, by how much depends on its timing, and so with those of a spin-echo train
    spoiled = "flip" in model.requires and "readout" not in model.requires
    effect = "an error of 12 % in B1, common at 3 T, makes one of 24 % in T1"
    effect = effect if spoiled else f"{model.parameters[0].name} depends on them"
    other = f", or fit B1 too (signal {_FREE[name]})" if name in _FREE else ""
    return [
        f"no map of B1 was given: the flip angles are taken to be exact, and {effect}; give one with --input B1=FILE, "
        f"or inputs={other}"
    ]


def known_nuisances(name: str, tables: Mapping[str, Mapping[str, Any]], held: Collection[str] = ()) -> list[str]:
    """A sentence on each parameter whose population a recipe of these ``tables`` takes as known; of ``held``, none."""
    if tables.get("prior", {}).get("kind") not in _POPULATIONS:
        return []
    return [
        f"the population of {key} is known beforehand ({mean:g}, sd {sd:g}) and not learned: where the sd of a voxel "
        f"is near {sd:g}, the map shows that population and no measurement"
        for key, (mean, sd) in SIGNALS[name].nuisance.items()
        if key not in held
    ]


def _unknown_nuisances(name: str, tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence on parameters of a known population that is no part of the recipe."""
    nuisances, wanted = SIGNALS[name].nuisance, SIGNALS[name].parameters[0].name
    if not nuisances or tables.get("prior", {}).get("kind") in _POPULATIONS:
        return []
    known = ", ".join(f"{key} ({mean:g} with sd {sd:g})" for key, (mean, sd) in nuisances.items())
    name, (mean, _) = next(iter(nuisances.items()))
    other = "a map of it (--input) with another signal" if name == "B1" else f"fix it (--fix {name}={mean:g})"
    return [
        f"what is known of {known} beforehand is no part of this recipe, and the measurements alone hardly determine "
        f"{wanted} beside it; use recipe hierarchical, or {other}"
    ]
