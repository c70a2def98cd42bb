"""From any Pyro model and guide trained by SVI to ArviZ."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyroqmri.diagnostics.arviz_adapter import from_groups
from pyroqmri.diagnostics.pyro_sites import is_deterministic, is_random, refuse_subsamples, scored
from pyroqmri.errors import InputError
from pyroqmri.posterior.psis import pareto_khat

Groups = dict[str, dict[str, list[Tensor]]]
Program = Callable[[], Any]


@torch.no_grad()
def from_pyro_svi(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    n_draws: int = 500,
    losses: Sequence[float] = (),
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    constant_data: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Any:
    """What a Pyro model and its trained guide say, for ArviZ: InferenceData, or a DataTree from ArviZ 1.0 on.

    Neither has to know of pyroqmri. The groups are posterior, prior,
    posterior_predictive, prior_predictive, log_likelihood, observed_data,
    sample_stats (log_p, log_q, elbo) and constant_data. ``attrs["khat"]`` is the
    Pareto shape of the guide's importance weights: above 0.7 the guide is too far
    from the posterior, and everything that is computed from its draws with it.

    Masked points of an observed site ``y`` are not scored: its log likelihood lies along ``y_scored``, whose labels
    are the places of the points that count among all, and floating-point ``observed_data`` are NaN elsewhere.

    Parameters
    ----------
    model, guide
        Pyro programs of the same arguments; an autoguide is one. Parameters may live in
        modules or in the store.
    args, kwargs
        What both are called with, data included: positional arguments, and those by name as one mapping.
    n_draws
        Draws of each group.
    losses
        Losses of the training; kept as their negative, the ELBO.
    dims
        Names of the axes of a site, ``{"theta": ["school"]}``; others are numbered.
    coords
        Labels of the dimensions.
    constant_data
        Arrays to keep beside the data.
    seed
        Of the draws; the caller's random state is left as it was.

    Raises
    ------
    InputError
        When nothing is observed, a latent site of the model is not sampled by the guide, as one that is enumerated in
        training is not, a plate is subsampled, a mask differs between draws, or ``dims`` do not fit a site.
    """
    model, guide = (partial(program, *args, **({} if kwargs is None else kwargs)) for program in (model, guide))
    groups: Groups = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        observed, masks = _observed(model, guide)
        for _ in range(n_draws):
            _one_draw(groups, model, guide, masks)
    found = {name: {k: _stack(v) for k, v in group.items()} for name, group in groups.items()}
    ratio = torch.stack(groups["sample_stats"]["log_p"]) - torch.stack(groups["sample_stats"]["log_q"])
    khat = float(pareto_khat(ratio.double()[None])[0]) if n_draws >= 25 else float("nan")
    if len(losses):
        found["sample_stats"]["elbo"] = -np.asarray(losses, np.float64)
    found["observed_data"] = {k: _where_scored(v, masks[k]) for k, v in observed.items()}
    if constant_data:
        found["constant_data"] = {k: np.asarray(v) for k, v in constant_data.items()}
    names = _dims(found, {} if dims is None else dims)
    labels = dict({} if coords is None else coords) | _drop_masked(found, names, masks)
    return from_groups(found, names, labels, {"khat": khat, "inference_library": "pyro"})


def _observed(model: Program, guide: Program) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values of the observed sites, and which of their points are scored; refuses what has no honest draws."""
    inner = poutine.trace(guide).get_trace()
    trace = poutine.trace(poutine.replay(model, inner)).get_trace()
    for t in (inner, trace):
        refuse_subsamples(t)
    trace.compute_log_prob()
    sampled = {k for k, site in inner.nodes.items() if site["type"] == "sample"}
    observed, masks, missing = {}, {}, []
    for name, site in trace.nodes.items():
        if not is_random(site):
            continue
        if site["is_observed"]:
            observed[name], masks[name] = site["value"], scored(site)
        elif name not in sampled:
            missing.append(name)
    if not any(mask.any() for mask in masks.values()):
        raise InputError("the model observes nothing when it is called with these arguments; give it its data")
    if missing:
        raise InputError(
            f"the guide does not sample {', '.join(missing)}, which the model does; sum the site out of the model, or "
            "put it into the guide"
        )
    return observed, masks


class _Unobserved(Messenger):
    """Draw what is observed; Pyro's ``uncondition`` draws deterministic values too, and in a plate reshapes them."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and is_random(msg):
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def _one_draw(groups: Groups, model: Program, guide: Program, masks: Mapping[str, Tensor]) -> None:
    """A draw from the guide with its replicate, and one from the prior with its own."""
    inner = poutine.trace(guide).get_trace()
    trace = poutine.trace(poutine.replay(model, inner)).get_trace()
    for t in (inner, trace):
        t.compute_log_prob()
    _add(groups, "posterior", trace, observed=False)
    for name, mask in masks.items():
        site = trace.nodes[name]
        if not torch.equal(mask, scored(site)):
            raise InputError(
                f"the mask of site {name} differs between draws, so that no point of it can be scored in all of them; "
                "mask by the data alone"
            )
        # each element of the site's batch is a data point
        log_prob = site["unscaled_log_prob"].expand(mask.shape)
        groups.setdefault("log_likelihood", {}).setdefault(name, []).append(log_prob)
    stats = groups.setdefault("sample_stats", {})
    stats.setdefault("log_p", []).append(torch.as_tensor(trace.log_prob_sum()))
    stats.setdefault("log_q", []).append(torch.as_tensor(inner.log_prob_sum()))
    free = _Unobserved()(model)
    for kind, program in (("posterior", poutine.condition(free, _latents(trace))), ("prior", free)):
        again = poutine.trace(program).get_trace()
        if kind == "prior":
            _add(groups, "prior", again, observed=False, leave=tuple(masks))
        for name in masks:
            groups.setdefault(f"{kind}_predictive", {}).setdefault(name, []).append(
                torch.as_tensor(again.nodes[name]["value"])
            )


def _latents(trace: Any) -> dict[str, Tensor]:
    return {k: s["value"] for k, s in trace.nodes.items() if is_random(s) and not s["is_observed"]}


def _add(groups: Groups, group: str, trace: Any, observed: bool, leave: Sequence[str] = ()) -> None:
    """Latent and deterministic values of a trace."""
    for name, site in trace.nodes.items():
        latent = is_random(site) and site["is_observed"] == observed and name not in leave
        if is_deterministic(site) or latent:
            groups.setdefault(group, {}).setdefault(name, []).append(torch.as_tensor(site["value"]))


def _stack(values: list[Tensor]) -> np.ndarray:
    """Draws ``(1, S, ...)``."""
    return torch.stack([torch.as_tensor(v).detach() for v in values])[None].cpu().numpy()


def _where_scored(value: Tensor, mask: Tensor) -> np.ndarray:
    """Observed values, NaN where no density was asked for."""
    value = torch.as_tensor(value).detach().cpu()
    if value.is_floating_point() and not mask.all() and value.dim() >= mask.dim():
        value = torch.where(mask.view(*mask.shape, *(1,) * (value.dim() - mask.dim())), value, torch.nan)
    return value.numpy()


def _drop_masked(
    groups: dict[str, dict[str, np.ndarray]], names: dict[str, list[str]], masks: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Leave the scored points of each log likelihood, along one axis; labels of that axis."""
    labels: dict[str, Any] = {}
    for name, mask in masks.items():
        if mask.all():
            continue
        if not mask.any():
            del groups["log_likelihood"][name]
            continue
        axis, before = f"{name}_scored", names[f"log_likelihood/{name}"]
        groups["log_likelihood"][name] = groups["log_likelihood"][name][:, :, mask.numpy()]
        names[f"log_likelihood/{name}"] = [axis]
        labels[axis] = np.flatnonzero(mask.numpy())
        if mask.dim() > 1:
            places = np.nonzero(mask.numpy())
            labels |= {f"{axis}_{k}": ((axis,), place) for k, place in zip(before, places, strict=True)}
    return labels


def _dims(groups: Mapping[str, Mapping[str, np.ndarray]], given: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of the axes of every array, ``NAME_dim_0`` where none is given."""
    axes = {
        (group, name): array.ndim - (0 if group in ("observed_data", "constant_data") else 2)
        for group, arrays in groups.items()
        for name, array in arrays.items()
        if name != "elbo"
    }
    found: dict[str, list[str]] = {"elbo": ["step"]}
    for (group, name), n in axes.items():
        whole = max(n_axes for (_, other), n_axes in axes.items() if other == name)
        names = list(given.get(name, [f"{name}_dim_{i}" for i in range(whole)]))
        if len(names) != whole:
            raise InputError(f"dims of {name} must name its {whole} axes, got {len(names)}: {', '.join(names)}")
        # a likelihood has lost the axes of its event, which come last
        found[f"{group}/{name}"] = names[:n]
    return found
