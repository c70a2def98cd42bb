"""Which recipes take voxels with a protocol of their own."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.fitting.parts import part_of
from pyroqmri.measurements.arguments import as_dict, as_inputs
from pyroqmri.measurements.own_protocol import GRAD_DEV, OWN, WEIGHTS, counting, with_own_protocol
from pyroqmri.measurements.voxel_inputs import complete_inputs
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SignalModel

_OPTION = {WEIGHTS: "weights (--weights)", GRAD_DEV: "grad_dev (--grad-dev)"}


def training_inputs(
    recipe: Recipe, signal: type[SignalModel], y: Tensor, inputs: Mapping[str, Any] | None, weights: Any, grad_dev: Any
) -> tuple[Tensor, dict[str, Tensor], tuple[str, ...]]:
    """Measurements ``(N, M)``, zero where they do not count; all inputs of their voxels; the names that were given."""
    given = with_own_protocol(as_dict(inputs, "inputs"), weights, grad_dev)
    check_own_protocol(recipe, given)
    known = complete_inputs(signal, as_inputs(given), len(y))
    return counting(y, known), known, tuple(name for name in given if name not in OWN)


def check_own_protocol(recipe: Recipe, inputs: Iterable[str]) -> None:
    """Refuse weights of measurements, or gradients that deviate, where a recipe sees one protocol alone.

    Raises
    ------
    InputError
        When the recipe is a network, its guide is trained for one protocol, or dipy does the search.
    """
    given = [name for name in OWN if name in inputs]
    if not given:
        return
    if recipe.estimator == "point" and recipe.table("search").get("engine") == "dipy":
        raise InputError(f"search.engine 'dipy' does not take {_OPTION[given[0]]}; use the engine 'torch'")
    one = recipe.estimator == "voxel_model" and not getattr(part_of(recipe, "guide"), "any_protocol", False)
    if recipe.estimator == "network" or one:
        raise InputError(
            f"{_OPTION[given[0]]} makes the protocol differ between voxels, and recipe {recipe.name} is trained for "
            "one; leave it out, or use least_squares, maximum_likelihood, hierarchical or another recipe whose guide "
            "takes any protocol"
        )
