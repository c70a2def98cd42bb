"""The parts of a fit made again: from its weights on disk, or for another scan of its protocol."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_pair, build_signal
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.protocol import compare_protocols
from pyroqmri.guides import Guide
from pyroqmri.io.text import name_volumes
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.measurements.s0 import s0_volumes
from pyroqmri.networks.network import ParameterNetwork
from pyroqmri.networks.plan import build_network
from pyroqmri.recipe import Recipe
from pyroqmri.signals import BoundSignal
from pyroqmri.voxel_model import VoxelModel


class Parts(NamedTuple):
    """The parts of a fit that depend on its acquisition, under the names that they have in :class:`Fit`."""

    signal: BoundSignal
    likelihood: Likelihood
    model: VoxelModel | None
    guide: Guide | None
    network: ParameterNetwork | None


def weights_of(fit: Fit) -> dict[str, Tensor]:
    """Parameters and buffers of a fit's model, guide and network, by part and name."""
    parts = {"model": fit.model, "guide": fit.guide, "network": fit.network}
    return {f"{k}.{name}": v for k, part in parts.items() if part is not None for name, v in part.state_dict().items()}


def build_parts(
    recipe: Recipe,
    signal_name: str,
    acquisition: Acquisition,
    preparation: Preparation,
    fixed: Mapping[str, float],
    tied: Mapping[str, str],
    weights: Mapping[str, Tensor],
) -> Parts:
    """What a recipe names, made for an acquisition, with weights as :func:`weights_of` has them.

    Raises
    ------
    RuntimeError
        When the weights have another size.
    """
    signal = build_signal(signal_name, acquisition, preparation, fixed, tied, recipe.ranges)
    likelihood = build_likelihood(recipe, acquisition, preparation)
    model = guide = network = None
    if recipe.estimator == "voxel_model":
        model, guide = build_pair(recipe, signal, likelihood, 1.0)
    if recipe.estimator == "network":
        network = build_network(recipe, signal)
    for name, part in (("model.", model), ("guide.", guide), ("network.", network)):
        if part is not None:
            # how many measurements a mean is of is the acquisition's, and nothing that was learned
            own = {k: v for k, v in part.state_dict().items() if k.endswith("n_average")}
            theirs = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
            part.load_state_dict({k: v for k, v in theirs.items() if not k.endswith("n_average")} | own)
    return Parts(signal, likelihood, model, guide, network)


def on(fit: Fit, acquisition: Acquisition, keep: Tensor | None = None) -> Fit:
    """The fit for another scan; its signal takes over the scan's settings.

    Where those are the fit's own, gradient directions aside, nothing else changes; where they are others, see
    :func:`pyroqmri.fitting.transfer.transferred`.

    Parameters
    ----------
    acquisition
        The scan's M settings; without averages, they are those of the fit.
    keep
        Measurements to use ``(M,)`` bool; all when None.

    Raises
    ------
    InputError
        When the signal cannot use the protocol, or the recipe's network wants what it was trained on: all
        measurements, the same settings or the same gradient directions.
    """
    found = compare_protocols(fit.acquisition, acquisition, fit.signal_name)
    if found.difference is not None:
        from pyroqmri.fitting.transfer import transferred

        return transferred(fit, acquisition if keep is None else acquisition[keep], found)
    mine, same = fit.acquisition, found.same_directions
    used = mine if same else Acquisition(**(mine.settings() | {"bvec": acquisition.settings()["bvec"]}))
    averaged = acquisition.averages is not None and not torch.equal(acquisition.n_averages, mine.n_averages)
    used = used.averaged(acquisition.averages) if averaged else used
    if (averaged or not same) and fit.network is not None:
        what = "numbers of averages" if averaged else "gradient directions"
        raise InputError(
            f"recipe {fit.recipe.name} is a network of its own {what}, and this scan has others; train it "
            "on this scan's protocol with pyroqmri fit"
        )
    if not same and fit.guide is not None and fit.guide.sees_measurements:
        raise InputError(
            f"recipe {fit.recipe.name} is trained for the gradient directions that it saw, and this scan has others; "
            "train it on these with --retrain (retrain=True)"
        )
    same = same and not averaged
    if keep is None or bool(keep.all()):
        return fit if same else _remade(fit, used)
    left, out = int(keep.sum()), name_volumes((~keep).numpy())
    if left == 0:
        raise InputError("every volume of this image is left out; leave out fewer")
    if fit.preparation.s0 == "measured" and not s0_volumes(used[keep], fit.preparation.negligible_b).any():
        raise InputError(f"without {out} no volume is left that S0 could be measured on; leave out others")
    try:
        return _remade(fit, used[keep])
    except RuntimeError as error:  # weights of another size
        what, had, has = "volumes,", len(mine), left
        if fit.preparation.average:
            had, has = (len(fit.preparation.seen(acq).groups) for acq in (mine, used[keep]))
            what = "b-values, of whose volumes it sees the means,"
        raise InputError(
            f"recipe {fit.recipe.name} has a network of all {had} {what} and without {out} there are {has}; fit this "
            "image with the same option"
        ) from error


def _remade(fit: Fit, acquisition: Acquisition) -> Fit:
    if fit.network is not None:
        raise RuntimeError("a network takes the measurements themselves")
    parts = build_parts(
        fit.recipe, fit.signal_name, acquisition, fit.preparation, fit.fixed, fit.tied, weights_of(fit)
    )  # fmt: skip
    return replace(fit, acquisition=acquisition, **parts._asdict())
