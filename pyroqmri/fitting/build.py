"""From a recipe and data to the objects it names."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.errors import InputError, brief
from pyroqmri.fitting.expected import expected_latents
from pyroqmri.fitting.parts import BASES, part_of
from pyroqmri.fitting.schema import with_settings
from pyroqmri.guides import Counted as CountedGuide
from pyroqmri.guides import Guide, RelaxedDecoded, RelaxedEncoder, Structured
from pyroqmri.likelihoods import Likelihood
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.parameter import SCAN_UNIT
from pyroqmri.priors import Counted, FullHierarchical, Hierarchical, Mixture, RelaxedMixture
from pyroqmri.protocol_checks.data_sign import check_sign, gaussian_in_place, magnitudes_asked_for, sign_of
from pyroqmri.recipe import Recipe
from pyroqmri.signals import SIGNALS, BoundSignal, SignalModel
from pyroqmri.signals.bound import S0
from pyroqmri.voxel_model import VoxelModel


def build_signal(
    signal: str,
    acq: Acquisition,
    preparation: Preparation,
    fixed: Mapping[str, float],
    tied: Mapping[str, str],
    ranges: Mapping[str, Sequence[float]] | None = None,
) -> BoundSignal:
    """The signal at the acquisition that the model sees; ranges of S0 and of amplitudes are in the scan's own units."""
    model, ranges = SIGNALS[signal], dict(ranges or {})
    infer_s0 = preparation.s0 == "inferred" and model.has_s0(acq)
    scaled = [p.name for p in (*model.parameters, *((S0,) if infer_s0 else ())) if p.unit == SCAN_UNIT]
    ranges |= {name: [value / preparation.scale for value in ranges[name]] for name in scaled if name in ranges}
    return BoundSignal(model, preparation.seen(acq).acquisition, fixed, tied, infer_s0, ranges)


def build_likelihood(recipe: Recipe, acq: Acquisition, preparation: Preparation) -> Likelihood:
    """The likelihood that the recipe names, knowing how many measurements each entry, and S0, is the mean of."""
    seen = preparation.seen(acq)
    return _make(recipe, "likelihood", seen.n_average, seen.n_s0)


def settle_likelihood(
    recipe: Recipe, signal: str, y: Tensor, acquisition: Acquisition, chosen: bool
) -> tuple[Recipe, list[str]]:
    """The recipe with a likelihood that suits the sign of the data and of the signal, and sentences that warn of it.

    A signal of data that keep their sign, and data that do, take a Gaussian likelihood unless the user has ``chosen``
    one.

    Raises
    ------
    InputError
        When inversion data keep their sign and the signal describes their magnitude.
    """
    sign = sign_of(y)
    warnings = check_sign(sign, y, acquisition, signal)
    kind = recipe.kind("likelihood")
    if not getattr(part_of(recipe, "likelihood"), "magnitude", False) or not (sign.real or SIGNALS[signal].signed):
        return recipe, warnings
    if chosen:
        return recipe, [*warnings, magnitudes_asked_for(sign, kind)]
    if not SIGNALS[signal].signed:
        warnings.append(gaussian_in_place(sign, kind))
    return with_settings(recipe, {"likelihood.kind": "gaussian"}), warnings


def settle_number(recipe: Recipe, signal: type[SignalModel]) -> Recipe:
    """The recipe with prior and guide that count the parts of a signal, where the signal has parts to count.

    Raises
    ------
    InputError
        When the recipe is one that cannot.
    """
    if not signal.countable or recipe.estimator == "point":
        return recipe
    kinds = {table: recipe.kind(table) for table in ("prior", "guide") if table in recipe.tables}
    if kinds not in ({"prior": "counted", "guide": "counted"}, {"prior": "hierarchical", "guide": "structured"}):
        raise InputError(
            f"recipe {recipe.name} cannot count the parts of {signal.__name__}, which has several directions; take "
            "hierarchical, least_squares or maximum_likelihood"
        )
    usual = {"draws": 1024, "reweight": True, "max_khat": 1.0, "min_efficiency": 0.03}
    mine: dict[str, Any] = {"prior.kind": "counted", "guide.kind": "counted"}
    mine |= {f"posterior.{k}": v for k, v in usual.items() if k not in recipe.tables.get("posterior", {})}
    return with_settings(recipe, mine)


def build_pair(recipe: Recipe, signal: BoundSignal, likelihood: Likelihood, sigma: float) -> tuple[VoxelModel, Guide]:
    """The Pyro pair that the recipe names."""
    n_direction = signal.n_latents - signal.n_tissue
    decoder = _make(recipe, "decoder", signal.n_tissue, n_direction)
    prior = _make(recipe, "prior", decoder.n_tissue_latents, n_direction, **_given(recipe, signal))
    if isinstance(prior, Hierarchical | FullHierarchical) and isinstance(decoder, IdentityDecoder):
        prior.expect(expected_latents(recipe, signal))
    elif recipe.tables.get("expected"):
        raise InputError(
            f"recipe {recipe.name}: [expected] needs prior hierarchical or full_hierarchical and decoder identity"
        )
    with _blamed_on(recipe, "prior"):
        model = VoxelModel(signal, prior, decoder, likelihood, sigma)
    n_measurements = len(signal.acquisition)
    guide = _make(recipe, "guide", model, n_measurements)
    if prior.is_field and not (isinstance(guide, Structured) and model.is_identity):
        raise InputError(
            f"prior {recipe.kind('prior')} is a field over the image, which needs guide structured and decoder identity"
        )
    if prior.follows_draws and not guide.draws_population:
        raise InputError(
            f"guide {recipe.kind('guide')} does not draw the population of prior {recipe.kind('prior')}; "
            "use guide structured, or prior hierarchical, which estimates a point"
        )
    if isinstance(prior, Counted) and not isinstance(guide, CountedGuide):
        raise InputError(f"prior counted needs guide counted, and the recipe has guide {recipe.kind('guide')}")
    if isinstance(prior, RelaxedMixture) and not isinstance(guide, RelaxedEncoder | RelaxedDecoded):
        raise InputError(
            f"guide {recipe.kind('guide')} has no relaxed component, and prior relaxed_mixture needs one; "
            "use guide relaxed_encoder or relaxed_decoded, or prior mixture"
        )
    return model, guide


def _make(recipe: Recipe, table: str, *arguments: Any, **given: Any) -> Any:
    """The part of a table, made by its class or factory."""
    with _blamed_on(recipe, table):
        made = part_of(recipe, table)(*arguments, **recipe.table(table), **given)
    if not isinstance(made, BASES[table]):
        raise InputError(
            f"{table} {recipe.kind(table)} made a {type(made).__name__}, which is no {BASES[table].__name__}"
        )
    return made


@contextmanager
def _blamed_on(recipe: Recipe, table: str) -> Iterator[None]:
    """Whatever goes wrong in the making of a part is named as its own, with its settings."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a class of the user's may raise anything
        entries = brief(recipe.table(table))
        raise InputError(
            f"{table} {recipe.kind(table)} cannot be made with the settings {entries}: {type(error).__name__}: {error}"
        ) from error


def _given(recipe: Recipe, signal: BoundSignal) -> dict[str, Any]:
    """Which latents are counted, or given tissue classes: mean and sd of the unconstrained parameters ``(G, 2, P)``."""
    if part_of(recipe, "prior") is Counted:
        names = [p.name for p in signal.tissue]
        return {"countable": tuple(names.index(name) for name in signal.signal.countable if name in names)}
    classes = recipe.tables.get("given", {})
    if not classes:
        return {}
    if part_of(recipe, "prior") is not Mixture or recipe.kind("decoder") != "identity":
        raise InputError("given tissue classes need prior mixture and decoder identity, as in hierarchical_mixture")
    return {"given": torch.stack([_given_class(name, table, signal) for name, table in classes.items()])}


def _given_class(name: str, table: Any, signal: BoundSignal) -> Tensor:
    wanted = [p.name for p in signal.tissue]
    if not isinstance(table, Mapping) or sorted(table) != sorted(wanted):
        hint = "; with s0 measured it needs no S0" if signal.infer_s0 else ""
        raise InputError(
            f"given class {name!r} must state mean and sd of each of {', '.join(wanted)}, got {table!r}{hint}"
        )
    mean: dict[str, Tensor] = {}
    loc, sd = [], []
    for p in signal.tissue:
        pair = table[p.name]
        if not (isinstance(pair, Sequence) and len(pair) == 2 and p.lower < pair[0] < p.upper and pair[1] > 0):
            raise InputError(
                f"given class {name!r}: {p.name} must be [mean, sd] with the mean inside "
                f"{p.lower:g}..{p.upper:g} {p.unit} and sd above zero, got {pair!r}"
            )
        mean[p.name] = torch.tensor(float(pair[0]))
        box = signal.box(p, mean)
        u = p.unconstrain(mean[p.name], box)
        loc.append(u)
        sd.append(float(pair[1]) / p.slope(u, box))
    return torch.stack([torch.stack(loc), torch.stack(sd)])
